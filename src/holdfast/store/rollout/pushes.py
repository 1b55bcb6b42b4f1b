"""Rows of `pushes`: the outcome of each rollout, and the end of its bake time."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, insert, select, update

from holdfast.rollout import PushOutcome, State
from holdfast.store.db import schema

_PUSHES: Final = schema.pushes
_ROLLOUTS: Final = schema.rollouts
BAKING: Final = and_(
    _ROLLOUTS.c.state == State.PROMOTED,
    _PUSHES.c.outcome == PushOutcome.OPEN,
    _PUSHES.c.bake_until_us.is_not(None),
)
"""True for a push whose promotion is in its bake time."""


@dataclass(frozen=True, slots=True)
class PushRow:
    """One push.

    `labelled_by` is "holdfast" or an operator; `requests` is how many its challenger got until its end, None before;
    `bake_until_us` is None before it is promoted.
    """

    rollout_id: int
    model: str
    outcome: PushOutcome
    reason: str
    labelled_by: str
    labelled_at_us: int
    requests: int | None = None
    bake_until_us: int | None = None


_COLUMNS: Final = tuple(_PUSHES.c[field.name] for field in fields(PushRow))


def put(connection: Connection, row: PushRow) -> None:
    """Label a push, or replace its label, in the caller's transaction."""
    values = {field.name: getattr(row, field.name) for field in fields(PushRow)}
    changed = connection.execute(
        update(_PUSHES).where(_PUSHES.c.rollout_id == row.rollout_id).values(**values)
    )
    if changed.rowcount == 0:
        connection.execute(insert(_PUSHES).values(**values))


def of_rollout(connection: Connection, rollout: int) -> PushRow | None:
    """Return the push of rollout number `rollout`; None before it is opened."""
    found = _rows(connection, _PUSHES.c.rollout_id == rollout)
    return found[0] if found else None


def of_model(connection: Connection, model: str) -> tuple[PushRow, ...]:
    """Return every push of `model`, the newest first."""
    return _rows(connection, _PUSHES.c.model == model)


def baking(connection: Connection, model: str) -> PushRow | None:
    """Return the promotion of `model` that is in its bake time; a newer promotion ends the bake time of an older one."""
    query = (
        select(*_COLUMNS)
        .join(_ROLLOUTS, _ROLLOUTS.c.rollout_id == _PUSHES.c.rollout_id)
        .where(_PUSHES.c.model == model, BAKING)
        .order_by(_PUSHES.c.rollout_id.desc())
        .limit(1)
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _row(row)


def _rows(connection: Connection, which: ColumnElement[bool]) -> tuple[PushRow, ...]:
    query = select(*_COLUMNS).where(which).order_by(_PUSHES.c.rollout_id.desc())
    return tuple(_row(row) for row in connection.execute(query).mappings())


def _row(row: RowMapping) -> PushRow:
    return PushRow(**{**row, "outcome": PushOutcome(row["outcome"])})
