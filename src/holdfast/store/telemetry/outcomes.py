"""Rows of `labels` and `outcomes`: the true outcome of predictions, and the predictions that they are joined with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, insert, or_, select, update

from holdfast.errors import ConflictError
from holdfast.feedback import Joined, Label
from holdfast.monitor.quality import Outcomes
from holdfast.records import Arm
from holdfast.store.db import events
from holdfast.store.db.schema import labels, outcome_slices, outcomes, servers, withdrawn_outcomes
from holdfast.store.db.statements import inserting, pieces, total

CORRECTED: Final = "labels.corrected"
"""The kind of the event, about a model, that comes with every correction and withdrawal of labels."""


@dataclass(frozen=True, slots=True)
class NewLabel:
    """An accepted label."""

    prediction_id: str
    value: float
    source: str
    received_at_us: int


def known_labels(connection: Connection, predictions: Sequence[str]) -> dict[str, float]:
    """Return the known values, by prediction id."""
    found: dict[str, float] = {}
    for part in pieces(predictions):
        query = select(labels.c.prediction_id, labels.c.value).where(labels.c.prediction_id.in_(part))
        found.update((prediction, value) for prediction, value in connection.execute(query))
    return found


def add_labels(connection: Connection, accepted: Sequence[NewLabel]) -> None:
    """Insert accepted labels, in the caller's transaction. They wait to be joined."""
    if accepted:
        connection.execute(insert(labels), [asdict(label) | {"joined": 0} for label in accepted])


def waiting_labels(connection: Connection, *, after: str, limit: int) -> list[Label]:
    """Return up to `limit` labels that are not joined, in the order of prediction ids, after the id `after`."""
    query = (
        select(labels.c.prediction_id, labels.c.value, labels.c.received_at_us)
        .where(labels.c.joined == 0, labels.c.prediction_id > after)
        .order_by(labels.c.prediction_id)
        .limit(limit)
    )
    return [Label(row.prediction_id, row.value, row.received_at_us) for row in connection.execute(query)]


def mark_joined(connection: Connection, predictions: Sequence[str]) -> None:
    """Mark these labels as joined with their predictions.

    Raises `ConflictError` HF304 when another loop has joined one of them since; the transaction must not commit.
    """
    changed = 0
    for part in pieces(predictions):
        changed += connection.execute(
            update(labels).where(labels.c.prediction_id.in_(part), labels.c.joined == 0).values(joined=1)
        ).rowcount
    if changed != len(predictions):
        raise ConflictError(
            "HF304", "the same labels were joined by another loop", state="nothing of this join was written"
        )


def delete_unmatched(connection: Connection, predictions: Sequence[str]) -> None:
    """Delete labels whose predictions do not exist. The caller emits an event in the same transaction."""
    for part in pieces(predictions):
        connection.execute(delete(labels).where(labels.c.prediction_id.in_(part), labels.c.joined == 0))


def held_labels(connection: Connection, predictions: Sequence[str]) -> list[NewLabel]:
    """Return the labels of those among `predictions` that have one, with their sources."""
    columns = (labels.c.prediction_id, labels.c.value, labels.c.source, labels.c.received_at_us)
    found: list[NewLabel] = []
    for part in pieces(predictions):
        query = select(*columns).where(labels.c.prediction_id.in_(part))
        found.extend(NewLabel(*row) for row in connection.execute(query))
    return found


def correct_labels(connection: Connection, values: Mapping[str, float]) -> None:
    """Set the value of each label. Only for labels of label feeds: a label that a caller sent stays as it was sent."""
    for prediction, value in values.items():
        connection.execute(update(labels).where(labels.c.prediction_id == prediction).values(value=value))


def correct(connection: Connection, values: Mapping[str, float]) -> None:
    """Set the label of each outcome, by prediction id."""
    for prediction, value in values.items():
        connection.execute(update(outcomes).where(outcomes.c.prediction_id == prediction).values(label=value))


