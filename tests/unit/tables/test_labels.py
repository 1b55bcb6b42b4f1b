"""The label of a row is the one that was known at the cutoff: no later one, and none that was corrected by then."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.tables.labels import KNOWN_AT, Corrections, known_labels

_SCHEMA = {"id": pl.String(), KNOWN_AT: pl.Int64(), "repaid": pl.Boolean()}
_Entry = tuple[str, int, bool]
_HISTORIES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.booleans()), max_size=25)


def known_one_by_one(
    history: list[_Entry], until: int, corrections: Corrections
) -> dict[str, tuple[bool, int]]:
    """Replay the history as it became known, one label after the other."""
    state: dict[str, tuple[bool, int]] = {}
    for key, at, value in sorted(history, key=lambda entry: (entry[1], entry[2])):
        is_new = key not in state
        is_correction = not is_new and state[key][0] != value and corrections == "latest"
        if at <= until and (is_new or is_correction):
            state[key] = (value, at)
    return state


@given(_HISTORIES, st.integers(-1, 10), st.sampled_from(["latest", "first"]), st.randoms())
def test_it_equals_a_replay_of_what_became_known_by_then(
    history: list[_Entry], until: int, corrections: Corrections, order: object
) -> None:
    order.shuffle(shuffled := list(history))  # type: ignore[attr-defined]  # Hypothesis types a Random as an object
    found = known_labels(
        pl.DataFrame(shuffled, schema=_SCHEMA, orient="row"),
        key=["id"], label="repaid", until_us=until, corrections=corrections,
    )  # fmt: skip
    expected = known_one_by_one(history, until, corrections)
    assert {key: (value, at) for key, value, at in found.rows()} == expected
    assert found.height == len(expected)


@given(_HISTORIES, st.integers(0, 9), _HISTORIES)
def test_nothing_that_became_known_later_changes_it(
    history: list[_Entry], until: int, later: list[_Entry]
) -> None:
    def at_cutoff(entries: list[_Entry]) -> list[tuple[object, ...]]:
        frame = pl.DataFrame(entries, schema=_SCHEMA, orient="row")
        return known_labels(frame, key=["id"], label="repaid", until_us=until, corrections="latest").rows()

    came_later = [(key, at + until + 1, value) for key, at, value in later]
    assert at_cutoff(history + came_later) == at_cutoff(history)


@pytest.mark.parametrize(("corrections", "expected"), [("latest", (True, 40)), ("first", (False, 10))])
def test_a_chargeback_counts_by_the_declared_policy(
    corrections: Corrections, expected: tuple[bool, int]
) -> None:
    history: list[_Entry] = [("a", 10, False), ("a", 20, False), ("a", 40, True), ("a", 50, True)]
    found = known_labels(
        pl.DataFrame(history, schema=_SCHEMA, orient="row"),
        key=["id"], label="repaid", until_us=99, corrections=corrections,
    )  # fmt: skip
    assert found.rows() == [("a", *expected)]
