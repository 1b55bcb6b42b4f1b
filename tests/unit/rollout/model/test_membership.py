"""What a server is to its model: the table, and the signals that walk it."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.rollout.model.membership import (
    LIVING,
    LOST_US,
    SILENT_US,
    TRANSITIONS,
    MemberState,
    Signal,
    move,
    read_signal,
)
from holdfast.rollout.model.server_name import Stated

LOOKS = st.fixed_dictionaries(
    {
        "heard_us": st.sampled_from([0, SILENT_US - 1, SILENT_US, 2 * LOST_US]),
        "in_state_us": st.sampled_from([0, LOST_US - 1, LOST_US, 2 * LOST_US]),
        "has_ended": st.booleans(),
        "responds": st.booleans(),
    }
)


def test_every_pair_is_in_the_table_or_refused() -> None:
    for state, signal in product(MemberState, Signal):
        if (state, signal) not in TRANSITIONS:
            assert signal is Signal.OVERDUE
            with pytest.raises(ValueError, match=f"a {state} server cannot be {signal}"):
                move(state, signal)


@given(st.sampled_from(MemberState), st.sampled_from(Stated), LOOKS)
def test_every_look_has_a_next_state(state: MemberState, stated: Stated, look: dict[str, int]) -> None:
    signal = read_signal(state, stated, **look)  # type: ignore[arg-type]
    after = move(state, signal)
    is_heard = look["responds"] or look["heard_us"] < SILENT_US
    has_ended = look["has_ended"] or stated is Stated.ENDED
    assert (after is MemberState.GONE) or not has_ended
    if is_heard and not has_ended:
        assert after in (MemberState.PRESENT, MemberState.DRAINING), (
            "a server that is heard from is never given up"
        )
    if after is MemberState.LOST:
        assert state in (MemberState.SILENT, MemberState.LOST), "it was found silent before"


@given(st.sampled_from(MemberState))
def test_each_state_can_be_left_for_each_other_one_by_looks(begin: MemberState) -> None:
    found, waiting = {begin}, [begin]
    while waiting:
        state = waiting.pop()
        after = {TRANSITIONS[state, signal] for signal in Signal if (state, signal) in TRANSITIONS}
        waiting += after - found
        found |= after
    assert found >= {
        MemberState.PRESENT,
        MemberState.DRAINING,
        MemberState.SILENT,
        MemberState.GONE,
        MemberState.LOST,
    }
    assert set(MemberState) > LIVING
