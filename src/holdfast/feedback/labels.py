"""Labels: their prediction ids, and whether they are accepted.

The id of a prediction names the place of its record: `<server>-<segment>-<number>`, and `/<row>` for one row of a
request. So a label finds its prediction without an index, and an impossible id is detected.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LONGEST_ID: Final = 48
"""The maximum length of a prediction id in characters."""

MAXIMUM_WAIT_US: Final = 7 * 86_400_000_000
"""How long a label waits for a log that cannot be read."""

PATIENCE_US: Final = 10 * 60_000_000
"""How long a label waits whose prediction should have been collected."""

_ID: Final = re.compile(r"([a-z0-9][a-z0-9_-]{0,62})-([0-9]{1,9})-([0-9]{1,15})/([0-9]{1,9})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class PredictionId:
    """The place of one prediction: the server's log, its segment, the record's number in it, the row."""

    server: str
    segment: int
    number: int
    row: int

    def __str__(self) -> str:
        return f"{self.server}-{self.segment}-{self.number}/{self.row}"


def parse_id(text: str) -> PredictionId | None:
    """Return the parts of a prediction id with its row; None if it is none.

    >>> parse_id("web-1-3-17/0")
    PredictionId(server='web-1', segment=3, number=17, row=0)
    >>> parse_id("../etc/passwd") is None
    True
    """
    found = _ID.match(text) if len(text) <= LONGEST_ID else None
    if found is None:
        return None
    parsed = PredictionId(found[1], int(found[2]), int(found[3]), int(found[4]))
    # "7" and "007" would be two keys of one prediction, and a label could then count twice.
    return parsed if str(parsed) == text else None


class Arrival(StrEnum):
    """The outcome of an arriving label."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"  # the same label again: counts once
    CONTRADICTS = "contradicts"  # the same prediction has another label already
    MALFORMED = "malformed"  # no id of ours, or a value that is not between 0 and 1


def classify_label(prediction: str, value: float, known: float | None) -> Arrival:
    """Return the outcome of a label, given the known value for the same prediction.

    >>> [str(classify_label("s-0-1/0", 1.0, known)) for known in (None, 1.0, 0.0)]
    ['accepted', 'repeated', 'contradicts']
    """
    if parse_id(prediction) is None or not (math.isfinite(value) and 0.0 <= value <= 1.0):
        return Arrival.MALFORMED
    if known is None:
        return Arrival.ACCEPTED
    return Arrival.REPEATED if known == value else Arrival.CONTRADICTS
