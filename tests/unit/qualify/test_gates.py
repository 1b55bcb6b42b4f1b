"""The gates as pure functions, at their bounds (R75, R76, R82, R83, R95, R96)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import Boolean, Category, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.errors import InputError
from holdfast.qualify import (
    GateResult,
    Gates,
    GoldenQuery,
    HoldoutPair,
    LoadReport,
    Objective,
    TensorType,
    check_baseline,
    check_champion,
    check_golden,
    check_load,
    check_objective,
    check_signature,
    check_size,
    decide_status,
    endpoint_signature,
    pass_first_version,
)
from holdfast.qualify.golden import set_id
from holdfast.records import Verdict
from holdfast.stats import auc_interval, mean_interval

CONTRACT = Contract(
    Text("id"),
    Category("carrier"),
    Number("distance", unit="mi"),
    Integer("seats"),
    Boolean("night"),
    Timestamp("at", tz="UTC"),
    key="id",
    event_time="at",
    label=Label("late", delay="12h"),
)
PROBABILITY = TensorType("probability", "tensor(float)", 1)
GOOD = LoadReport(
    "succeeded",
    "done",
    "",
    load_seconds=0.1,
    peak_bytes=10**8,
    inputs=(TensorType("distance", "tensor(double)", 1), TensorType("carrier", "tensor(string)", 1)),
    outputs=(PROBABILITY,),
    metadata={"contract_hash": CONTRACT.hash},
    golden=(0.2, 0.8),
)


def contract_of(*columns: Any) -> Contract:
    return Contract(*columns, key="id", event_time="at", label=CONTRACT.label)


def changed(name: str, **facts: Any) -> Contract:
    columns = CONTRACT.request_columns
    return contract_of(*(replace(each, **facts) if each.name == name else each for each in columns))


def made_for(contract: Contract) -> LoadReport:
    about = {"contract_hash": contract.hash, "contract_json": contract.to_json()}
    return replace(GOOD, metadata=about)


DIED = LoadReport("died", "loading", "signal SIGSEGV ended it")


def test_loads_judges_time_memory_and_death() -> None:
    gates = Gates(load_seconds=0.1, memory_bytes=10**8)
    assert check_load(GOOD, gates).verdict is Verdict.PASS
    assert check_load(replace(GOOD, load_seconds=0.101), gates).verdict is Verdict.FAIL
    assert check_load(replace(GOOD, peak_bytes=10**8 + 1), gates).verdict is Verdict.FAIL
    for outcome in ("died", "refused", "timed out"):
        assert check_load(replace(DIED, outcome=outcome), gates).verdict is Verdict.FAIL
    assert "died while loading: signal SIGSEGV" in check_load(DIED, gates).explanation


def test_every_kind_of_column_has_its_tensor() -> None:
    assert endpoint_signature(CONTRACT, ["recent"]).inputs == {
        "id": "tensor(string)",
        "carrier": "tensor(string)",
        "distance": "tensor(double)",
        "seats": "tensor(double)",
        "night": "tensor(double)",
        "at": "tensor(int64)",
        "recent": "tensor(double)",
    }


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        (replace(GOOD, metadata={"contract_hash": "f" * 64}), "made for contract ffffffff"),
        (replace(GOOD, metadata={}), "made for contract None"),
        (replace(GOOD, inputs=(TensorType("late", "tensor(double)", 1),)), "has no input 'late'"),
        (
            replace(GOOD, inputs=(TensorType("distance", "tensor(float)", 1),)),
            "distance tensor(float)[1] should be",
        ),
        (
            replace(GOOD, inputs=(TensorType("distance", "tensor(double)", 2),)),
            "distance tensor(double)[2] should be",
        ),
        (
            replace(GOOD, outputs=(replace(PROBABILITY, rank=2),)),
            "the outputs are probability tensor(float)[2]",
        ),
        (replace(GOOD, outputs=(replace(PROBABILITY, name="score"),)), "the outputs are score"),
        (replace(GOOD, outputs=(PROBABILITY, PROBABILITY)), "the outputs are probability"),
    ],
)
def test_signature_reports_every_difference(trial: LoadReport, words: str) -> None:
    result = check_signature(trial, endpoint_signature(CONTRACT, []))
    assert result.verdict is Verdict.FAIL
    assert words in result.explanation
    assert result.observed == 1


def test_a_changed_contract_shows_the_way_out() -> None:
    result = check_signature(made_for(changed("distance", unit="km")), endpoint_signature(CONTRACT, []))
    assert result.verdict is Verdict.FAIL
    assert "distance: unit changed (mi -> km), breaking" in result.explanation
    assert "declare it under another name" in result.explanation


def test_a_contract_that_evolved_without_harm_passes_and_is_reported() -> None:
    """R92: the callers of the champion are understood by a version whose contract lets more through."""
    result = check_signature(made_for(changed("seats", missing="keep")), endpoint_signature(CONTRACT, []))
    assert (result.verdict, "seats: missing values allowed" in result.explanation) == (Verdict.PASS, True)


def test_a_version_may_read_an_optional_column_that_callers_do_not_send_yet() -> None:
    grown = contract_of(*CONTRACT.request_columns, Number("wind", unit="m/s", missing="keep"))
    trial = made_for(grown)
    trial = replace(trial, inputs=(*trial.inputs, TensorType("wind", "tensor(double)", 1)))
    assert check_signature(trial, endpoint_signature(CONTRACT, [])).verdict is Verdict.PASS


def test_callers_that_have_to_follow_first_are_waited_for_or_accepted() -> None:
    before = changed("distance", missing="keep")
    after = contract_of(*(column for column in CONTRACT.request_columns if column.name != "distance"))
    trial = replace(made_for(after), inputs=GOOD.inputs[1:])
    waiting = check_signature(trial, endpoint_signature(before, []))
    assert waiting.verdict is Verdict.INCONCLUSIVE
    assert "holdfast contract accept --model" in waiting.explanation
    assert check_signature(trial, endpoint_signature(before, []), accepted=True).verdict is Verdict.PASS


def test_a_file_that_does_not_hold_the_contract_it_names_is_refused() -> None:
    trial = replace(GOOD, metadata={"contract_hash": "f" * 64, "contract_json": CONTRACT.to_json()})
    assert check_signature(trial, endpoint_signature(CONTRACT, [])).verdict is Verdict.FAIL


def test_signature_of_a_fitting_file_and_of_one_that_was_not_opened() -> None:
    endpoint = endpoint_signature(CONTRACT, [])
    assert check_signature(GOOD, endpoint).verdict is Verdict.PASS
    assert check_signature(DIED, endpoint).verdict is Verdict.INCONCLUSIVE


def test_the_golden_gate_names_the_version_of_its_set() -> None:
    """R83: another row, bound or owner is another set; the result is kept with the version."""
    one = GoldenQuery("low", {"km": 1.0}, between=(0.1, 0.3), owner="ann")
    others = [replace(one, row={"km": 2.0}), replace(one, between=(0.1, 0.4)), replace(one, owner="bob")]
    assert len({set_id([each]) for each in (one, *others)}) == 4
    for responses in ((0.2,), (0.9,)):
        result = check_golden(replace(GOOD, golden=responses), [one])
        assert set_id([one]) in result.explanation


def test_golden_bounds_are_inclusive_and_nan_is_wrong() -> None:
    queries = (
        GoldenQuery("low", {}, between=(0.2, 0.3)),
        GoldenQuery("high", {}, value=0.75, tolerance=0.05),
    )
    assert check_golden(GOOD, queries).verdict is Verdict.PASS
    for responses in ((0.2 - 1e-9, 0.8), (0.2, 0.81), (float("nan"), 0.8)):
        result = check_golden(replace(GOOD, golden=responses), queries)
        assert (result.verdict, result.observed) == (Verdict.FAIL, 1.0)
    assert check_golden(replace(GOOD, golden=()), queries).verdict is Verdict.ERROR
    assert check_golden(DIED, queries).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    "given_",
    [
        {},
        {"value": 0.5},
        {"tolerance": 0.1},
        {"between": (0.0, 1.0), "value": 0.5, "tolerance": 0.1},
        {"between": (0.6, 0.5)},
        {"between": (1.5, 2.0)},
        {"value": float("nan"), "tolerance": 0.1},
    ],
)
def test_a_golden_query_without_a_right_response_is_refused(given_: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"(?i)golden ?query 'q'"):
        GoldenQuery("q", {}, **given_)


def pair(strength: float, other: float, rows: int = 4000) -> HoldoutPair:
    """Answers that follow the label's cause with `strength`, next to others that do with `other`."""
    random = np.random.default_rng(3)
    cause = random.normal(size=rows)
    labels = random.random(rows) < 1 / (1 + np.exp(-2 * cause))

    def response(how: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(how * cause + random.normal(size=rows))))

    return HoldoutPair(response(strength), response(other), labels)


