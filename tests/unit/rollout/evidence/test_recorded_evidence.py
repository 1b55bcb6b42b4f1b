"""Evidence folded from recorded sequences: the numbers and verdicts of `recorded_evidence.json`, at every look.

`python test_recorded_evidence.py` in this folder writes the file anew; do so only when behaviour is meant to change.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from holdfast.records import DAY_US, HOUR_US, MINUTE_US, Arm
from holdfast.rollout import (
    Canary,
    MetricState,
    RequestOutcome,
    Shadow,
    begin,
    begin_step,
    fold_requests,
    fold_scores,
    freeze_levels,
)
from holdfast.rollout.decision.decide import judged
from holdfast.rollout.decision.post_promotion import begin_rate, fold_rate, next_periods
from holdfast.rollout.evidence import shadow
from holdfast.rollout.evidence.evidence import begin_bake, interval_of, requests_of
from holdfast.rollout.evidence.records import SliceEvidence, points_of, record_point
from holdfast.rollout.evidence.shadow import ComparedRow, LabelledPair, Pair
from holdfast.rollout.evidence.slices import rank_slices
from holdfast.rollout.evidence.verdict import judge, judge_all

RECORDED = Path(__file__).with_name("recorded_evidence.json")
Look = dict[str, object]
WORLDS = {
    "good": {"failing": 0.01, "slow": 0.02, "loss": 0.0, "later": 0.0},
    "failing": {"failing": 0.06, "slow": 0.02, "loss": 0.0, "later": 0.0},
    "slow": {"failing": 0.01, "slow": 0.30, "loss": 0.0, "later": 0.0},
    "worse": {"failing": 0.01, "slow": 0.02, "loss": 0.25, "later": 0.0},
    "harder": {"failing": 0.01, "slow": 0.02, "loss": 0.0, "later": 0.15},
}


def shown(state: MetricState) -> Look:
    what, interval = interval_of(state)
    return {
        "metric": state.metric,
        "units": [state.challenger_units, state.champion_units],
        "totals": [state.challenger_total, state.champion_total],
        "log_e": [state.log_e, state.log_bound],
        "step_units": state.step_units,
        "warning": state.has_warned,
        "latency_bound_us": state.latency_bound_us,
        "interval": [what, str(interval)],
        "points": [len(points_of(state)), *points_of(state)[-1:]],
    }


def look(states: Sequence[MetricState], policy: Canary) -> Look:
    verdicts, harm = judged(states, policy)
    of_slices = [state for state in states if isinstance(state.evidence, SliceEvidence)]
    return {
        "metrics": [shown(state) for state in states],
        "verdicts": [[each.metric, str(each.verdict), each.units, each.needed, bool(each.wanting)] for each in verdicts],
        "harm": bool(harm),
        "requests": list(requests_of(states)),
        "slices": [
            [each.name, each.metric, each.counts.challenger_units, each.counts.champion_units, each.log_e, each.log_bound]
            for state in of_slices
            for each in rank_slices(state.evidence, state.log_bound)
        ],
    }  # fmt: skip


def window(rng: Random, world: dict[str, float], challenger: float, at: int) -> list[RequestOutcome]:
    requests = []
    for number in range(40):
        draw, unit = rng.random(), rng.randrange(400) if rng.random() < 0.5 else 1000 * at + number
        arm = Arm.CHALLENGER if rng.random() < challenger else Arm.CHAMPION
        if rng.random() < 0.02:
            arm = Arm.FALLBACK
        ours = arm is Arm.CHALLENGER
        failed = draw < (world["failing"] if ours else 0.01)
        latency_us = 40_000.0 if rng.random() < (world["slow"] if ours else 0.02) else 900.0
        named = () if failed else (f"carrier=C{rng.randrange(6)}",)
        requests.append(RequestOutcome(str(unit).encode(), arm, failed, latency_us, named))
    return requests


def scores(rng: Random, mean: float, count: int) -> list[float]:
    return [min(1.0, max(0.0, mean + 0.3 * (rng.random() - 0.5))) for _ in range(count)]


def canary(world: dict[str, float], policy: Canary, seed: int) -> list[Look]:
    """Ten windows at each of two shares, ten alone, and thirty of the time after the promotion."""
    rng, looks = Random(seed), []
    states = begin(policy, 0.02)
    for at in range(60):
        if at == 10:
            states = begin_step(states)
        if at == 20:
            states = freeze_levels(begin_step(states), policy)
        if at == 30:
            states = begin_bake(states, policy)
        minute_start_us = at // 2 * MINUTE_US
        late = at >= 20 and at % 7 == 0
        share = 0.3 if at < 20 or late else 1.0
        states = fold_requests(states, window(rng, world, share, at), minute_start_us)
        mean = 0.8 - (world["later"] if at >= 30 else 0.0)
        ours = scores(rng, mean - world["loss"], rng.randrange(40))
        theirs = scores(rng, mean, rng.randrange(60)) if share < 1.0 else []
        states = tuple(
            fold_scores(state, ours, theirs, minute_start_us, since_us=at % 3 * HOUR_US)
            if state.metric == "quality"
            else state
            for state in states
        )
        states = tuple(record_point(state, at * 30_000_000) for state in states)
        if at % 10 == 9:
            looks.append(look(states, policy))
    return looks


def copies(seed: int, policy: Canary) -> list[Look]:
    rng, looks = Random(seed), []
    states = shadow.begin(policy, 0.02)
    for at in range(20):
        pairs = []
        for _ in range(10):
            unit, result = str(rng.randrange(150)).encode(), "ok" if rng.random() < 0.93 else "exception"
            theirs = rng.random()
            row = ComparedRow(
                min(1.0, theirs + 0.1 * rng.random()), theirs, (f"carrier=C{rng.randrange(3)}",)
            )
            timed = 900.0 + 30_000.0 * (rng.random() < 0.1)
            pairs.append(
                Pair(unit, result, rng.random() < 0.02, (row,) if result == "ok" else (), timed, 950.0)
            )
        states = shadow.fold_pairs(states, pairs)
        labelled = [
            LabelledPair(str(rng.randrange(90)).encode(), 0.6 * rng.random(), rng.random()) for _ in range(5)
        ]
        states = shadow.fold_labelled(states, labelled)
        verdicts = [
            [each.metric, str(each.verdict), each.units, each.needed] for each in judge_all(states, policy)
        ]
        slices = [
            [each.name, each.units, each.disagreement, each.shift] for each in shadow.rank_slices(states)
        ]
        if at % 5 == 4:
            looks.append(
                {"metrics": [shown(state) for state in states], "verdicts": verdicts, "slices": slices}
            )
    return looks


def rates(factor: float, policy: Canary) -> list[Look]:
    state, looks, rng = begin_rate(policy, 9 * DAY_US + 1), [], Random(4)
    assert state is not None
    for _ in range(30):
        due = next_periods(state, history_us=0, known_at_us=11 * DAY_US)
        assert due is not None
        state = fold_rate(
            state, due, after=int(factor * (500 + rng.randrange(90))), before=500 + rng.randrange(90)
        )
        looks.append(
            shown(state)
            | {"due": [due.after_us, due.before_us, due.us], "judged": str(judge(state, policy).verdict)}
        )
    return looks  # fmt: skip


def record() -> dict[str, list[Look]]:
    policy = Canary(units_per_step=50, labels_per_step=10, slices=("carrier",), quality_margin=0.0)
    found = {f"{name} {seed}": canary(world, policy, seed) for name, world in WORLDS.items() for seed in (1,)}
    found["no latency"] = canary(WORLDS["failing"], replace(policy, latency_quantile=None, slices=()), 3)
    found["copies"] = copies(5, Canary(shadow=Shadow(units=60, disagreement=0.1)))
    found["copies, none tolerated"] = copies(6, Canary(shadow=Shadow(units=60, disagreement=0.0)))
    found["rate"] = rates(1.0, policy)
    found["rate halved"] = rates(0.4, policy)
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]  # as the file has it


def same(found: object, wanted: object) -> bool:
    """Equal, but for the last digits of floating point, which differ between processors."""
    if isinstance(wanted, float) and isinstance(found, float):
        return found == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, dict) and isinstance(found, dict):
        return found.keys() == wanted.keys() and all(same(found[key], wanted[key]) for key in wanted)
    return found == wanted


def test_recorded_sequences_show_what_they_showed() -> None:
    found, wanted = record(), json.loads(RECORDED.read_text())
    assert found.keys() == wanted.keys()
    for name, looks in wanted.items():
        for at, each in enumerate(looks):
            assert same(found[name][at], each), f"{name}, look {at}"


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(record(), separators=(",", ":")) + "\n")
