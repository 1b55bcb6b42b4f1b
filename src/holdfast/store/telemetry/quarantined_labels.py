"""Rows of `quarantined_labels`: labels that contradict the label of another source, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection, func, insert, select

from holdfast.store.db import rows
from holdfast.store.db.schema import quarantined_labels

MOST_OF_SOURCE: Final = 1_000
"""How many labels of one source and model are kept in quarantine; later ones are counted in the event alone."""
MOST_OF_MODEL: Final = 100_000
"""How many labels of one model are kept in quarantine."""


@dataclass(frozen=True, slots=True)
class QuarantinedLabel:
    """A label in quarantine: of a prediction or, with `key_json`, of a key."""

    prediction_id: str | None
    key_json: str | None
    value: float
    source: str
    received_at_us: int
    reason: str


def add(connection: Connection, model: str, found: Sequence[QuarantinedLabel]) -> int:
    """Insert labels, in the caller's transaction, as far as the bounds allow; return how many were inserted."""
    if not found:
        return 0
    columns = quarantined_labels.c
    room = MOST_OF_MODEL - _count(connection, columns.model == model)
    left: dict[str, int] = {}
    kept: list[QuarantinedLabel] = []
    for label in found:
        if label.source not in left:
            of_source = _count(connection, columns.model == model, columns.source == label.source)
            left[label.source] = MOST_OF_SOURCE - of_source
        if left[label.source] > 0 and len(kept) < room:
            left[label.source] -= 1
            kept.append(label)
    if kept:
        connection.execute(insert(quarantined_labels), [asdict(label) | {"model": model} for label in kept])
    return len(kept)


def newest(connection: Connection, model: str, *, limit: int) -> list[QuarantinedLabel]:
    """Return the newest labels of `model` in quarantine, the newest first."""
    columns = quarantined_labels.c
    query = select(quarantined_labels).where(columns.model == model)
    return rows.read(
        connection, query.order_by(columns.quarantined_label_id.desc()).limit(limit), QuarantinedLabel
    )


def count(connection: Connection, model: str) -> int:
    """Return how many labels of `model` are in quarantine."""
    return _count(connection, quarantined_labels.c.model == model)


def _count(connection: Connection, *which: object) -> int:
    query = select(func.count()).select_from(quarantined_labels).where(*which)  # type: ignore[arg-type]
    return int(connection.execute(query).scalar_one())
