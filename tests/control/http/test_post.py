"""A POST ends within its time, whatever takes it: the look-up of a name, a handshake, or an answer that trickles."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from holdfast.control.http.post import post
from holdfast.errors import UnavailableError


@pytest.fixture
def trickling() -> Iterator[int]:
    """A port where a TLS record begins that comes a byte at a time: each read has an answer in time."""
    done = threading.Event()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            made, _ = listener.accept()
            with made:
                try:
                    made.sendall(b"\x16\x03\x03\x40\x00")
                    while not done.wait(0.1):
                        made.sendall(b"\x02")
                except OSError:
                    return  # closed, as it should be

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        done.set()
        thread.join()


def seconds_of(url: str) -> float:
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"no response within 0\.5 s"):
        post(url, b"{}", {}, within_seconds=0.5)
    return time.monotonic() - began


@pytest.mark.process
def test_a_handshake_that_trickles_is_truncated(trickling: int) -> None:
    assert seconds_of(f"https://127.0.0.1:{trickling}/hook") < 30.0


def test_a_name_without_an_address_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        released.wait(60.0)
        raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert seconds_of("http://hook.example/x") < 30.0
    released.set()


def test_a_server_that_is_not_there_is_reported_at_once() -> None:
    with pytest.raises(UnavailableError, match="refused"):
        post("http://127.0.0.1:9/hook", b"{}", {}, within_seconds=5.0)
