"""Prediction ids: the place of a record in a server's log, and a tag that cannot be guessed.

An id is `<server>-<segment>-<number>.<tag>`, and `/<row>` for one row of a request. So a label finds its prediction without an
index. The tag is a keyed hash of the place: without the id, no caller can name the prediction. Any server that has the key
verifies the ids of all. Ids of releases before tags have none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

LONGEST_ID: Final = 64
"""The maximum length of a prediction id in characters."""
MAX_ROW: Final = 9_999
"""The greatest row of a request."""
SECRET_BYTES: Final = 32
"""The length of the secret from which the key derives."""

_ID: Final = re.compile(
    r"([a-z0-9][a-z0-9_-]{0,62})-([0-9]{1,9})-([0-9]{1,15})(?:\.([0-9a-f]{16}))?/([0-9]{1,9})\Z", re.ASCII
)
_PURPOSE: Final = b"prediction ids"
_TAG_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class PredictionId:
    """The place of one prediction: the server's log, its segment, the record's number in it, the row; and the tag.

    `tag` is empty in ids of releases before tags.
    """

    server: str
    segment: int
    number: int
    row: int
    tag: str = ""

    def __str__(self) -> str:
        tag = f".{self.tag}" if self.tag else ""
        return f"{self.server}-{self.segment}-{self.number}{tag}/{self.row}"


def parse_id(text: str) -> PredictionId | None:
    """Return the parts of a prediction id with its row; None if it is none.

    >>> parse_id("web-1-3-17.0123456789abcdef/0")
    PredictionId(server='web-1', segment=3, number=17, row=0, tag='0123456789abcdef')
    >>> parse_id("../etc/passwd") is None
    True
    """
    found = _ID.match(text) if len(text) <= LONGEST_ID else None
    if found is None:
        return None
    parsed = PredictionId(found[1], int(found[2]), int(found[3]), int(found[5]), found[4] or "")
    # "7" and "007" would be two keys of one prediction, and a label could then count twice.
    return parsed if str(parsed) == text else None


def names_row(text: str) -> bool:
    """Return True if a prediction id ends with a row. One without is that of a request of one row.

    >>> names_row("web-1-3-17/4"), names_row("web-1-3-17")
    (True, False)
    """
    return "/" in text


def full_id(text: str) -> str:
    """Return a prediction id with a row: the first one if `text` names none.

    >>> full_id("web-1-3-17"), full_id("web-1-3-17/4")
    ('web-1-3-17/0', 'web-1-3-17/4')
    """
    return text if names_row(text) else f"{text}/0"


def rows_reason(text: str, rows: int) -> str:
    """Return why the id `text`, which names no row, labels none of a request of `rows` rows.

    >>> rows_reason("web-1-3-17", 3)
    'the request had 3 rows, and web-1-3-17 names none of them: send web-1-3-17/0 to web-1-3-17/2, each with its label'
    """
    return (
        f"the request had {rows:,} rows, and {text} names none of them: send {text}/0 to {text}/{rows - 1}, "
        "each with its label"
    )


class IdKey:
    """The key that tags prediction ids. It derives from a secret of `SECRET_BYTES` bytes."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
        self._key = blake2b(_PURPOSE, key=secret, digest_size=32).digest()

    def tag(self, place: str) -> str:
        """Return the tag of `<server>-<segment>-<number>`: 16 hexadecimal digits."""
        return blake2b(place.encode(), key=self._key, digest_size=_TAG_BYTES).hexdigest()

    def has_tagged(self, prediction: PredictionId) -> bool:
        """Return True if the tag of `prediction` is that of its place."""
        place = f"{prediction.server}-{prediction.segment}-{prediction.number}"
        return compare_digest(self.tag(place), prediction.tag)
