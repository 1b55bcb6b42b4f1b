"""Rows of `pushes`: the outcome of each rollout, and the end of its bake time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection, and_, select

from holdfast.rollout import PushOutcome, State
from holdfast.store.db import rows, schema

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


def put(connection: Connection, row: PushRow) -> None:
    """Label a push, or replace its label, in the caller's transaction."""
    rows.put(connection, _PUSHES, asdict(row))


def of_rollout(connection: Connection, rollout: int) -> PushRow | None:
    """Return the push of rollout number `rollout`; None before it is opened."""
    return rows.first(connection, select(_PUSHES).where(_PUSHES.c.rollout_id == rollout), PushRow)


def of_model(connection: Connection, model: str) -> tuple[PushRow, ...]:
    """Return every push of `model`, the newest first."""
    query = select(_PUSHES).where(_PUSHES.c.model == model).order_by(_PUSHES.c.rollout_id.desc())
    return tuple(rows.read(connection, query, PushRow))


def baking(connection: Connection, model: str) -> PushRow | None:
    """Return the promotion of `model` that is in its bake time; a newer promotion ends the bake time of an older one."""
    query = (
        select(_PUSHES)
        .join(_ROLLOUTS, _ROLLOUTS.c.rollout_id == _PUSHES.c.rollout_id)
        .where(_PUSHES.c.model == model, BAKING)
        .order_by(_PUSHES.c.rollout_id.desc())
    )
    return rows.first(connection, query, PushRow)
