"""One HTTP POST to an address that was declared: within a time, without redirects, with a short answer."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from holdfast.errors import UnavailableError
from holdfast.rollout.hooks import ANSWER_BYTES

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

    Redirects are answers like any other: nothing but `url` is called, and no proxy. Raises `UnavailableError` HF209 when no
    whole answer came within `within_seconds`, counted from the call to the last byte, however it trickles.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=within_seconds)
    end = time.monotonic() + within_seconds
    cutter = None
    try:
        connection.connect()
        # A time-out of the socket is for each read; one that sends a byte a second would never meet it. The connection
        # forgets its socket when it has the head of an answer.
        cutter = threading.Timer(max(0.0, end - time.monotonic()), _cut, (connection.sock,))
        cutter.daemon = True
        cutter.start()
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        said = answer.read(ANSWER_BYTES + 1)
        if time.monotonic() > end:
            raise TimeoutError
        return answer.status, said
    except (OSError, http.client.HTTPException) as error:
        late = time.monotonic() >= end
        words = f"no answer within {within_seconds:g} s" if late else str(error) or type(error).__name__
        raise UnavailableError("HF209", words, state="nothing is lost: it is asked or told again") from error
    finally:
        if cutter is not None:
            cutter.cancel()
        connection.close()


def tell(
    url: str, body: bytes, headers: Mapping[str, str], *, within_seconds: float, who: str, next_command: str
) -> None:
    """Post an event to `who`, and be sure that it was taken: `UnavailableError` HF209 unless the answer is a 2xx in time."""
    refused = f"{who} at {url} did not take an event"
    try:
        status, _ = post(url, body, headers, within_seconds=within_seconds)
    except UnavailableError as error:
        raise UnavailableError(
            "HF209", f"{refused}: {error.what}", state=error.state, next_command=next_command
        ) from error
    if not 200 <= status < 300:
        raise UnavailableError(
            "HF209",
            f"{refused}: it answered with status {status}",
            state="nothing is lost: it is told again",
            next_command=next_command,
        )


def _cut(waiting: socket.socket) -> None:
    with suppress(OSError):  # it ended by itself at this moment
        waiting.shutdown(socket.SHUT_RDWR)
