"""A person stops a canary where it is, and lets it go on."""

from __future__ import annotations

from typing import Final

from holdfast.control.rollout.reconcile import Transition, commit
from holdfast.errors import NotFoundError
from holdfast.rollout import Event, State
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.rollout import rollouts

DEFAULT_REASON: Final = "asked for by a person"
"""The reason of somebody who gives none."""


def pause(store: Store, model: str, *, actor: str, reason: str, now_us: int) -> int:
    """Pause the canary of `model` at its share: evidence goes on, and so does a rollback for harm. The rollout's number.

    Asking again keeps another reason, when one is given, and else writes nothing. Raises `NotFoundError` HF410 when no
    rollout is under way, `RefusedError` HF404 when it is in a state that cannot be paused, `ConflictError` HF404 when it
    moved meanwhile: then ask again.
    """
    return _move(store, model, Event.PAUSE, State.PAUSED, "held", reason, actor, now_us)


def resume(store: Store, model: str, *, actor: str, reason: str, now_us: int) -> int:
    """Let a canary that is paused go on; its patience begins anew. Raises as `pause` does."""
    return _move(store, model, Event.RESUME, State.CANARY, "let go on", reason, actor, now_us)


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
