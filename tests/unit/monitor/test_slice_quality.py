"""Quality by slice equals a recomputation from the raw rows, with a bounded number of slices (R143)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from holdfast.monitor.quality import LEAST_OF_A_CLASS, Outcomes
from holdfast.monitor.slice_quality import OTHER, UNSEEN, quality_by_slice, slice_value
from holdfast.monitor.traffic_comparison import compare_slices

ROW = st.tuples(
    st.sampled_from(["v1", "v2"]),
    st.sampled_from(["", "a", "b", "c", "d", "new", "newer"]),
    st.integers(0, 20).map(lambda score: score / 20),
    st.booleans(),
)


def outcomes_of(rows: list[tuple[str, str, float, bool]]) -> Outcomes:
    at_us = np.arange(len(rows), dtype=np.int64)
    return Outcomes(
        np.array([row[0] for row in rows], dtype=np.str_),
        at_us,
        at_us,
        np.array([row[2] for row in rows]),
        np.array([float(row[3]) for row in rows]),
    )


def area(rows: list[tuple[str, str, float, bool]]) -> float | None:
    """The AUC by its definition: each pair of a positive and a negative."""
    good, bad = [row[2] for row in rows if row[3]], [row[2] for row in rows if not row[3]]
    if min(len(good), len(bad)) < LEAST_OF_A_CLASS:
        return None
    return sum((one > other) + (one == other) / 2 for one in good for other in bad) / (len(good) * len(bad))


@given(st.lists(ROW, max_size=120))
def test_each_slice_is_that_of_its_raw_rows(rows: list[tuple[str, str, float, bool]]) -> None:
    trained = {"a", "b", "c", "d"}
    counts = Counter(row[1] for row in rows if row[1] in trained)
    shown = sorted(counts, key=lambda value: (-counts[value], value))[:2]

    def named(value: str) -> str:
        return value if value in shown else OTHER if value in trained else UNSEEN

    values = {"town": np.array([row[1] for row in rows], dtype=np.str_)}
    found = quality_by_slice(outcomes_of(rows), values, {"town": trained}, most=2)
    expected = {(named(row[1]), row[0]) for row in rows if row[1]}
    assert [(each.value, each.version) for each in found] == sorted(
        expected,
        key=lambda key: (
            key[0] in (OTHER, UNSEEN),
            -sum(named(row[1]) == key[0] for row in rows if row[1]),
            key,
        ),
    )
    for each in found:
        inside = [row for row in rows if row[1] and named(row[1]) == each.value and row[0] == each.version]
        auc = area(inside)
        assert each.quality.rows == len(inside)
        assert each.is_conclusive == (auc is not None)
        assert (each.quality.auc is None) == (auc is None)
        if auc is not None and each.quality.auc is not None:
            assert abs(each.quality.auc.estimate - auc) < 1e-12
        if each.quality.brier is not None:
            assert (
                abs(each.quality.brier.estimate - np.mean([(row[2] - row[3]) ** 2 for row in inside])) < 1e-12
            )


def test_a_thousand_values_of_callers_are_one_slice_and_those_of_training_rows_are_bounded() -> None:
    rows = [("v1", f"x{number}", 0.5, True) for number in range(1_000)]
    values = {"town": np.array([row[1] for row in rows], dtype=np.str_)}
    assert [each.value for each in quality_by_slice(outcomes_of(rows), values, {"town": ()})] == [UNSEEN]
    found = quality_by_slice(outcomes_of(rows), values, {"town": {row[1] for row in rows}})
    assert (len(found), found[-1].value, found[-1].quality.rows) == (21, OTHER, 980)
    assert len(quality_by_slice(outcomes_of(rows), values, {})) == 21


def test_two_values_with_one_long_begin_are_two_slices() -> None:
    """A text that is shortened for a key must not share its row with another."""
    begin = "https://partner.example/" + "x" * 300
    names = [slice_value(begin + end) for end in ("a", "b")]
    assert len(set(names)) == 2
    assert {len(name) for name in names} == {255}
    requested = pl.DataFrame({"site": [begin + "a"] * 60 + [begin + "b"] * 40})
    found = compare_slices(requested, {"site": {names[0]: 9}})
    assert [(each.value, each.share, each.covered) for each in found] == [
        (names[0], 0.6, True),
        (names[1], 0.4, False),
    ]
