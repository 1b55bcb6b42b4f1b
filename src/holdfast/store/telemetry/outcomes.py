"""Rows of `outcomes`: predictions joined with their labels. The labels are in `labels`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update

from holdfast.feedback import Joined
from holdfast.monitor.quality import Outcomes
from holdfast.records import Arm
from holdfast.store.db import events
from holdfast.store.db.schema import outcome_slices, outcomes, withdrawn_outcomes
from holdfast.store.db.statements import inserting, pieces
from holdfast.store.telemetry import labels

CORRECTED: Final = "labels.corrected"
"""The kind of the event, about a model, that comes with every correction and withdrawal of labels."""


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
    labels.remove(connection, predictions)


def withdrawn(connection: Connection, predictions: Sequence[str]) -> set[str]:
    """Return those among `predictions` that had an outcome which was withdrawn: evidence must not count them again."""
    found: set[str] = set()
    for part in pieces(predictions):
        query = select(withdrawn_outcomes.c.prediction_id).where(withdrawn_outcomes.c.prediction_id.in_(part))
        found.update(connection.execute(query).scalars())
    return found


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