def withdraw(connection: Connection, predictions: Sequence[str]) -> None:
    """Delete the labels of `predictions` and their outcomes: what labelled them was backed out.

    Their outcomes were counted in evidence; `withdrawn` remembers that.
    """
    for part in pieces(predictions):
        counted = select(outcomes.c.prediction_id).where(outcomes.c.prediction_id.in_(part))
        connection.execute(
            inserting(connection, withdrawn_outcomes)
            .from_select(["prediction_id"], counted)
            .on_conflict_do_nothing()
        )
        connection.execute(delete(outcome_slices).where(outcome_slices.c.prediction_id.in_(part)))
        connection.execute(delete(outcomes).where(outcomes.c.prediction_id.in_(part)))
        connection.execute(delete(labels).where(labels.c.prediction_id.in_(part)))


def withdrawn(connection: Connection, predictions: Sequence[str]) -> set[str]:
    """Return those among `predictions` that had an outcome which was withdrawn: evidence must not count them again."""
    found: set[str] = set()
    for part in pieces(predictions):
        query = select(withdrawn_outcomes.c.prediction_id).where(withdrawn_outcomes.c.prediction_id.in_(part))
        found.update(connection.execute(query).scalars())
    return found


@dataclass(frozen=True, slots=True)
class LabelledPrediction:
    """A joined label, with the number of its outcome and when it was received, microseconds since 1970 UTC."""

    outcome_id: int
    prediction_id: str
    value: float
    received_at_us: int


def labelled_since(
    connection: Connection, model: str, outcome_id: int, *, without: str
) -> list[LabelledPrediction]:
    """Return the joined labels of `model` after the outcome `outcome_id`, in order, but not those from source `without`."""
    columns = (outcomes.c.outcome_id, labels.c.prediction_id, labels.c.value, labels.c.received_at_us)
    query = (
        select(*columns)
        .join(labels, labels.c.prediction_id == outcomes.c.prediction_id)
        .where(outcomes.c.model == model, outcomes.c.outcome_id > outcome_id, labels.c.source != without)
        .order_by(outcomes.c.outcome_id)
    )
    return [LabelledPrediction(*row) for row in connection.execute(query)]


def count_labels(connection: Connection, model: str | None = None) -> tuple[int, int]:
    """Return the number of labels (of `model`), and how many of them still wait for their predictions.

    A label that waits is of the model of the server that its id names; one of a server that never was is of no model.
    """
    if model is None:
        every, unjoined = connection.execute(select(func.count(), total(1 - labels.c.joined))).one()
        return every, unjoined
    joined = select(func.count()).select_from(outcomes).where(outcomes.c.model == model)
    waiting = select(func.count()).select_from(labels).where(labels.c.joined == 0, _names_server_of(model))
    count = connection.execute(select(joined.scalar_subquery(), waiting.scalar_subquery())).one()
    return count[0] + count[1], count[1]


def _names_server_of(model: str) -> ColumnElement[bool]:
    """Return whether the id of a label names a prediction of a server of `model`."""
    rest = func.substr(labels.c.prediction_id, func.length(servers.c.server) + 1)
    is_named = func.substr(labels.c.prediction_id, 1, func.length(servers.c.server)) == servers.c.server
    # Behind the name come segment and number: with one dash more it is a server whose name begins like this one.
    is_place = rest.like("-%-%") & rest.not_like("-%-%-%")
    return exists().where(servers.c.model == model, is_named, is_place)


_OF_PREDICTION = (
    "prediction_id", "model", "version", "arm", "rollout_id", "probability", "event_time_us"
)  # fmt: skip
_DECIDED = 0.5
"""The threshold of a positive prediction, and of a positive label."""


def add(connection: Connection, joined: Sequence[Joined], *, now_us: int) -> None:
    """Insert joined predictions, in the caller's transaction. A unique index allows one outcome for each."""
    if joined:
        connection.execute(
            insert(outcomes),
            [
                {name: getattr(pair.prediction, name) for name in _OF_PREDICTION}
                | {
                    "label": pair.label.value,
                    "joined_at_us": now_us,
                    "predicted_at_us": pair.prediction.at_us,
                }
                for pair in joined
            ],
        )