def test_baseline_and_champion_know_better_equal_and_worse() -> None:
    gates = Gates()
    better, equal, worse = pair(2.0, 0.5), pair(1.0, 1.0), pair(0.5, 2.0)
    assert check_baseline(better, gates).verdict is Verdict.PASS
    assert check_baseline(equal, gates).verdict is Verdict.INCONCLUSIVE
    assert check_baseline(worse, gates).verdict is Verdict.FAIL
    assert check_champion(better, gates).verdict is Verdict.PASS
    assert check_champion(equal, replace(gates, worse_than_champion_by=0.05)).verdict is Verdict.PASS
    assert check_champion(equal, replace(gates, worse_than_champion_by=0.001)).verdict is Verdict.INCONCLUSIVE
    assert check_champion(worse, gates).verdict is Verdict.FAIL


def test_the_same_responses_are_no_worse_and_no_better() -> None:
    same = pair(1.0, 1.0)
    same = HoldoutPair(same.candidate, same.candidate, same.labels)
    assert check_champion(same, Gates()).verdict is Verdict.PASS
    assert check_baseline(same, Gates()).verdict is Verdict.FAIL


def promised(pair_: HoldoutPair | None, gates: Gates) -> GateResult:
    return check_objective(pair_, Objective("auc", at_least=0.5), gates)


