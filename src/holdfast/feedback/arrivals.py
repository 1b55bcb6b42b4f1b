"""Arriving labels: which count, which correct an earlier one, and which are rejected or quarantined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from holdfast.feedback.prediction_ids import full_id, parse_id
from holdfast.records import Corrections

FEED_SOURCE: Final = "label feeds"
"""The source of labels that label feeds brought. No caller may use it."""


class Arrival(StrEnum):
    """The outcome of an arriving label."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"  # the same label again: counts once
    CORRECTED = (
        "corrected"  # another value from the same source, and the label feed declares corrections="latest"
    )
    CONTRADICTS = "contradicts"  # another value from the same source, and the first one counts
    QUARANTINED = "quarantined"  # another value from another source
    MALFORMED = "malformed"  # no id of ours, or a value that is not between 0 and 1


class Standing(StrEnum):
    """Whose label a prediction or key has already, as its next caller sees it."""

    NONE = "none"
    SAME_SOURCE = "the same source"
    OTHER_SOURCE = "another source"
    LABEL_FEED = "a label feed"


ARRIVALS: Final[Mapping[tuple[Standing, Corrections], Arrival]] = {
    (Standing.NONE, "latest"): Arrival.ACCEPTED,
    (Standing.NONE, "first"): Arrival.ACCEPTED,
    (Standing.SAME_SOURCE, "latest"): Arrival.CORRECTED,
    (Standing.SAME_SOURCE, "first"): Arrival.CONTRADICTS,
    (Standing.OTHER_SOURCE, "latest"): Arrival.QUARANTINED,
    (Standing.OTHER_SOURCE, "first"): Arrival.QUARANTINED,
    (Standing.LABEL_FEED, "latest"): Arrival.ACCEPTED,
    (Standing.LABEL_FEED, "first"): Arrival.ACCEPTED,
}
"""The outcome of a caller's other value for what has a label, by whose label stands and the declared corrections.

A label feed and a caller never contradict each other: both labels are kept, and `counting_label` goes by their times.
"""


@dataclass(frozen=True, slots=True)
class KnownLabel:
    """The newest label of a prediction or key: its value from 0 to 1, its source, and when it was received."""

    value: float
    source: str
    received_at_us: int = 0


def classify_label(
    prediction: str, label: KnownLabel, known: KnownLabel | None, corrections: Corrections
) -> Arrival:
    """Return the outcome of a label for `prediction`, given the known one and the declared corrections.

    >>> known = KnownLabel(1.0, "crm")
    >>> [
    ...     str(classify_label("s-0-1/0", KnownLabel(value, source), known, "latest"))
    ...     for value, source in ((1.0, "bank"), (0.0, "crm"), (0.0, "bank"))
    ... ]
    ['repeated', 'corrected', 'quarantined']
    """
    if parse_id(full_id(prediction)) is None or not (
        math.isfinite(label.value) and 0.0 <= label.value <= 1.0
    ):
        return Arrival.MALFORMED
    return compare_labels(label, known, corrections)


def compare_labels(label: KnownLabel, known: KnownLabel | None, corrections: Corrections) -> Arrival:
    """Return the outcome of a caller's label.

    `known` is the newest label of a caller for the same prediction or key; if there is none, that of a label feed.
    """
    standing = _standing(label, known)
    if standing in _OF_CALLERS and known is not None and known.value == label.value:
        return Arrival.REPEATED
    return ARRIVALS[standing, corrections]


_OF_CALLERS: Final = (Standing.SAME_SOURCE, Standing.OTHER_SOURCE)


def _standing(label: KnownLabel, known: KnownLabel | None) -> Standing:
    if known is None:
        return Standing.NONE
    if known.source == FEED_SOURCE:
        return Standing.LABEL_FEED
    return Standing.SAME_SOURCE if known.source == label.source else Standing.OTHER_SOURCE


def counting_label(history: Sequence[KnownLabel], corrections: Corrections) -> KnownLabel:
    """Return which label of one prediction counts: the one known last with "latest", the one known first with "first".

    Parameters
    ----------
    history
        The labels of callers in the order of their corrections, and at most one of label feeds, anywhere among them. Not empty.
    corrections
        What the label feeds declare.

    Guarantee: when a label feed's label arrived decides nothing. Of two labels of one time, true is the later one, as in
    `tables.labels.known_labels`.

    >>> sent, feed = KnownLabel(1.0, "crm", 20), KnownLabel(0.0, FEED_SOURCE, 10)
    >>> [counting_label([sent, feed], each).source for each in ("latest", "first")]
    ['crm', 'label feeds']
    """
    sent = [each for each in history if each.source != FEED_SOURCE]
    of_feed = [each for each in history if each.source == FEED_SOURCE]
    is_latest = corrections == "latest"
    candidates = [*of_feed, *(sent[-1:] if is_latest else sent[:1])]
    return (max if is_latest else min)(candidates, key=lambda each: (each.received_at_us, each.value))


def correction_time_us(label: KnownLabel, known: KnownLabel) -> int:
    """Return when a correction became known: after the label that it corrects, whatever the servers' clocks show.

    Which of several labels counts is decided by these times, so two of one prediction must not have the same.
    """
    return max(label.received_at_us, known.received_at_us + 1)
