"""One HTTP POST to an address that was declared: within a time, without redirects, with a short answer."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from holdfast.errors import UnavailableError
from holdfast.rollout.decision.webhooks import ANSWER_BYTES

SIGNATURE = "Holdfast-Signature"
"""The header with the signature: `t=<seconds since 1970>,v1=<HMAC-SHA-256>`, RFC 2104, over `<t>.<body>`."""


def signature(key: str, body: bytes, *, now_us: int) -> str:
    """What `SIGNATURE` says of `body`. The moment is in it, so that an old request cannot be sent again as a new one.

    >>> signature("key", b"{}", now_us=1_000_000)[:12]
    't=1,v1=1ba6b'
    """
    seconds = now_us // 1_000_000
    made = hmac.new(key.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={made}"


def post(url: str, body: bytes, headers: Mapping[str, str], *, within_seconds: float) -> tuple[int, bytes]:
    """The status and the body of the answer, of which at most `ANSWER_BYTES` and one more byte are read.

    Redirects are answers like any other: nothing but `url` is called, and no proxy. Raises `UnavailableError` HF601 when no
    whole answer came within `within_seconds`, counted from the call to the last byte, however it trickles.
    """
    said: list[tuple[int, bytes] | Exception] = []
    sent = _Sent()

    def work() -> None:
        try:
            said.append(_posted(sent, url, body, headers, within_seconds))
        except Exception as error:  # it is raised again by the thread that waits
            said.append(error)

    # Names are looked up by the system, which has a patience of its own and takes no deadline: so in a thread that may be
    # left behind. A time-out of the socket is for each read, of which there may be many, of the handshake too.
    thread = threading.Thread(target=work, name="post", daemon=True)
    thread.start()
    thread.join(within_seconds)
    found = said[0] if said else TimeoutError()
    if not said:
        sent.cut()
    match found:
        case TimeoutError():
            words = f"no answer within {within_seconds:g} s"
        case OSError() | http.client.HTTPException():
            words = str(found) or type(found).__name__
        case Exception():
            raise found
        case answer:
            return answer
    raise UnavailableError("HF601", words, state="nothing is lost: it is asked or told again") from found


def tell(
    url: str, body: bytes, headers: Mapping[str, str], *, within_seconds: float, who: str, next_command: str
) -> None:
    """Post an event to `who`, and be sure that it was taken: `UnavailableError` HF601 unless the answer is a 2xx in time."""
    refused = f"{who} at {url} did not take an event"
    try:
        status, _ = post(url, body, headers, within_seconds=within_seconds)
    except UnavailableError as error:
        raise UnavailableError(
            "HF601", f"{refused}: {error.what}", state=error.state, next_command=next_command
        ) from error
    if not 200 <= status < 300:
        raise UnavailableError(
            "HF601",
            f"{refused}: it answered with status {status}",
            state="nothing is lost: it is told again",
            next_command=next_command,
        )


class _Sent:
    """A connection that another thread may cut, also before it is made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cut = False
        self._socket: socket.socket | None = None

    def holds(self, made: socket.socket) -> None:
        """`made` is what `cut` ends; `TimeoutError` when it came too late."""
        with self._lock:
            self._socket = made
            if self._is_cut:
                raise TimeoutError

    def cut(self) -> None:
        """End it: whoever reads or writes finds its end."""
        with self._lock:
            self._is_cut = True
            if self._socket is not None:
                _cut(self._socket)


def _posted(
    sent: _Sent, url: str, body: bytes, headers: Mapping[str, str], within_seconds: float
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=within_seconds)

    def connected(address: tuple[str, int], *given: Any) -> socket.socket:
        made = socket.create_connection(address, *given)
        try:
            sent.holds(made)
        except TimeoutError:
            made.close()
            raise
        return made

    # Where http.client makes its socket, before it shakes hands; the connection forgets it with the head of an answer.
    connection._create_connection = connected  # type: ignore[attr-defined]  # not in the stubs; there since Python 3.3
    try:
        connection.connect()
        assert connection.sock is not None, "it is connected"
        sent.holds(connection.sock)  # with TLS another one than was made
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read(ANSWER_BYTES + 1)
    finally:
        connection.close()


def _cut(waiting: socket.socket) -> None:
    with suppress(OSError):  # it ended by itself at this moment
        waiting.shutdown(socket.SHUT_RDWR)
