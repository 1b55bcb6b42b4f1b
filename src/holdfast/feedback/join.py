"""Labels: which are accepted, and which are joined with their prediction, wait, or can never be joined.

The id of a prediction names the place of its record: `<server>-<segment>-<number>`, and `/<row>` for one row of a
request. So a label finds its prediction without an index, and an impossible id is detected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LONGEST_ID: Final = 48
"""The maximum length of a prediction id in characters."""

MAXIMUM_WAIT_US: Final = 7 * 86_400_000_000
"""How long a label waits for a log that cannot be read."""

PATIENCE_US: Final = 10 * 60_000_000
"""How long a label waits whose prediction should have been collected."""

FEED_SOURCE: Final = "label feeds"
"""The source of labels that label feeds brought. No caller may use it."""

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


def full_id(text: str) -> str:
    """Return a prediction id with its row: without one, the first row is meant.

    >>> full_id("web-1-3-17"), full_id("web-1-3-17/4")
    ('web-1-3-17/0', 'web-1-3-17/4')
    """
    return text if "/" in text else f"{text}/0"


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


@dataclass(frozen=True, slots=True)
class Label:
    """The label of one prediction, 0 to 1, and when it was received."""

    prediction_id: str
    value: float
    received_at_us: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """One collected prediction of a row: `event_time_us` is its event time, `at_us` the time of the prediction.

    Both are microseconds since 1970 UTC. `inputs` is the row as received, as JSON; empty if it was not read.
    """

    prediction_id: str
    model: str
    version: str
    arm: str
    rollout_id: int | None
    unit: bytes
    probability: float
    event_time_us: int
    at_us: int
    inputs: str = ""


@dataclass(frozen=True, slots=True)
class Frontier:
    """The collected part of the log of one server: all earlier segments, and `segment` up to record `number`."""

    segment: int
    number: int


@dataclass(frozen=True, slots=True)
class Joined:
    """A label with its prediction."""

    label: Label
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class Waiting:
    """A label whose prediction was not collected yet."""

    label: Label


@dataclass(frozen=True, slots=True)
class Impossible:
    """A label whose prediction does not exist and never will."""

    label: Label
    reason: str


Settlement = Joined | Waiting | Impossible


def settle_labels(
    labels: Iterable[Label],
    predictions: Mapping[str, Prediction],
    frontiers: Mapping[str, Frontier],
    servers: frozenset[str],
    *,
    now_us: int,
) -> tuple[Settlement, ...]:
    """Decide for each label whether it is joined, waits, or is impossible.

    Parameters
    ----------
    labels
        Labels that are not joined yet.
    predictions
        The collected predictions that they name, by prediction id.
    frontiers
        How far each server's log has been collected.
    servers
        Every server that ever registered.
    now_us
        The current time, microseconds UTC.

    A server numbers requests as they begin and logs them as they end. So a record slightly behind the frontier may
    not be collected yet; hence `PATIENCE_US`.

    Guarantee: a label becomes impossible only if its prediction cannot appear any more: it names an unknown server, a
    record behind the frontier that does not exist, or it has waited for `MAXIMUM_WAIT_US`.
    """
    return tuple(_settle(label, predictions, frontiers, servers, now_us) for label in labels)


def _settle(
    label: Label,
    predictions: Mapping[str, Prediction],
    frontiers: Mapping[str, Frontier],
    servers: frozenset[str],
    now_us: int,
) -> Settlement:
    prediction = predictions.get(label.prediction_id)
    if prediction is not None:
        return Joined(label, prediction)
    place = parse_id(label.prediction_id)
    if place is None:
        return Impossible(label, "it is not the id of a prediction")
    frontier = frontiers.get(place.server)
    waited_us = now_us - label.received_at_us
    if frontier is not None and not is_ahead(place, frontier) and waited_us > PATIENCE_US:
        return Impossible(label, "the log was collected beyond this record, and has no such prediction")
    if frontier is None and place.server not in servers:
        return Impossible(label, f"no server {place.server!r} ever registered")
    if waited_us > MAXIMUM_WAIT_US:
        return Impossible(label, f"the log of server {place.server!r} had no such prediction for 7 days")
    return Waiting(label)


def is_ahead(place: PredictionId, frontier: Frontier) -> bool:
    """Return True if `place` is beyond the collected part of its server's log.

    >>> is_ahead(PredictionId("s", 3, 5, 0), Frontier(3, 4)), is_ahead(PredictionId("s", 2, 9, 0), Frontier(3, 4))
    (True, False)
    """
    return (place.segment, place.number) > (frontier.segment, frontier.number)
