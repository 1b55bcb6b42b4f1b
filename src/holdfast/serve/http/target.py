"""Request targets: the absolute form that proxies send, and percent-encoded letters, as the path that a server has."""

from __future__ import annotations

import re
from typing import Final

_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_ESCAPED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def origin_form(target: bytes) -> tuple[bytes, bytes | None]:
    """Return a request target as path and query, and the host that it names; None if it names none.

    A server must accept the absolute form, and its host counts instead of the Host header (RFC 9112 section 3.2.2). An encoded
    letter, digit, '-', '.', '_' or '~' is that character (RFC 3986 section 6.2.2.2); other escapes, and the query, stay.

    >>> origin_form(b"http://server:8080/v2/health/ready?x=%41"), origin_form(b"/v2/m%6fdels/a%2Fb")
    ((b'/v2/health/ready?x=%41', b'server:8080'), (b'/v2/models/a%2Fb', None))
    """
    host = None
    if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
        host, target = absolute[1], absolute[2]
        if not target.startswith(b"/"):
            target = b"/" + target
    path, mark, query = target.partition(b"?")
    return _ESCAPED.sub(_decoded, path) + mark + query, host


def _decoded(escape: re.Match[bytes]) -> bytes:
    byte = int(escape[1], 16)
    return bytes([byte]) if byte in _UNRESERVED else escape[0]
