"""Pause a canary at its share, and resume it."""

from __future__ import annotations

from typing import Final

from holdfast.control.rollout.reconcile import Transition, commit
from holdfast.errors import NotFoundError
from holdfast.rollout import Event, State
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.rollout import rollouts

DEFAULT_REASON: Final = "requested by an operator"
"""The reason if none is given."""


def pause(store: Store, model: str, *, actor: str, reason: str, now_us: int) -> int:
    """Pause the canary of `model` at its share; return the rollout's number. Evidence is still folded, and harm rolled back.

    A repeated call stores another reason, if one is given, and else writes nothing. Raises `NotFoundError` HF410 when
    no rollout is under way, `RefusedError` HF404 when its state cannot be paused, `ConflictError` HF304 when it moved
    meanwhile; then repeat.
    """
    return _move(store, model, Event.PAUSE, State.PAUSED, "paused", reason, actor, now_us)


def resume(store: Store, model: str, *, actor: str, reason: str, now_us: int) -> int:
    """Resume a paused canary; its timeout begins anew. Raises as `pause` does."""
    return _move(store, model, Event.RESUME, State.CANARY, "resumed", reason, actor, now_us)


def _move(
    store: Store, model: str, event: Event, following: State, done: str, why: str, actor: str, now_us: int
) -> int:
    reason = f"{done} by {actor}: {why}"
    with store.ledger.write() as connection:
        row = rollouts.under_way(connection, model)
        if row is None:
            raise NotFoundError(
                "HF410",
                f"no rollout of {model!r} is under way",
                state="nothing was written",
                next_command="holdfast rollout start",
            )
        if row.state is not following:
            commit(connection, store, row, Transition(event, reason, actor), now_us=now_us)
        elif event is Event.PAUSE and why != DEFAULT_REASON and row.reason != reason:
            rollouts.update_reason(connection, row, reason=reason, actor=actor)
            events.append(
                connection,
                at_us=now_us,
                kind=f"rollout.{following}",
                subject=row.subject,
                actor=actor,
                explanation=f"{row.challenger} is {following} as before: {reason}",
            )
    return row.rollout_id
