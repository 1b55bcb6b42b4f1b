"""The token of a header `Authorization: Bearer` (RFC 6750)."""

from __future__ import annotations

from hmac import compare_digest
from typing import Final

_SCHEME: Final = b"bearer"


def bears_token(authorization: bytes, token: bytes) -> bool:
    """Return True if a header `Authorization` bears `token`, compared in constant time; never if `token` is empty.

    >>> bears_token(b"Bearer secret", b"secret"), bears_token(b"bearer  secret", b"secret")
    (True, True)
    >>> bears_token(b"Basic secret", b"secret"), bears_token(b"Bearer ", b"")
    (False, False)
    """
    scheme, _, found = authorization.partition(b" ")
    return bool(token) and scheme.lower() == _SCHEME and compare_digest(found.strip(), token)
