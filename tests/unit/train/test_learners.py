"""Learners: what they refuse, and that the converted graph is the fitted model (R67, R71; design 1.1)."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import lightgbm
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import HoldfastError, InputError, RefusedError
from holdfast.train import GroupMean, LightGBM, LogisticRegression
from holdfast.train.conversion_check import check_conversion, predict
from holdfast.train.learner import Learner
from holdfast.train.onnx_trees import float32_not_above, forest_graph
from tests.support.profile import examples as examples_of


@dataclass(frozen=True)
class Declared:
    """A declared feature, as far as the heuristic looks at it."""

    name: str


HOUR = Declared("hour")
NAMES = ("hour", "distance", "delay")
LEARNERS: tuple[Learner, ...] = (
    LightGBM(trees=20, min_rows_per_leaf=5, threads=1),
    LogisticRegression(),
    GroupMean(by=(HOUR,)),
)


def examples(rows: int = 400, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = np.column_stack(
        [
            random.integers(0, 24, rows).astype(np.float32),
            random.integers(1, 30, rows).astype(np.float32) * 100,
            random.normal(0.0, 20.0, rows).round().astype(np.float32),
        ]
    )
    x[random.random(rows) < 0.1, 2] = np.nan
    odds = 0.15 * (x[:, 0] - 12) + np.nan_to_num(x[:, 2]) / 20
    return x, (random.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.float64)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.name)
def test_same_rows_and_seed_give_the_same_file(learner: Learner) -> None:
    """R67: what was trained can be trained again, bit for bit."""
    x, y = examples()
    first, again = (learner.fit(x, y, NAMES, seed=3).SerializeToString(deterministic=True) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.name)
def test_every_row_gets_one_probability_even_with_nothing_known(learner: Learner) -> None:
    x, y = examples()
    graph = learner.fit(x, y, NAMES, seed=3)
    onnx.checker.check_model(graph)
    strange = np.array(
        [[np.nan] * 3, [np.inf] * 3, [-np.inf] * 3, [1e30, -1e30, 0.0], [99.0, 0.0, 0.0]], np.float32
    )
    for rows in (strange[:0], strange[:1], strange, x):
        got = predict(graph, rows) if len(rows) else None
        if got is not None:
            assert got.shape == (len(rows),)
    finite = predict(graph, np.vstack([x, strange[[0, 4]]]))
    assert np.all((finite >= 0) & (finite <= 1))


@pytest.mark.parametrize("learner", LEARNERS[:2], ids=lambda learner: learner.name)
def test_it_learns_what_is_there(learner: Learner) -> None:
    x, y = examples(2000)
    fresh_x, fresh_y = examples(2000, seed=8)
    got = predict(learner.fit(x, y, NAMES, seed=0), fresh_x)
    positives, negatives = got[fresh_y == 1], got[fresh_y == 0]
    assert np.mean(positives[:, None] > negatives[None, :]) > 0.75


def broken(what: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = examples()
    match what:
        case "few":
            return x[:20], y[:20]
        case "one class":
            return x, np.ones_like(y)
        case "label":
            y[3] = np.nan
        case "empty feature":
            x[:, 1] = np.nan
        case "infinite":
            x[5, 1] = np.inf
        case "shape":
            return x[:, :2], y
    return x, y


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.name)
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("few", "20 labelled rows are fewer"),
        ("one class", "all 400 labels are 1"),
        ("label", "1 label is neither 0 nor 1"),
        ("empty feature", "'distance' has no value"),
        ("infinite", "'distance' is infinite in 1 row"),
        ("shape", "do not fit"),
    ],
)
def test_examples_that_cannot_train_are_refused(learner: Learner, what: str, words: str) -> None:
    x, y = broken(what)
    with pytest.raises(InputError, match=words) as refused:
        learner.fit(x, y, NAMES, seed=0)
    assert refused.value.code == "HF401"


def test_rows_between_a_threshold_and_its_rounding_take_lightgbm_s_branch() -> None:
    """Two neighbouring float32 values with opposite labels: the split between them is not a float32."""
    for low in np.linspace(0.1, 0.9, 50, dtype=np.float32):
        high = np.nextafter(low, np.float32(2))
        x = np.repeat(np.array([[low], [high]], np.float32), 50, axis=0)
        y = np.repeat([0.0, 1.0], 50)
        graph = LightGBM(trees=2, leaves=2, min_rows_per_leaf=1, threads=1).fit(x, y, ("x",), seed=0)
        got = predict(graph, x)
        assert got[0] < 0.5 < got[-1]


@given(st.floats(allow_nan=False, allow_infinity=False, width=64))
@examples_of(100)
def test_rounding_down_keeps_every_comparison(threshold: float) -> None:
    down = np.float32(float32_not_above(threshold))
    assert float(down) <= threshold
    with np.errstate(over="ignore"):
        assert float(np.nextafter(down, np.float32(np.inf))) > threshold


@pytest.mark.parametrize("gaps", [True, False])
def test_missing_values_take_lightgbm_s_branch(gaps: bool) -> None:
    """Also when nothing was missing in training: LightGBM then reads NaN as zero."""
    x, y = examples()
    x = x - np.float32([12, 1000, 0])
    if not gaps:
        x = np.nan_to_num(x)
    settings_ = {"objective": "binary", "verbosity": -1, "min_data_in_leaf": 5, "num_threads": 1}
    booster = lightgbm.train(settings_, lightgbm.Dataset(x, label=y), num_boost_round=30)
    probe = x.copy()
    probe[::3, 0] = np.nan
    probe[::4, 1] = np.nan
    probe[::5] = np.nan
    graph = forest_graph(booster.dump_model(), 3)
    assert np.abs(predict(graph, probe) - booster.predict(probe)).max() < 1e-5


def test_a_categorical_split_is_refused_not_guessed() -> None:
    x, y = examples()
    x = np.nan_to_num(x)
    settings_ = {"objective": "binary", "verbosity": -1, "min_data_per_group": 1, "num_threads": 1}
    booster = lightgbm.train(
        settings_, lightgbm.Dataset(x, label=y, categorical_feature=[0]), num_boost_round=20
    )
    with pytest.raises(RefusedError, match="'=='"):
        forest_graph(booster.dump_model(), 3)


def test_a_conversion_that_differs_is_refused() -> None:
    x, y = examples()
    graph = LogisticRegression().fit(x, y, NAMES, seed=0)
    native = predict(graph, x).astype(np.float64)
    native[17] += 2e-5
    with pytest.raises(RefusedError, match="training row 17") as refused:
        check_conversion(graph, native, x, "LogisticRegression")
    assert refused.value.code == "HF402"


def test_a_graph_that_does_not_run_is_refused() -> None:
    x, y = examples()
    graph = LogisticRegression().fit(x, y, NAMES, seed=0)
    with pytest.raises(RefusedError, match="does not run"):
        check_conversion(graph, np.zeros(len(x)), x[:, :2], "LogisticRegression")


def test_a_solver_that_did_not_converge_is_refused() -> None:
    x, y = examples()
    with pytest.raises(RefusedError, match="HF402"):
        LogisticRegression(iterations=1).fit(x, y, NAMES, seed=0)


def test_without_its_extra_logistic_regression_names_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as Python sees a package that is not installed
    with pytest.raises(InputError, match=r"HF112: LogisticRegression .*pip install 'holdfast\[sklearn\]'"):
        LogisticRegression().fit(*examples(), NAMES, seed=1)


def test_the_rate_is_the_mixed_share_of_the_group() -> None:
    """R82: by hand, group 1 has 3 of 4 and the overall share is 26/60."""
    x = np.array([[1]] * 4 + [[2]] * 56, np.float32)
    y = np.array([1, 1, 1, 0] + [1] * 23 + [0] * 33, np.float64)
    graph = GroupMean(by=(HOUR,), smoothing=6.0).fit(x, y, ("g",), seed=0)
    overall = 26 / 60
    got = predict(graph, np.array([[1], [2], [3], [np.nan], [np.inf]], np.float32))
    expected = [(3 + 6 * overall) / 10, (23 + 6 * overall) / 62, overall, overall, overall]
    assert got == pytest.approx(expected, abs=1e-6)


def test_the_rate_by_two_features_keeps_combinations_apart() -> None:
    random = np.random.default_rng(1)
    x = random.integers(0, 3, (600, 2)).astype(np.float32)
    y = ((x[:, 0] == 1) & (x[:, 1] == 2)).astype(np.float64)
    graph = GroupMean(by=(HOUR, Declared("day")), smoothing=0.0).fit(x, y, ("a", "b"), seed=0)
    assert predict(graph, x) == pytest.approx(y, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LightGBM(trees=0), "trees is 0"),
        (lambda: LightGBM(trees=2**31), "trees is 2147483648: 1 to 2147483647 are possible"),
        (lambda: LightGBM(leaves=131_073), "leaves is 131073: 2 to 131072 are possible"),
        (lambda: LightGBM(min_rows_per_leaf=10**30), "min_rows_per_leaf is 1000"),
        (lambda: LightGBM(threads=2**31), "threads is 2147483648"),
        (lambda: LightGBM(learning_rate=float("nan")), "learning_rate is nan"),
        (lambda: LightGBM(feature_share=1.5), "feature_share is 1.5"),
        (lambda: LogisticRegression(c=0), "c is 0"),
        (lambda: GroupMean(by=()), "at least one feature"),
        (lambda: GroupMean(by=(HOUR, HOUR)), "each once"),
        (lambda: GroupMean(by=(HOUR,), smoothing=-1), "smoothing is -1"),
    ],
)
def test_a_wrong_declaration_names_what_is_wrong(make: object, words: str) -> None:
    with pytest.raises(HoldfastError, match=words) as wrong:
        make()  # type: ignore[operator]  # each entry is a constructor call
    assert wrong.value.code == "HF111"


def test_the_rate_refuses_a_huge_table() -> None:
    x, y = examples()
    wide = np.tile(np.arange(len(x), dtype=np.float32)[:, None], (1, 3))
    with pytest.raises(InputError, match="bucket them"):
        GroupMean(by=(HOUR,)).fit(wide, y, NAMES, seed=0)


@pytest.mark.parametrize(
    "learner", [GroupMean(by=(HOUR,)), LogisticRegression(), LightGBM(trees=10, min_rows_per_leaf=1)]
)
def test_a_row_that_counts_twice_is_like_two_rows(learner: Learner) -> None:
    random = np.random.default_rng(4)
    x = random.integers(0, 4, (300, 1)).astype(np.float32)
    y = (random.random(300) < 0.2 + 0.15 * x[:, 0]).astype(np.float64)
    twice = np.where(np.arange(300) % 3 == 0, 2, 1)
    weighted = learner.fit(x, y, ("g",), seed=0, weights=twice.astype(np.float64))
    repeated = learner.fit(np.repeat(x, twice, axis=0), np.repeat(y, twice), ("g",), seed=0)
    # Logistic regression scales a feature by all rows alike, so its ridge differs a little.
    tolerance = 1e-6 if not isinstance(learner, LogisticRegression) else 2e-3
    assert predict(weighted, x) == pytest.approx(predict(repeated, x), abs=tolerance)


@pytest.mark.parametrize("weights", [np.ones(10), np.full(300, np.nan), np.full(300, -1.0), np.zeros(300)])
def test_weights_that_cannot_train_are_refused(weights: npt.NDArray[np.float64]) -> None:
    x = np.arange(300, dtype=np.float32)[:, None]
    y = (np.arange(300) % 2).astype(np.float64)
    with pytest.raises(InputError, match="HF401"):
        LogisticRegression().fit(x, y, ("g",), seed=0, weights=weights)
