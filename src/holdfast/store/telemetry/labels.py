"""Rows of `labels`: the true outcome of predictions, one for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from holdfast.errors import ConflictError
from holdfast.feedback import Label
from holdfast.store.db.schema import labels
from holdfast.store.db.statements import pieces, total


@dataclass(frozen=True, slots=True)
class NewLabel:
    """An accepted label."""

    prediction_id: str
    value: float
    source: str
    received_at_us: int


def known(connection: Connection, predictions: Sequence[str]) -> dict[str, float]:
    """Return the known values, by prediction id."""
    found: dict[str, float] = {}
    for part in pieces(predictions):
        query = select(labels.c.prediction_id, labels.c.value).where(labels.c.prediction_id.in_(part))
        found.update((prediction, value) for prediction, value in connection.execute(query))
    return found


def add(connection: Connection, accepted: Sequence[NewLabel]) -> None:
    """Insert accepted labels, in the caller's transaction. They wait to be joined."""
    if accepted:
        connection.execute(insert(labels), [asdict(label) | {"joined": 0} for label in accepted])


def waiting(connection: Connection, *, after: str, limit: int) -> list[Label]:
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


def count(connection: Connection) -> tuple[int, int]:
    """Return the number of labels, and how many of them still wait for their predictions."""
    every, unjoined = connection.execute(select(func.count(), total(1 - labels.c.joined))).one()
    return every, unjoined
