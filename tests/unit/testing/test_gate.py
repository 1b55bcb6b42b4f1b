"""Our gates keep the laws of a gate, and each law is broken by a gate that is made to break it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count

import numpy as np
import pytest

from holdfast.contract import Contract, Label, Number, Text, Timestamp
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
    endpoint_signature,
)
from holdfast.records import Verdict
from holdfast.testing import GateCases, Law, gate_laws

CONTRACT = Contract(
    Text("id"), Number("distance", unit="mi"), Timestamp("at", tz="UTC"),
    key="id", event_time="at", label=Label("late", delay="12h"),
)  # fmt: skip
ENDPOINT = endpoint_signature(CONTRACT, ())
GOOD = LoadReport(
    "succeeded",
    "done",
    "",
    load_seconds=0.1,
    peak_bytes=10**8,
    inputs=(TensorType("distance", "tensor(double)", 1),),
    outputs=(TensorType("probability", "tensor(float)", 1),),
    metadata={"contract_hash": CONTRACT.hash},
    golden=(0.2,),
)
DIED = LoadReport("died", "loading", "signal SIGSEGV ended it")
GATES = Gates()
QUERIES = (GoldenQuery("low", {}, between=(0.1, 0.3)),)
AUC = Objective("auc", at_least=0.7)


def _pair(candidate: float, other: float, rows: int = 4000) -> HoldoutPair:
    draw = np.random.default_rng(3)
    cause = draw.normal(size=rows)
    labels = draw.random(rows) < 1 / (1 + np.exp(-2 * cause))
    ours, theirs = (1 / (1 + np.exp(-(how * cause + draw.normal(size=rows)))) for how in (candidate, other))
    return HoldoutPair(ours, theirs, labels)


BETTER, WORSE = _pair(3.0, 0.5), _pair(0.1, 3.0)

OURS: dict[str, GateCases] = {
    "load_test": GateCases(partial(check_load, GOOD, GATES), partial(check_load, DIED, GATES)),
    "signature": GateCases(
        partial(check_signature, GOOD, ENDPOINT),
        partial(check_signature, replace(GOOD, outputs=(TensorType("score", "tensor(float)", 1),)), ENDPOINT),
        partial(check_signature, DIED, ENDPOINT),
    ),
    "golden": GateCases(
        partial(check_golden, GOOD, QUERIES),
        partial(check_golden, replace(GOOD, golden=(0.9,)), QUERIES),
        partial(check_golden, DIED, QUERIES),
    ),
    "baseline": GateCases(
        partial(check_baseline, BETTER, GATES),
        partial(check_baseline, WORSE, GATES),
        partial(check_baseline, None, GATES),
    ),
    "champion": GateCases(
        partial(check_champion, BETTER, GATES),
        partial(check_champion, WORSE, GATES),
        partial(check_champion, None, GATES),
    ),
    "objective": GateCases(
        partial(check_objective, BETTER, AUC, GATES),
        partial(check_objective, WORSE, AUC, GATES),
        partial(check_objective, None, AUC, GATES),
    ),
    "size": GateCases(partial(check_size, 1000, 900, GATES), partial(check_size, 3000, 1000, GATES)),
}


@pytest.mark.parametrize(
    "law", [law for name, cases in OURS.items() for law in gate_laws(name, cases)], ids=str
)
def test_our_gates_keep_every_law(law: Law) -> None:
    law()


def _reports(verdict: Verdict, **changed: object) -> Callable[[], GateResult]:
    return lambda: replace(GateResult("planted", verdict, "because 3 is above 2", observed=3.0), **changed)  # type: ignore[arg-type]


GOOD_CASES = GateCases(_reports(Verdict.PASS), _reports(Verdict.FAIL), _reports(Verdict.INCONCLUSIVE))
COUNT = count()
PLANTED = {
    "good evidence passes": replace(GOOD_CASES, passing=_reports(Verdict.INCONCLUSIVE)),
    "bad evidence fails": replace(GOOD_CASES, failing=_reports(Verdict.PASS)),
    "too little evidence is no success": replace(GOOD_CASES, too_little=_reports(Verdict.PASS)),
    "every result names the gate": replace(GOOD_CASES, failing=_reports(Verdict.FAIL, gate="other")),
    "the same evidence gives the same result": replace(
        GOOD_CASES, passing=lambda: GateResult("planted", Verdict.PASS, "x", observed=float(next(COUNT)))
    ),
    "a verdict is explained on one line": replace(GOOD_CASES, failing=_reports(Verdict.FAIL, explanation="")),
    "numbers are finite and in order": replace(GOOD_CASES, passing=_reports(Verdict.PASS, low=4.0, high=5.0)),
    "a result is JSON": replace(GOOD_CASES, passing=_reports(Verdict.PASS, bound=math.nan)),
}


def test_every_law_has_a_gate_that_breaks_it() -> None:
    assert {law.name for law in gate_laws("planted", GOOD_CASES)} == set(PLANTED)
    for law in gate_laws("planted", GOOD_CASES):
        law()


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_breaks_its_law(name: str) -> None:
    (law,) = (law for law in gate_laws("planted", PLANTED[name]) if law.name == name)
    with pytest.raises(AssertionError, match=f'planted breaks the law "{name}"'):
        law()
