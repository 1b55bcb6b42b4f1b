"""The page's socket: idle and slow connections shut no other client out, and keep no descriptor for long."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
import uvicorn

from holdfast.web import bounded_protocol
from holdfast.web.bounded_protocol import CONNECTIONS, BoundedProtocol
from tests.support.waiting import wait_until

HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@pytest.fixture
def page() -> Iterator[tuple[uvicorn.Server, tuple[str, int]]]:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        config = uvicorn.Config(
            application, http=BoundedProtocol, lifespan="off", log_level="error", access_log=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([bound])))
        thread.start()
        wait_until(lambda: server.started, "the server has started")
        yield server, bound.getsockname()
        server.should_exit = server.force_exit = True
        thread.join()


def ask(address: tuple[str, int]) -> int:
    return httpx.get(f"http://{address[0]}:{address[1]}/", timeout=60).status_code


@pytest.mark.parametrize("sent", [b"", HALF], ids=["never a byte", "half a header"])
def test_connections_without_a_request_make_room(page, sent):
    """66 connections with half a header: 503 for every other client, for minutes."""
    server, address = page
    held = [socket.create_connection(address) for _ in range(3 * CONNECTIONS)]
    for each in held:
        try:
            each.sendall(sent)
        except ConnectionError:
            continue  # it made room already
    assert [ask(address) for _ in range(5)] == [200] * 5
    wait_until(lambda: len(server.server_state.connections) <= CONNECTIONS, "the others are closed")
    for each in held:
        each.close()


def test_a_request_has_a_deadline_that_a_trickle_does_not_move(page, monkeypatch):
    monkeypatch.setattr(bounded_protocol, "RECEIPT_SECONDS", 0.5)
    _, address = page
    with socket.create_connection(address) as client:
        client.settimeout(0.1)
        client.sendall(HALF)

        def is_closed() -> bool:
            try:
                client.sendall(b"a: b\r\n")
                return client.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(is_closed, "the connection is closed")


def test_a_kept_connection_begins_its_deadline_with_its_next_request(page, monkeypatch):
    monkeypatch.setattr(bounded_protocol, "RECEIPT_SECONDS", 0.5)
    _, address = page
    with socket.create_connection(address) as client:
        client.settimeout(60)
        client.sendall(HALF + b"\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        client.sendall(HALF)
        with suppress(ConnectionError):
            assert client.recv(4096) == b""
