"""The HTTP edge alone, in a process of its own with small limits: every resource is bounded, replies keep their order."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import forking
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

SERVER = """
import asyncio, sys, uvloop
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.http.connection import Listener

async def main():
    loop = asyncio.get_running_loop()
    def answer(exchange):
        if exchange.path == b"/later":
            loop.call_later(0.2, exchange.send, 200, b"later")
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
    process = forking.start(SERVER)
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


def test_connections_beyond_the_limit_get_503(port: int) -> None:
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    received = talk(port)
    assert statuses(received) == [503]
    assert b"HF504" in received
    for each in held:
        each.close()
    wait_until(lambda: statuses(talk(port, request("/", "GET", None, CLOSE))) == [200], "there is room again")


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
