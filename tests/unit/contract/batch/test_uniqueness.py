"""Whatever proof applies, the rows that repeat an earlier good one are those that a set finds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.contract.batch.reasons import find_repeats
from tests.support.profile import examples

LIMITS = [-(2**63), 2**63 - 1, 0]


def by_hand(keys: list[object], bad: list[bool]) -> list[bool]:
    seen: set[object] = set()
    reported = []
    for key, wrong in zip(keys, bad, strict=True):
        reported.append(not wrong and key in seen)
        if not wrong:
            seen.add(key)
    return reported


def holds(keys: list[int], bad: list[bool]) -> None:
    wrong = pl.Series(bad, dtype=pl.Boolean)
    start = datetime(2013, 1, 1, tzinfo=UTC)
    frames = [
        pl.DataFrame({"k": keys}, schema={"k": pl.Int64}),
        pl.DataFrame({"k": [str(key) for key in keys]}),
    ]
    if all(abs(key) < 10**9 for key in keys):
        frames.append(pl.DataFrame({"k": [start + timedelta(seconds=key) for key in keys]}))
    for frame in frames if keys else frames[:1]:
        found = find_repeats(frame, ("k",), wrong)
        reported = [False] * len(keys) if found is None else found.to_list()
        assert reported == by_hand(list(keys), bad)


@st.composite
def nearly_rising(draw: st.DrawFn) -> tuple[list[int], list[bool]]:
    """Long enough that some rows may be out of order, with some moved, repeated or far away."""
    keys = np.cumsum(
        draw(st.lists(st.sampled_from([0, 1, 1, 1, 2, 100]), min_size=2, max_size=30)) * 12
    ).tolist()
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(keys) - 1))
        keys[place] = draw(st.one_of(st.sampled_from(keys), st.sampled_from(LIMITS), st.integers(-5, 500)))
    return keys, [draw(st.integers(0, 9)) == 0 for _ in keys]


@examples(150)
@given(nearly_rising())
def test_keys_that_nearly_rise(drawn: tuple[list[int], list[bool]]) -> None:
    holds(*drawn)


@examples(100)
@given(
    st.lists(st.tuples(st.one_of(st.integers(-9, 9), st.sampled_from(LIMITS)), st.booleans()), max_size=12)
)
@example([(5, False), (5, False), (5, True), (5, False)])
def test_keys_in_any_order(rows: list[tuple[int, bool]]) -> None:
    holds([key for key, _ in rows], [bad for _, bad in rows])


@pytest.mark.parametrize("place", [0, 1, 5000, 9999])
@pytest.mark.parametrize("source", [0, 1, 4999, 5001, 9998, 9999])
def test_one_repetition_in_ten_thousand_is_found_wherever_it_is(place: int, source: int) -> None:
    keys = list(range(0, 30_000, 3))
    keys[place] = keys[source]
    holds(keys, [False] * len(keys))
