"""The online table against a list that is searched from end to end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.features import OnlineTable
from tests.support.profile import examples

entries = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]), st.sampled_from(["EWR", "JFK"]), st.integers(0, 30), st.floats(-5, 5)
    ),
    max_size=40,
)


@examples(75)
@given(entries, st.integers(-1, 35), st.integers(0, 30), st.integers(0, 10))
def test_lookup_finds_the_newest_that_is_young_enough(
    added: list[tuple[str, str, int, float]], at: int, age: int, trimmed: int
) -> None:
    table = OnlineTable()
    for aggregate, entity, known, value in added:
        table.add(aggregate, entity, known, value)
    held = {
        (aggregate, entity, known): value for aggregate, entity, known, value in added
    }  # the last addition holds
    assert len(table) == len(held)
    table.trim("a", trimmed)
    for aggregate in ("a", "b"):
        for entity in ("EWR", "JFK", "LGA"):
            known = [
                k
                for (g, e, k) in held
                if (g, e) == (aggregate, entity) and at - age <= k <= at and (g == "b" or k >= trimmed)
            ]
            found = table.lookup(aggregate, entity, at, age)
            assert found == held[aggregate, entity, max(known)] if known else math.isnan(found)


def test_a_backed_out_value_is_gone() -> None:
    table = OnlineTable()
    table.add("a", "EWR", 10, 1.0)
    table.add("a", "EWR", 20, 2.0)
    table.remove("a", "EWR", 20)
    table.remove("a", "JFK", 20)
    assert table.lookup("a", "EWR", 25, 100) == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_only_finite_values_are_held(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        OnlineTable().add("a", "EWR", 0, value)


def test_a_missing_entity_has_no_value() -> None:
    assert math.isnan(OnlineTable().lookup("a", None, 0, 1))
