"""Labels of predictions: which are joined with their prediction, wait and until when, or can never be joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from holdfast.feedback.label_rules import IdCheck, LabelRules
from holdfast.feedback.prediction_ids import PredictionId, full_id, parse_id

MAXIMUM_WAIT_US: Final = 7 * 86_400_000_000
"""How long a label waits for a log that cannot be read."""

PATIENCE_US: Final = 10 * 60_000_000
"""How long a label waits whose prediction should have been collected."""


@dataclass(frozen=True, slots=True)
class Label:
    """The label of one prediction, 0 to 1, and when it was received.

    One whose id names no row waits until its request is collected.
    """

    prediction_id: str
    value: float
    received_at_us: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """One collected prediction of a row: `event_time_us` is its event time, `at_us` the time of the prediction.

    Both are microseconds since 1970 UTC. `inputs` is the row as received, as JSON; empty if it was not read. `share_ppm` is
    the challenger's share when it was made, parts per million; None if its record states none.
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
    share_ppm: int | None = None


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
    """A label whose prediction was not collected yet.

    At `look_at_us` (microseconds since 1970 UTC) it is decided again, and earlier if its part of the log is collected.
    """

    label: Label
    look_at_us: int


@dataclass(frozen=True, slots=True)
class Impossible:
    """A label whose prediction does not exist and never will."""

    label: Label
    reason: str


Settlement = Joined | Waiting | Impossible
NO_RULES: Final = LabelRules()
"""The rules of a ledger without a secret: no id can be verified."""


def settle_labels(
    labels: Iterable[Label],
    predictions: Mapping[str, Prediction],
    frontiers: Mapping[str, Frontier],
    servers: frozenset[str],
    rules: LabelRules = NO_RULES,
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
    rules
        Which ids can have been issued; by default any.
    now_us
        The current time, microseconds UTC.

    A server numbers requests as they begin and logs them as they end. So a record slightly behind the frontier may
    not be collected yet; hence `PATIENCE_US`.

    Guarantee: a label becomes impossible only if its prediction cannot appear any more: it names an unknown server, a
    record behind the frontier that does not exist, an id that was not issued, or it has waited for `MAXIMUM_WAIT_US`.
    """
    return tuple(_settle(label, predictions, frontiers, servers, rules, now_us) for label in labels)


def _settle(
    label: Label,
    predictions: Mapping[str, Prediction],
    frontiers: Mapping[str, Frontier],
    servers: frozenset[str],
    rules: LabelRules,
    now_us: int,
) -> Settlement:
    prediction = predictions.get(label.prediction_id)
    if prediction is not None:
        return Joined(label, prediction)
    place = parse_id(full_id(label.prediction_id))
    if place is None:
        return Impossible(label, "it is not the id of a prediction")
    if rules.check_id(place) is IdCheck.NOT_ISSUED:
        return Impossible(label, "no server of this ledger issued this id")
    frontier = frontiers.get(place.server)
    waited_us = now_us - label.received_at_us
    if frontier is not None and not is_ahead(place, frontier):
        if waited_us > PATIENCE_US:
            return Impossible(label, "the log was collected beyond this record, and has no such prediction")
        return Waiting(label, label.received_at_us + PATIENCE_US + 1)
    if frontier is None and place.server not in servers:
        return Impossible(label, f"no server {place.server!r} ever registered")
    if waited_us > MAXIMUM_WAIT_US:
        return Impossible(label, f"the log of server {place.server!r} had no such prediction for 7 days")
    return Waiting(label, label.received_at_us + MAXIMUM_WAIT_US + 1)


def is_ahead(place: PredictionId, frontier: Frontier) -> bool:
    """Return True if `place` is beyond the collected part of its server's log.

    >>> is_ahead(PredictionId("s", 3, 5, 0), Frontier(3, 4)), is_ahead(PredictionId("s", 2, 9, 0), Frontier(3, 4))
    (True, False)
    """
    return (place.segment, place.number) > (frontier.segment, frontier.number)
