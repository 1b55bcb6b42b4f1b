"""The table: every pair is in it or refused, and every rollout can end."""

from __future__ import annotations

from itertools import product

import pytest

from holdfast.errors import RefusedError
from holdfast.rollout import RESTING, TERMINAL, TRANSITIONS, Event, State, next_state


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_is_in_the_table_or_refused(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(RefusedError, match="HF404"):
            next_state(state, event)


def test_nothing_leaves_a_terminal_state_and_everything_else_can_be_left() -> None:
    left = {state for state, _ in TRANSITIONS}
    assert left == set(State) - TERMINAL
    assert TERMINAL < RESTING


def test_every_state_is_reached_and_every_one_reaches_an_end() -> None:
    reached, frontier = {State.PENDING}, {State.PENDING}
    while frontier:
        frontier = {after for (before, _), after in TRANSITIONS.items() if before in frontier} - reached
        reached |= frontier
    assert reached == set(State)
    ends = set(RESTING)
    while more := {before for (before, _), after in TRANSITIONS.items() if after in ends} - ends:
        ends |= more
    assert ends == set(State)


def test_a_rollback_is_legal_wherever_the_challenger_may_have_traffic() -> None:
    """R117, R118: and it never leads to a state in which the challenger still counts."""
    for state in (State.CANARY, State.PAUSED, State.VERIFYING, State.PROMOTED):
        assert next_state(state, Event.ROLLBACK) is State.ROLLING_BACK
    for state in (State.PENDING, State.SHADOWING):
        assert next_state(state, Event.ROLLBACK) is State.CANCELLED
