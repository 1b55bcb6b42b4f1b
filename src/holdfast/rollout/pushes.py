"""What became of a push: the label that each rollout gets in the ledger of pushes.

A push that was not seen to its end is censored, never good: a canary that was rolled back too soon to tell, one that a
person took back for another reason, one that a newer push replaced before its watch was over (R128, R129).
"""

from __future__ import annotations

from enum import StrEnum


class PushOutcome(StrEnum):
    """The label of a push."""

    OPEN = "open"  # under way, or promoted and watched
    GOOD = "good"  # promoted, and watched to the end without harm
    BAD = "bad"  # harm was shown before it was promoted
    ESCAPED = "escaped"  # harm was shown after it was promoted: the canary let it through
    CENSORED = "censored"  # it ended before anybody could tell
