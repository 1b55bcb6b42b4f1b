"""The identity of a batch: the sender's id for the delivery, and a digest of what was delivered.

The id names the delivery, the digest its content. A delivery that comes again with the same digest changes nothing,
however often it comes. The same id with another digest is a contradiction that an operator must resolve.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from holdfast.records import BatchId, check_name


def batch_id(feed: str, batch: str) -> BatchId:
    """Return the id of a delivery, its two names checked; `InputError` HF109 on a name that cannot be used.

    >>> str(batch_id("flights", "2013-01-05"))
    'flights/2013-01-05'
    """
    return BatchId(check_name(feed, "feed"), check_name(batch, "batch"))


def content_digest(pieces: Iterable[bytes | memoryview]) -> str:
    """Return the SHA-256 of the delivery's bytes as they were received, as 64 hexadecimal digits.

    Bytes, not rows: no reading of them can hide a difference. The same rows written again by another tool
    are another content.

    >>> content_digest([b"a,b", b"1,2"]) == content_digest([b"a,b1,2"])
    True
    """
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
