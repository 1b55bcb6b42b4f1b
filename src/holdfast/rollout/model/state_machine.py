"""State machine of a rollout, as a table. No other place lists states.

A rollback is legal from every state in which the challenger has, or may have, traffic. What it restores is a fact of the
rollout (its champion), never an assumption of the state.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from holdfast.errors import RefusedError


class State(StrEnum):
    """Where a rollout is."""

    PENDING = "pending"  # requested; the challenger has no traffic
    SHADOWING = "shadowing"  # the challenger gets copies of requests; callers get none of its predictions
    CANARY = "canary"  # the challenger has the share of the current step
    PAUSED = "paused"  # an operator paused the share; evidence is still folded, and harm is rolled back
    VERIFYING = "verifying"  # the plan gives the challenger everything; no probe has confirmed it yet
    PROMOTED = "promoted"  # a probe saw the challenger serve: it is the champion now
    ROLLING_BACK = "rolling_back"  # the plan gives the champion everything; no probe has confirmed it yet
    ROLLED_BACK = "rolled_back"  # a probe saw the champion serve
    CANCELLED = "cancelled"  # ended before the challenger had any traffic


class Event(StrEnum):
    """What can happen to a rollout."""

    SHADOW = "shadow"
    START = "start"
    ADVANCE = "advance"
    PAUSE = "pause"
    RESUME = "resume"
    COMPLETE = "complete"
    CONFIRM = "confirm"
    ROLLBACK = "rollback"


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.PENDING, Event.SHADOW): State.SHADOWING,
    (State.PENDING, Event.START): State.CANARY,
    (
        State.PENDING,
        Event.COMPLETE,
    ): State.VERIFYING,  # a model's first version has no champion to be compared with
    (State.PENDING, Event.ROLLBACK): State.CANCELLED,
    (State.SHADOWING, Event.START): State.CANARY,
    (State.SHADOWING, Event.ROLLBACK): State.CANCELLED,
    (State.CANARY, Event.ADVANCE): State.CANARY,
    (State.CANARY, Event.PAUSE): State.PAUSED,
    (State.PAUSED, Event.RESUME): State.CANARY,
    (State.PAUSED, Event.ROLLBACK): State.ROLLING_BACK,
    (State.CANARY, Event.COMPLETE): State.VERIFYING,
    (State.CANARY, Event.ROLLBACK): State.ROLLING_BACK,
    (State.VERIFYING, Event.CONFIRM): State.PROMOTED,
    (State.VERIFYING, Event.ROLLBACK): State.ROLLING_BACK,
    (State.PROMOTED, Event.ROLLBACK): State.ROLLING_BACK,
    (State.ROLLING_BACK, Event.CONFIRM): State.ROLLED_BACK,
}
"""Every legal step. A pair that is not here is refused."""

TERMINAL: Final[frozenset[State]] = frozenset({State.ROLLED_BACK, State.CANCELLED})
"""States that nothing leaves."""

WITHOUT_TRAFFIC: Final[frozenset[State]] = frozenset({State.PENDING, State.SHADOWING, State.CANCELLED})
"""States of a rollout that never had traffic."""

RESTING: Final[frozenset[State]] = TERMINAL | {State.PROMOTED}
"""States in which no loop has work to do; a model has at most one rollout outside them."""


def next_state(state: State, event: Event) -> State:
    """Return the state that `event` leads to. Raises `RefusedError` HF404 if the table has no such transition.

    >>> next_state(State.CANARY, Event.ROLLBACK)
    <State.ROLLING_BACK: 'rolling_back'>
    """
    following = TRANSITIONS.get((state, event))
    if following is None:
        legal = ", ".join(sorted(event for before, event in TRANSITIONS if before is state)) or "nothing"
        raise RefusedError(
            "HF404",
            f"{event} refused: the rollout is {state}; possible now: {legal}",
            state="the rollout is unchanged",
            next_command="holdfast status",
        )
    return following
