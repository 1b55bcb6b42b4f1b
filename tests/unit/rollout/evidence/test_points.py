"""The points of the page's chart stay few, and keep both ends."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from holdfast.rollout import Canary, begin
from holdfast.rollout.evidence.records import POINTS, points_of, record_point

SECOND_US = 1_000_000


@given(st.lists(st.integers(0, 4_000), min_size=1, max_size=700))
def test_points_are_few_in_order_and_have_both_ends(pauses: list[int]) -> None:
    state, now = begin(Canary(), 0.02)[0], 1_000
    for number, pause in enumerate(pauses):
        now += pause
        state = record_point(replace(state, log_e=float(number)), now * SECOND_US)
    points = points_of(state)
    timestamps = [at_us for at_us, _ in points]
    assert len(points) <= POINTS
    assert timestamps == sorted(timestamps)
    assert points[-1] == (now * SECOND_US, float(len(pauses) - 1))
    assert timestamps[0] <= (1_000 + pauses[0] + 1) * SECOND_US


def test_a_long_rollout_keeps_its_whole_length() -> None:
    state = begin(Canary(), 0.02)[0]
    for minute in range(3 * 24 * 60):
        state = record_point(state, minute * 60 * SECOND_US)
    timestamps = [at_us for at_us, _ in points_of(state)]
    gaps = [late - early for early, late in pairwise(timestamps)]
    assert timestamps[0] == 0
    assert len(timestamps) > POINTS / 3
    assert max(gaps[:-1]) < 3 * 86_400 * SECOND_US / 20
