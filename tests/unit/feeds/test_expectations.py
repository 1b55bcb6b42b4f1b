"""What a feed may be declared to expect."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import (
    Completeness,
    Composition,
    Contract,
    Expectations,
    Feed,
    Granularity,
    Integer,
    Limits,
    Number,
    Timestamp,
    TopValueShare,
    Volume,
)
from holdfast.errors import InputError
from holdfast.records import Level

CONTRACT = Contract(
    Integer("id"), Number("v", unit="1"), Timestamp("at", tz="UTC"), key="id", event_time="at"
)


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Limits(error=-1),
        lambda: Limits(error=1.5),
        lambda: Limits(warning=0.2, error=0.1),
        lambda: Limits(error=5, critical=3),
        lambda: Volume(at_least=5, at_most=4),
        lambda: Volume(history=3),
        lambda: Completeness("0s"),
        lambda: Completeness("1h", quiet_hours=(6, 2)),
        lambda: Granularity("0s"),
        lambda: Composition("v", at_most={"bot": 1.2}),
        lambda: Expectations(interval="0s"),
        lambda: Feed("f", CONTRACT, expects=Expectations(sequence="v")),
        lambda: Feed("f", CONTRACT, expects=Expectations(sequence="number")),
        lambda: Feed(
            "f", CONTRACT, expects=Expectations(top_value_share=(TopValueShare("absent", Limits(error=0.5)),))
        ),
        lambda: Feed("f", CONTRACT, expects=Expectations(early_labels="refuse")),
    ],
)
def test_an_expectation_that_cannot_mean_what_it_declares_is_refused(declare: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"HF10[69]"):
        declare()


@given(count=st.integers(0, 1000), extra=st.integers(0, 1000), data=st.data())
def test_the_worst_level_that_is_reached_counts(count: int, extra: int, data: st.DataObject) -> None:
    """A level is reached from its limit on, and never by nothing at all."""
    of = count + extra
    shares = sorted(data.draw(st.tuples(*[st.floats(0, 1)] * 3)))
    found = Limits(*shares).reached(count, of)
    reached = [level for level, share in zip(Level, shares, strict=True) if count and count >= share * of]
    assert (found and found[0]) == (reached[-1] if reached else None)


def test_counts_and_shares_may_stand_side_by_side() -> None:
    limits = Limits(warning=1, error=0.5, critical=900)
    assert [found and found[0] for found in (limits.reached(n, 1000) for n in (0, 1, 500, 900))] == [
        None,
        Level.WARNING,
        Level.ERROR,
        Level.CRITICAL,
    ]
