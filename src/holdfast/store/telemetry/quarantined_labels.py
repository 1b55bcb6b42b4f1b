"""Rows of `quarantined_labels`: labels that contradict the label of another source, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

from holdfast.store.db import rows
from holdfast.store.db.schema import quarantined_labels
from holdfast.store.db.statements import pieces

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
    quarantined_label_id: int = 0
    """Its number; 0 before it is inserted."""


def add(connection: Connection, model: str, found: Sequence[QuarantinedLabel]) -> tuple[int, int]:
    """Insert labels, in the caller's transaction, as far as the bounds allow.

    One that repeats a label in quarantine is passed over. Returns how many are new, and how many of them were inserted.
    """
    new: list[QuarantinedLabel] = []
    known: dict[str, set[_Content]] = {}
    for label in found:
        if label.source not in known:
            known[label.source] = _of_source(connection, model, label.source)
        if _content(label) not in known[label.source]:
            known[label.source].add(_content(label))
            new.append(label)
    room = MOST_OF_MODEL - count(connection, model) if new else 0
    left = {source: MOST_OF_SOURCE - count(connection, model, source=source) for source in known}
    kept: list[QuarantinedLabel] = []
    for label in new:
        if left[label.source] > 0 and len(kept) < room:
            left[label.source] -= 1
            kept.append(label)
    if kept:
        values = [{name: getattr(label, name) for name in _STATED} | {"model": model} for label in kept]
        connection.execute(insert(quarantined_labels), values)
    return len(new), len(kept)


_STATED: Final = ("prediction_id", "key_json", "value", "source", "received_at_us", "reason")
_Content: TypeAlias = tuple[str | None, str | None, float]


def _content(label: QuarantinedLabel) -> _Content:
    return label.prediction_id, label.key_json, label.value


def _of_source(connection: Connection, model: str, source: str) -> set[_Content]:
    """Return what a source has in quarantine; `MOST_OF_SOURCE` bounds it."""
    columns = quarantined_labels.c
    query = select(columns.prediction_id, columns.key_json, columns.value)
    found = connection.execute(query.where(columns.model == model, columns.source == source))
    return {(row.prediction_id, row.key_json, row.value) for row in found}


def newest(
    connection: Connection, model: str, *, limit: int, before: int | None = None, source: str | None = None
) -> list[QuarantinedLabel]:
    """Return the newest labels of `model` (of `source`) in quarantine, the newest first; before number `before`."""
    columns = quarantined_labels.c
    query = select(quarantined_labels).where(*_which(model, source))
    if before is not None:
        query = query.where(columns.quarantined_label_id < before)
    return rows.read(
        connection, query.order_by(columns.quarantined_label_id.desc()).limit(limit), QuarantinedLabel
    )


def count(connection: Connection, model: str, *, source: str | None = None) -> int:
    """Return how many labels of `model` (of `source`) are in quarantine."""
    query = select(func.count()).select_from(quarantined_labels).where(*_which(model, source))
    return int(connection.execute(query).scalar_one())


def drop(
    connection: Connection, model: str, *, numbers: Sequence[int] = (), source: str | None = None
) -> int:
    """Delete labels of `model` from the quarantine, by their numbers or all of `source`; return how many there were."""
    if source is not None:
        return connection.execute(delete(quarantined_labels).where(*_which(model, source))).rowcount
    dropped = 0
    for part in pieces(sorted(set(numbers))):
        named = quarantined_labels.c.quarantined_label_id.in_(part)
        dropped += connection.execute(delete(quarantined_labels).where(*_which(model, None), named)).rowcount
    return dropped


def _which(model: str, source: str | None) -> list[ColumnElement[bool]]:
    columns = quarantined_labels.c
    return [columns.model == model, *([] if source is None else [columns.source == source])]
