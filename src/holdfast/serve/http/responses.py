"""Response heads, and the one shape of every error: {"error": ..., "code": ..., "reasons": [...]}."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from holdfast.errors import ConflictError, HoldfastError, InputError, NotFoundError, QuotaError, RefusedError

JSON: Final = b"application/json"
OCTETS: Final = b"application/octet-stream"

_PHRASES: Final = {each.value: each.phrase.encode() for each in HTTPStatus} | {413: b"Content Too Large"}
_STARTS: Final = {
    (status, content_type): b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ndate: " % (status, phrase, content_type)
    for status, phrase in _PHRASES.items()
    for content_type in (JSON, OCTETS)
}
_STATUSES: Final[dict[type[HoldfastError], int]] = {
    InputError: 400,
    NotFoundError: 404,
    ConflictError: 409,
    RefusedError: 409,
    QuotaError: 429,
}
_encode: Final = msgspec.json.Encoder().encode


def head(status: int, content_type: bytes, length: int, date: bytes, extra: bytes, close: bool) -> bytes:
    """Return the status line and headers of a response. `extra` is complete header lines.

    >>> head(200, JSON, 2, b"Thu, 01 Jan 1970 00:00:00 GMT", b"", False).splitlines()[-2]
    b'content-length: 2'
    """
    start = _STARTS.get((status, content_type))
    if start is None:
        start = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ndate: " % (status, _PHRASES[status], content_type)
    if close:
        extra += b"connection: close\r\n"
    return b"%b%b\r\n%bcontent-length: %d\r\n\r\n" % (start, date, extra, length)


def error_body(code: str, what: str, reasons: list[str] | None = None) -> bytes:
    """Return an error as JSON."""
    return _encode({"error": what, "code": code, "reasons": reasons or []})


def status_of(error: HoldfastError) -> int:
    """Return the HTTP status for a kind of error; the only place that maps one to the other."""
    return next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 503)
