"""The HTTP edge alone, in a process of its own with small limits: every resource is bounded, replies keep their order."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.http.listener import RESERVE, Listener
from tests.support import forking
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

SERVER = """
import asyncio, sys, uvloop
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.http.listener import Listener

async def main():
    loop = asyncio.get_running_loop()
    def answer(exchange):
        if exchange.path == b"/later":
            loop.call_later(0.2, exchange.send, 200, b"later")
        elif exchange.path == b"/never":
            pass
        elif exchange.path == b"/count":
            exchange.send(200, b"connections %d" % (len(listener.connections) - 1))
        elif exchange.path == b"/big":
            exchange.send(200, b"x" * 4_000_000)
        else:
            exchange.send(200, exchange.path + b" " + bytes(exchange.body)[:20] + b" %d" % len(exchange.body))
    limits = ConnectionLimits(header_bytes=2048, body_bytes=10_000, held_bytes=50_000, receipt_seconds=0.6, idle_seconds=1.2,
                    write_seconds=0.6, connections=20, pipelined=8)
    listener = Listener(answer, limits, lambda: b"Thu, 01 Jan 1970 00:00:00 GMT")
    server = await loop.create_server(listener.connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

uvloop.run(main())
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    yield from served(SERVER)


@pytest.fixture(scope="module")
def slow_port() -> Iterator[int]:
    """As `port`, with deadlines that no test reaches."""
    yield from served(
        SERVER.replace("receipt_seconds=0.6, idle_seconds=1.2", "receipt_seconds=60.0, idle_seconds=60.0")
    )


def served(source: str) -> Iterator[int]:
    process = forking.start(source)
    yield int(process.stdout.readline())
    assert process.poll() is None, "the server died"
    process.kill()
    process.wait()
    process.stdout.close()


def talk(port: int, *parts: bytes, pause: float = 0.0, patience: float = 60.0) -> bytes:
    """Send the parts, then read until the server closes or reports nothing for `patience` seconds."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(patience)
        received = b""
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
            while chunk := client.recv(65536):
                received += chunk
        except (TimeoutError, ConnectionError):
            pass
        return received


def request(path: str = "/", method: str = "GET", body: bytes | None = None, *lines: str) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: x", *lines]
    if body is not None:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + (body or b"")


CLOSE = "Connection: close"


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", received)]


def test_pipelined_replies_keep_their_order(port: int) -> None:
    received = talk(port, request("/later") + request("/a") + request("/b", "POST", b"xyz", CLOSE))
    assert statuses(received) == [200, 200, 200]
    assert received.index(b"later") < received.index(b"/a") < received.index(b"/b xyz")
    assert b"connection: close" in received


def test_a_request_may_come_byte_by_byte(port: int) -> None:
    whole = request("/slow", "POST", b"12345", CLOSE)
    assert b"/slow 12345 5" in talk(port, *[bytes([byte]) for byte in whole])


def test_chunked_bodies_are_put_together(port: int) -> None:
    chunks = b"3\r\nabc\r\n2;name=value\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
    received = talk(port, request("/c", "POST", None, "Transfer-Encoding: chunked", CLOSE) + chunks)
    assert b"/c abcde 5" in received


def test_head_has_the_length_and_no_body(port: int) -> None:
    received = talk(port, request("/h", "HEAD", None, CLOSE))
    assert statuses(received) == [200]
    assert received.endswith(b"\r\n\r\n")


def test_http_1_0_closes(port: int) -> None:
    assert statuses(talk(port, b"GET / HTTP/1.0\r\n\r\n")) == [200]


def test_a_client_that_expects_100_gets_it(port: int) -> None:
    received = talk(
        port,
        request("/e", "POST", None, "Expect: 100-continue", "Content-Length: 2", CLOSE),
        b"ok",
        pause=0.1,
    )
    assert statuses(received) == [100, 200]


def test_100_does_not_overtake_an_earlier_reply(port: int) -> None:
    first = request("/later") + request(
        "/e", "POST", None, "Expect: 100-continue", "Content-Length: 2", CLOSE
    )
    assert statuses(talk(port, first, b"ok", pause=0.4)) == [200, 100, 200]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request("/", "POST", b"abc", "Transfer-Encoding: chunked"), 400),
        (request("/", "POST", b"abc", "Content-Length: 4"), 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (request("/", "POST", None, "Content-Length: 10001"), 413),
        (request("/", "POST", None, "Content-Length: 99999999999999999999999"), 400),
        (request("/", "POST", None, "Expect: 100-continue", "Content-Length: 10001"), 413),
        (request("/", "POST", None, "Expect: tea", "Content-Length: 1"), 417),
        (request("/", "POST", None, "Transfer-Encoding: chunked") + (b"2000\r\n" + b"x" * 0x2000 + b"\r\n") * 2, 413),
        (request("/", "POST", None, "Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 4000, 413),
        (request("/" + "a" * 3000), 431),
        (request("/", "GET", None, "X: " + "a" * 60_000), 431),
        (request("/", "GET", None, *[f"X{number}: y" for number in range(5000)]), 431),
    ],
    ids=range(18),
)  # fmt: skip
def test_what_is_refused_gets_a_response_and_is_closed(port: int, sent: bytes, status: int) -> None:
    """R5: smuggling, oversized headers and bodies, tiny chunks."""
    started = time.monotonic()
    received = talk(port, sent)
    assert statuses(received) == [status]
    assert b"connection: close" in received
    assert b'"code":"HF501"' in received
    assert time.monotonic() - started < 30


OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")


def test_an_offer_of_another_protocol_is_passed_over(port: int) -> None:
    """RFC 9110 section 7.8, what `curl --http2` sends: the body is read, and the connection goes on."""
    chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    whole = (
        request("/length", "POST", b"xyz", *OFFER)
        + request("/chunks", "POST", None, "Transfer-Encoding: chunked", *OFFER)
        + chunks
        + request("/nothing", "GET", None, *OFFER)
        + request("/last", "POST", b"q", "Connection: close, Upgrade", *OFFER[1:])
    )
    for parts in ([whole], [whole[:200], whole[200:]], [bytes([byte]) for byte in whole]):
        received = talk(port, *parts)
        assert statuses(received) == [200] * 4
        bodies = (b"/length xyz 3", b"/chunks abcde 5", b"/nothing  0", b"/last q 1")
        places = [received.index(each) for each in bodies]
        assert places == sorted(places)
        assert b"connection: close" in received


def test_an_offer_moves_no_limit(port: int) -> None:
    assert statuses(talk(port, request("/", "POST", None, "Content-Length: 10001", *OFFER))) == [413]
    large = request("/", "POST", None, "Transfer-Encoding: chunked", *OFFER)
    assert statuses(talk(port, large + (b"2000\r\n" + b"x" * 0x2000 + b"\r\n") * 2)) == [413]
    received = talk(port, request("/", "POST", None, "Content-Length: 9", *OFFER), *[b"x"] * 8, pause=0.1)
    assert statuses(received) == [408]


def test_connect_gets_a_response_and_is_closed(port: int) -> None:
    started = time.monotonic()
    received = talk(port, b"CONNECT example:443 HTTP/1.1\r\nHost: example:443\r\n\r\n")
    assert statuses(received) == [200]  # by this file's application; the real one has no such path
    assert b"connection: close" in received
    assert time.monotonic() - started < 30


def test_a_refused_request_does_not_lose_the_replies_before_it(port: int) -> None:
    assert statuses(talk(port, request("/later") + b"NONSENSE\r\n\r\n")) == [200, 400]


@pytest.mark.parametrize(
    "first", [b"GET /x", b"GET / HTTP/1.1\r\nHost:", request("/", "POST", None, "Content-Length: 90") + b"ab"]
)
def test_a_slow_request_is_given_up(port: int, first: bytes) -> None:
    """F9: the deadline counts from the first byte; a trickle does not move it."""
    received = talk(port, first, *[b"x"] * 12, pause=0.1)
    assert statuses(received) == [408]


def test_a_silent_connection_is_closed(port: int) -> None:
    started = time.monotonic()
    assert talk(port) == b""
    assert time.monotonic() - started > 0.4


def test_an_idle_connection_is_closed_after_its_last_reply(port: int) -> None:
    started = time.monotonic()
    assert statuses(talk(port, request("/"))) == [200]
    assert time.monotonic() - started > 1.0


def test_a_client_that_does_not_read_is_disconnected(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(request("/big") * 6)
        time.sleep(2)
        client.settimeout(3)
        size = 0
        try:
            while chunk := client.recv(1 << 20):
                size += len(chunk)
        except ConnectionError:
            pass
        assert size < 24_000_000


def test_too_many_pipelined_requests_end_the_connection_in_order(port: int) -> None:
    received = talk(port, request("/p") * 30)
    assert statuses(received) == [200] * 8


def opened(port: int, sent: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.settimeout(60)
    client.sendall(sent)
    return client


def responses(client: socket.socket, count: int) -> list[int]:
    """The statuses of the next responses of a connection that stays open; fewer if it is closed."""
    received = b""
    try:
        while len(statuses(received)) < count and (chunk := client.recv(65536)):
            received += chunk
    except ConnectionError:
        pass
    return statuses(received)


def closed(client: socket.socket) -> bool:
    client.settimeout(60)
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_when_full_the_connection_that_has_been_idle_longest_makes_room(slow_port: int) -> None:
    """1,024 connections with one request a minute shut everybody out, the operator's rollback too."""
    held = [opened(slow_port) for _ in range(20)]
    for each in held:
        each.sendall(request("/"))
        assert responses(each, 1) == [200]
    held[0].sendall(request("/again"))
    assert responses(held[0], 1) == [200], "it is the newest now"
    late = [opened(slow_port, request("/late")) for _ in range(3)]
    assert [responses(each, 1) for each in late] == [[200]] * 3
    assert all(closed(each) for each in held[1:4])
    for each in (held[0], *held[4:]):
        each.sendall(request("/kept"))
        assert responses(each, 1) == [200]
    for each in (*held, *late):
        each.close()


def test_connections_that_never_sent_a_request_make_room_first(slow_port: int) -> None:
    kept = [opened(slow_port, request("/")) for _ in range(10)]
    assert [responses(each, 1) for each in kept] == [[200]] * 10
    flood = [opened(slow_port) for _ in range(500)]
    for each in kept:
        each.sendall(request("/kept"))
        assert responses(each, 1) == [200]
    for each in (*kept, *flood):
        each.close()


def test_slow_requests_make_room_before_their_deadline(slow_port: int) -> None:
    """Half a request on each connection held the server for ten seconds."""
    half = request("/", "POST", None, "Content-Length: 9")
    for _ in range(2):
        held = [opened(slow_port, half) for _ in range(20)]
        time.sleep(1.2)  # more than SLOW_SECONDS: what is tested is a time
        late = opened(slow_port, request("/late"))
        assert responses(late, 1) == [200]
        late.close()
        for each in held:
            each.close()


def test_a_busy_server_keeps_a_reserve_for_operators(slow_port: int) -> None:
    """Every connection waits for its response, so none can make room: probes and this machine are still served."""
    held = [opened(slow_port, request("/never")) for _ in range(20)]
    wait_until(
        lambda: b"connections 20" in talk(slow_port, request("/count", "GET", None, CLOSE)), "all are open"
    )
    for path in ("/v2/health/ready", "/holdfast/abort", "/v2/models/m/infer"):
        assert statuses(talk(slow_port, request(path, "GET", None, CLOSE))) == [200]
    more = [opened(slow_port, request("/never")) for _ in range(RESERVE)]
    wait_until(
        lambda: statuses(talk(slow_port, request("/", "GET", None, CLOSE))) in ([503], []), "it is full"
    )
    for each in (*held, *more):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
        each.close()
    wait_until(
        lambda: statuses(talk(slow_port, request("/", "GET", None, CLOSE))) == [200], "there is room again"
    )


class Peer(asyncio.Transport):
    """A connection from elsewhere, which keeps what is written to it."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 4000)})
        self.written = b""
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        self.is_aborted = True


def test_in_reserve_a_client_from_elsewhere_reaches_the_abort_endpoint_and_no_version() -> None:
    async def ask() -> list[list[int]]:
        limits = ConnectionLimits(connections=8)
        listener = Listener(
            lambda exchange: exchange.path == b"/never" or exchange.send(200, b""), limits, bytes
        )

        def connect(address: str, path: str) -> Peer:
            connection, peer = listener.connection(), Peer(address)
            connection.connection_made(peer)
            connection.data_received(request(path))
            return peer

        for _ in range(8):
            connect("192.0.2.1", "/never")
        admitted = [
            connect("192.0.2.1", "/v2/models/m/infer"), connect("192.0.2.1", "/v2/models/m/feedback?a"),
            connect("192.0.2.1", "/holdfast/abort"), connect("192.0.2.1", "/metrics"),
            connect("127.0.0.1", "/v2/models/m/infer"), connect("::1", "/v2/models/m/infer"),
        ]  # fmt: skip
        listener.close()
        return [statuses(peer.written) for peer in admitted]

    assert asyncio.run(ask()) == [[503], [503], [200], [200], [200], [200]]


def test_bodies_that_are_being_received_are_bounded_together(port: int) -> None:
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    for client in clients:
        client.sendall(request("/", "POST", None, "Content-Length: 10000") + b"x" * 9000)
    time.sleep(0.1)
    responses = []
    for client in clients:
        client.settimeout(0.1)
        try:
            responses.append(client.recv(1000)[9:12])
        except TimeoutError:
            responses.append(b"")
        client.close()
    assert b"503" in responses
    assert b"" in responses


def test_it_responds_after_all_of_that(port: int, tmp_path: Path) -> None:
    assert statuses(talk(port, request("/", "GET", None, CLOSE))) == [200]
