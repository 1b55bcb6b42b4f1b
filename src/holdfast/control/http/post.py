"""POST to a declared URL within a deadline, and sign the request."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from holdfast.control.http.client import Client, Response
from holdfast.errors import UnavailableError
from holdfast.rollout.decision.webhooks import MAX_RESPONSE_BYTES

SIGNATURE: Final = "Holdfast-Signature"
"""The header with the signature: `t=<seconds since 1970>,v1=<HMAC-SHA-256>`, RFC 2104, over `<t>.<body>`."""


def signature(key: str, body: bytes, *, now_us: int) -> str:
    """Sign `body` for the header `SIGNATURE`. It covers the time, so that an old request cannot be sent as a new one.

    >>> signature("key", b"{}", now_us=1_000_000)[:12]
    't=1,v1=1ba6b'
    """
    seconds = now_us // 1_000_000
    made = hmac.new(key.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={made}"


def post(url: str, body: bytes, headers: Mapping[str, str], *, within_seconds: float) -> Response:
    """Post `body` and return the response, with at most `MAX_RESPONSE_BYTES` and one more byte of its body.

    A redirect is a response like any other: nothing but `url` is called, and no proxy.

    Parameters
    ----------
    url
        http or https.
    body, headers
        Sent as they are; JSON unless a header names another type.
    within_seconds
        From the call to the last byte of the response, with the look-up of the name and the TLS handshake.

    Raises
    ------
    UnavailableError
        HF601 if there was no complete response in time.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    results: list[Response | Exception] = []

    def work() -> None:
        try:
            with client:
                results.append(
                    client.request("POST", target, body, headers, limit_bytes=MAX_RESPONSE_BYTES + 1)
                )
        except Exception as error:  # the thread that waits raises it
            results.append(error)

    # The system resolves names without a deadline, and a socket's time-out is for each read: so in a thread of its own.
    client = Client(url, timeout_seconds=within_seconds)
    thread = threading.Thread(target=work, name="post", daemon=True)
    thread.start()
    thread.join(within_seconds)
    result = results[0] if results else TimeoutError()
    if not results:
        client.abort()
    match result:
        case Response():
            return result
        case TimeoutError():
            reason = f"no response within {within_seconds:g} s"
        case OSError():
            reason = str(result) or type(result).__name__
        case _:
            raise result
    raise UnavailableError("HF601", reason, state="nothing is lost: it is sent again") from result