@pytest.mark.parametrize("gate", [check_baseline, check_champion, promised])
def test_no_data_is_inconclusive_and_no_probability_fails(gate: object) -> None:
    assert callable(gate)
    good = pair(2.0, 0.5, rows=600)
    assert gate(None, Gates()).verdict is Verdict.INCONCLUSIVE
    assert gate(good, Gates(labelled_rows=601)).verdict is Verdict.INCONCLUSIVE
    assert gate(good, Gates(of_each_class=599)).verdict is Verdict.INCONCLUSIVE
    for wrong in (np.nan, 1.01, -0.01, np.inf):
        responses = good.candidate.copy()
        responses[5] = wrong
        result = gate(replace(good, candidate=responses), Gates())
        assert result.verdict is Verdict.FAIL
        assert "1 of 600 predictions" in result.explanation


def test_the_first_version_has_no_champion_to_fear() -> None:
    assert pass_first_version().verdict is Verdict.PASS
    assert "first version" in pass_first_version().explanation


@pytest.mark.parametrize(
    ("file_bytes", "before", "verdict", "alarm"),
    [
        (1000, None, Verdict.PASS, False),
        (1050, 1000, Verdict.PASS, False),
        (1051, 1000, Verdict.PASS, True),
        (2000, 1000, Verdict.PASS, True),
        (2001, 1000, Verdict.FAIL, True),
        (500, 1000, Verdict.PASS, False),
        (499, 1000, Verdict.PASS, True),
        (130, 1000, Verdict.PASS, True),
        (5001, None, Verdict.FAIL, False),
        (5001, 5000, Verdict.FAIL, False),
    ],
)
def test_size_reports_growth_and_refuses_bloat(
    file_bytes: int, before: int | None, verdict: Verdict, alarm: bool
) -> None:
    result = check_size(file_bytes, before, Gates(size_bytes=5000))
    assert result.verdict is verdict
    assert result.explanation.startswith("ALARM") is alarm


@given(st.lists(st.sampled_from(list(Verdict))))
def test_only_passes_qualify_and_one_failure_refuses(verdicts: list[Verdict]) -> None:
    results: list[GateResult] = [GateResult("size", verdict, "") for verdict in verdicts]
    state = decide_status(results)
    assert (state == "refused") is (Verdict.FAIL in verdicts)
    assert (state == "qualified") is (bool(verdicts) and set(verdicts) == {Verdict.PASS})


@pytest.mark.parametrize(
    "wrong",
    [
        {"beat_heuristic_by": -0.01},
        {"worse_than_champion_by": float("nan")},
        {"confidence": 1.0},
        {"size_growth": 0.9},
        {"of_each_class": 1},
        {"trial_seconds": 0},
    ],
)
def test_gates_that_guard_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Gates(**wrong)


def test_an_objective_is_reached_missed_or_undecided() -> None:
    """R82: the estimate passes, the interval decides between failing and not knowing."""
    good = pair(2.0, 0.5)
    own = auc_interval(good.candidate, good.labels, 0.95)
    brier = mean_interval((good.candidate - good.labels) ** 2, 0.95)
    middle = (own.estimate + own.high) / 2, (brier.estimate + brier.low) / 2
    for declared, verdict, words in (
        (Objective("auc", at_least=own.estimate), Verdict.PASS, "reaches the objective: auc"),
        (Objective("auc", at_least=middle[0]), Verdict.INCONCLUSIVE, "does not surely reach"),
        (Objective("auc", at_least=own.high + 1e-9), Verdict.FAIL, "misses the objective: auc"),
        (Objective("brier", at_most=brier.estimate), Verdict.PASS, "reaches the objective: brier"),
        (Objective("brier", at_most=middle[1]), Verdict.INCONCLUSIVE, "does not surely reach"),
        (Objective("brier", at_most=brier.low - 1e-9), Verdict.FAIL, "misses the objective: brier"),
    ):
        result = check_objective(good, declared, Gates())
        assert result.verdict is verdict, declared
        assert words in result.explanation
        assert result.bound == declared.bound
        assert result.low is not None
        assert result.observed is not None
        assert result.high is not None
        assert result.low < result.observed < result.high


def test_an_objective_of_zero_is_a_bound_too() -> None:
    perfect = pair(2.0, 0.5)
    perfect = replace(perfect, candidate=perfect.labels.astype(float))
    assert Objective("brier", at_most=0.0).bound == 0.0
    assert check_objective(perfect, Objective("brier", at_most=0.0), Gates()).verdict is Verdict.PASS
    assert check_objective(perfect, Objective("auc", at_least=1.0), Gates()).verdict is Verdict.PASS
    turned = replace(perfect, candidate=1 - perfect.candidate)
    assert check_objective(turned, Objective("auc", at_least=0.0), Gates()).verdict is Verdict.PASS
