"""What callers request against what was trained on (R50, R51)."""

from __future__ import annotations

import numpy as np
import polars as pl

from holdfast.monitor.traffic_comparison import (
    FEWEST_ROWS,
    compare_slices,
    estimate_label_share,
    find_unseen_words,
)


def test_a_slice_is_uncovered_only_when_enough_responses_had_it():
    requested = pl.DataFrame(
        {"site": ["new"] * FEWEST_ROWS + ["odd"] * (FEWEST_ROWS - 1) + ["old"] * 100 + [None] * 30}
    )
    found = {each.value: each for each in compare_slices(requested, {"site": {"old": 5, "gone": 7}})}
    assert {value: each.covered for value, each in found.items()} == {
        "new": False,
        "odd": True,
        "old": True,
        "(missing)": False,
    }
    assert compare_slices(requested, {"other": {"old": 5}}) == ()
    rare = pl.DataFrame({"site": ["new"] * 30 + ["old"] * 9_970})
    assert all(each.covered for each in compare_slices(rare, {"site": {"old": 1}}))


def test_too_few_responses_or_nothing_to_compare_with_report_nothing():
    nothing = (np.array([]), np.array([]))
    assert estimate_label_share(np.full(49, 0.5), 0.5, nothing, []) is None
    assert estimate_label_share(np.full(60, 0.5), None, nothing, []) is None
    one_class = (np.full(400, 0.5), np.zeros(400))
    assert estimate_label_share(np.full(60, 0.5), None, one_class, []) is None
    assert estimate_label_share(np.full(60, 0.5), 0.0, one_class, []) is None


def test_real_labels_of_half_the_predictions_replace_the_estimate():
    """Labels showed 27.6 %, and the estimate stayed at 60 %."""
    draw = np.random.default_rng(6)
    scores = draw.beta(2, 2, 2_000)
    known = (scores, (draw.random(2_000) < scores).astype(float))
    wrong = draw.beta(6, 2, 1_000)  # scores of another input, whose labels stayed as they were
    labels = (draw.random(1_000) < 0.5).astype(float)
    few, half = (estimate_label_share(wrong, 0.5, known, labels[:count]) for count in (499, 500))
    assert few is not None
    assert half is not None
    assert few.explanation.count("the real labels contradict") == 1
    assert (few.shifted, few.by_labels, few.refutes_shift) == (False, False, False)
    without = estimate_label_share(wrong, 0.5, known, [])
    assert without is not None
    assert (without.shifted, without.seen) == (True, None)
    assert (half.shifted, half.by_labels, half.refutes_shift) == (False, True, True)
    assert "500 of the newest 1,000 predictions with a real label: they decide; " in half.explanation
    moved = estimate_label_share(scores[:1_000], 0.5, known, np.ones(600))
    assert moved is not None
    assert (moved.shifted, moved.by_labels, moved.refutes_shift) == (True, True, False)


def test_the_sentence_names_both_intervals_and_which_of_them_counts():
    """It reported "71 % by estimate", "seen so far: 27.6 %" and "no labels to correct the scores by" as one."""
    nothing = (np.array([]), np.array([]))
    found = estimate_label_share(np.full(400, 0.9), 0.3, nothing, (np.arange(100) % 10 < 3).astype(float))
    assert found is not None
    assert found.seen is not None
    assert found.estimate.low > found.seen.high
    assert not found.shifted
    assert found.explanation == (
        "the label is true for 30.0% of the training rows; for 30.0% (21.9% to 39.6%) of the 100 of the newest 400 predictions "
        f"with a real label: they decide once 50% have one; by estimate from the scores for {found.estimate.estimate:.1%} "
        f"({found.estimate.low:.1%} to {found.estimate.high:.1%}), which the real labels contradict: the estimate does not "
        "count"
    )


def test_a_share_that_did_not_move_is_no_shift():
    draw = np.random.default_rng(5)
    scores = draw.beta(2, 2, 4_000)
    labels = (draw.random(4_000) < scores).astype(float)
    found = estimate_label_share(scores[:2_000], 0.5, (scores[2_000:], labels[2_000:]), labels[:500])
    assert found is not None
    assert not found.shifted
    assert found.estimate.low <= labels[:2_000].mean() <= found.estimate.high
    assert found.seen_rows == 500


def test_words_without_a_code_are_found_from_the_share_of_a_slice_on() -> None:
    """R25: a new airport with 5 % of the requests was reported only for columns that are slices."""
    requested = pl.DataFrame(
        {
            "airport": ["EWR"] * 1900 + ["HPN"] * 80 + ["SWF"] * 19 + [None],
            "plane": ["", None] * 1000,
            "note": ["x"] * 2000,
        }
    )
    found = find_unseen_words(requested, {"airport": ("EWR",), "plane": ("N1",), "absent": ("a",)})
    assert [(each.column, each.value, each.rows, each.share) for each in found] == [
        ("airport", "HPN", 80, 0.04)
    ]
    assert not found[0].covered
    assert find_unseen_words(requested.head(19).with_columns(airport=pl.lit("HPN")), {"airport": ()}) == ()
