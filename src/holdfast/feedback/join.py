"""Which label belongs to which answer, which must wait, and which can never be joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.feedback.labels import MAXIMUM_WAIT_US, PATIENCE_US, PredictionId, parse_id


@dataclass(frozen=True, slots=True)
class Label:
    """What turned out to be true of one answer, 0 to 1, and when that was received."""

    prediction_id: str
    value: float
    received_at_us: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered row as it was collected: `event_time_us` is when what it is about happens, `at_us` when it was answered,
    both microseconds since 1970 UTC."""

    prediction_id: str
    model: str
    version: str
    arm: str
    rollout_id: int | None
    unit: bytes
    probability: float
    event_time_us: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Frontier:
    """How far the log of one server has been collected: everything before this segment, and this much of it.

    `number` is the largest record number collected in `segment`.
    """

    segment: int
    number: int


@dataclass(frozen=True, slots=True)
class Joined:
    """A label with its answer."""

    label: Label
    answer: Answer


@dataclass(frozen=True, slots=True)
class Waiting:
    """A label whose answer was not collected yet."""

    label: Label


@dataclass(frozen=True, slots=True)
class Impossible:
    """A label whose answer does not exist and never will."""

    label: Label
    reason: str


Settled = Joined | Waiting | Impossible


def settle(
    labels: Iterable[Label],
    answers: Mapping[str, Answer],
    frontiers: Mapping[str, Frontier],
    servers: frozenset[str],
    *,
    now_us: int,
) -> tuple[Settled, ...]:
    """What becomes of each label.

    Parameters
    ----------
    labels
        Labels that are not joined yet.
    answers
        The collected answers that they name, by prediction id; one that is missing was not found.
    frontiers
        How far each server's log has been collected.
    servers
        Every server that ever announced itself.

    A server numbers requests as they begin and logs them as they end, so a record may lie a little behind the
    frontier and not be collected yet; hence `PATIENCE_US`.

    Guarantee: a label is given up only when its answer cannot appear any more: it names a server that never
    was, a record that lies behind the collected frontier and is not there, or it has waited for
    `MAXIMUM_WAIT_US`.
    """
    return tuple(_settle(label, answers, frontiers, servers, now_us) for label in labels)


def _settle(
    label: Label,
    answers: Mapping[str, Answer],
    frontiers: Mapping[str, Frontier],
    servers: frozenset[str],
    now_us: int,
) -> Settled:
    answer = answers.get(label.prediction_id)
    if answer is not None:
        return Joined(label, answer)
    place = parse_id(label.prediction_id)
    if place is None:
        return Impossible(label, "this is not the id of an answer")
    frontier = frontiers.get(place.server)
    waited_us = now_us - label.received_at_us
    if frontier is not None and not ahead(place, frontier) and waited_us > PATIENCE_US:
        return Impossible(label, "the log has been read past this place, and no such answer is in it")
    if frontier is None and place.server not in servers:
        return Impossible(label, f"no server {place.server!r} has ever announced itself")
    if waited_us > MAXIMUM_WAIT_US:
        return Impossible(label, f"the log of server {place.server!r} has not held it for 7 days")
    return Waiting(label)


def ahead(place: PredictionId, frontier: Frontier) -> bool:
    """Whether `place` lies beyond what has been collected of its server's log.

    >>> ahead(PredictionId("s", 3, 5, 0), Frontier(3, 4)), ahead(PredictionId("s", 2, 9, 0), Frontier(3, 4))
    (True, False)
    """
    return (place.segment, place.number) > (frontier.segment, frontier.number)