def newest(connection: Connection, model: str) -> int:
    """Return the number of the model's newest outcome; 0 if there is none. It grows with every join."""
    query = select(func.coalesce(func.max(outcomes.c.outcome_id), 0)).where(outcomes.c.model == model)
    return int(connection.execute(query).scalar_one())


def newest_change(connection: Connection, model: str) -> tuple[int, int]:
    """Return the numbers of the model's newest outcome and of its newest correction or withdrawal of labels.

    Quality is the same as long as both are.
    """
    corrected = events.newest(connection, subject=model, kind=CORRECTED, limit=1)
    return newest(connection, model), corrected[0].event_id if corrected else 0


def of_model(
    connection: Connection,
    model: str,
    *,
    since_us: int,
    until_us: int | None = None,
    version: str | None = None,
) -> Outcomes:
    """Return the outcomes of `model` (of `version`) predicted from `since_us` to before `until_us`, by the servers' clocks.

    No clock of a caller moves this window: it hangs on when the requests arrived.
    """
    query = select(
        outcomes.c.version,
        outcomes.c.predicted_at_us,
        outcomes.c.event_time_us,
        outcomes.c.probability,
        outcomes.c.label,
    ).where(outcomes.c.model == model, outcomes.c.predicted_at_us >= since_us)
    if until_us is not None:
        query = query.where(outcomes.c.predicted_at_us < until_us)
    if version is not None:
        query = query.where(outcomes.c.version == version)
    found = connection.execute(query).all()
    return Outcomes(
        version=np.array([row.version for row in found], dtype=np.str_),
        predicted_at_us=np.array([row.predicted_at_us for row in found], dtype=np.int64),
        event_time_us=np.array([row.event_time_us for row in found], dtype=np.int64),
        probability=np.array([row.probability for row in found], dtype=np.float64),
        label=np.array([row.label for row in found], dtype=np.float64),
    )


def labels_of(connection: Connection, predictions: Iterable[str]) -> dict[str, float]:
    """Return the labels, 0 to 1, of those among `predictions` that have one."""
    found: dict[str, float] = {}
    for some in pieces(sorted(predictions)):
        query = select(outcomes.c.prediction_id, outcomes.c.label).where(outcomes.c.prediction_id.in_(some))
        found |= {str(prediction): float(label) for prediction, label in connection.execute(query)}
    return found


@dataclass(frozen=True, slots=True)
class PushedPredictions:
    """The predictions of a push: those of `version` as the challenger of rollout `rollout_id`, and those in its bake time.

    The bake time is from `baking_since_us` to `until_us`, microseconds since 1970 UTC; None without one, or while it goes on.
    """

    rollout_id: int
    version: str
    baking_since_us: int | None = None
    until_us: int | None = None


def count_wrong(connection: Connection, model: str, pushed: PushedPredictions) -> int:
    """Return how many requests of the push have a labelled prediction on the other side of 0.5 than the label.

    Those of the bake time were predicted in it, by the servers' clocks; their labels may come after its end.
    """
    belongs: ColumnElement[bool] = and_(
        outcomes.c.rollout_id == pushed.rollout_id, outcomes.c.arm == Arm.CHALLENGER.value
    )
    if pushed.baking_since_us is not None:
        later = or_(outcomes.c.rollout_id.is_(None), outcomes.c.rollout_id > pushed.rollout_id)
        baking = and_(later, outcomes.c.predicted_at_us > pushed.baking_since_us)
        until_us = pushed.until_us
        belongs = or_(
            belongs, baking if until_us is None else and_(baking, outcomes.c.predicted_at_us <= until_us)
        )
    request = func.rtrim(outcomes.c.prediction_id, "0123456789")  # an id ends with its row in the request
    query = select(func.count(request.distinct())).where(
        outcomes.c.model == model,
        outcomes.c.version == pushed.version,
        (outcomes.c.probability >= _DECIDED) != (outcomes.c.label >= _DECIDED),
        belongs,
    )
    return int(connection.execute(query).scalar_one())
