"""Arriving labels: which count, which correct an earlier one, and which are rejected or quarantined."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from holdfast.feedback.prediction_ids import parse_id
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
    if parse_id(prediction) is None or not (math.isfinite(label.value) and 0.0 <= label.value <= 1.0):
        return Arrival.MALFORMED
    return compare_labels(label, known, corrections)


def compare_labels(label: KnownLabel, known: KnownLabel | None, corrections: Corrections) -> Arrival:
    """Return the outcome of a label, given the known one of the same prediction or key."""
    if known is None:
        return Arrival.ACCEPTED
    if known.value == label.value:
        return Arrival.REPEATED
    if known.source != label.source:
        return Arrival.QUARANTINED
    return Arrival.CORRECTED if corrections == "latest" else Arrival.CONTRADICTS


def correction_time_us(label: KnownLabel, known: KnownLabel) -> int:
    """Return when a correction became known: after the label that it corrects, whatever the servers' clocks show.

    Which of several labels counts is decided by these times, so two of one prediction must not have the same.
    """
    return max(label.received_at_us, known.received_at_us + 1)
