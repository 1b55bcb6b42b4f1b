"""Every pair of a state and an event: it is in the table, or it is refused and nothing is changed (R112, R135)."""

from __future__ import annotations

import itertools

import pytest

from holdfast.errors import RefusedError
from holdfast.rollout import RESTING, TERMINAL, TRANSITIONS, Event, State, next_state

PAIRS = list(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_is_legal_or_refused(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
        return
    with pytest.raises(RefusedError, match="HF404") as refused:
        next_state(state, event)
    assert refused.value.state == "the rollout is unchanged"


def test_nothing_leaves_a_terminal_state_and_a_rollback_leaves_every_other() -> None:
    """R118."""
    assert not {state for state, _ in TRANSITIONS} & TERMINAL
    for state in set(State) - TERMINAL - {State.ROLLING_BACK}:
        assert (state, Event.ROLLBACK) in TRANSITIONS


def test_every_state_can_be_reached_and_left_for_rest() -> None:
    reached, frontier = {State.PENDING}, {State.PENDING}
    while frontier:
        frontier = {to for (came, _), to in TRANSITIONS.items() if came in frontier} - reached
        reached |= frontier
    assert reached == set(State)
    resting = set(RESTING)
    while more := {came for (came, _), to in TRANSITIONS.items() if to in resting} - resting:
        resting |= more
    assert resting == set(State)
