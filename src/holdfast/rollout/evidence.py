"""What is known about a running rollout: counts as they happened, and the sequential test of each metric.

Three metrics: "errors" (a unit whose request the challenger could not answer, against the champion's),
"latency" (a unit slower than a bound that was frozen from the champion's own latency before the canary began)
and "quality" (scores in [0, 1], from labels that come late). Counts are realised ones; a configured share is
never used as if it had happened, because a share of 12 % where 10 % was configured already looks like harm.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from holdfast.errors import InputError
from holdfast.records import Arm, canonical_json
from holdfast.rollout.policy import Canary
from holdfast.stats import BettingTest, HypergeometricTest

ERRORS: Final = "errors"
LATENCY: Final = "latency"
QUALITY: Final = "quality"

REMEMBERED_UNITS: Final = 1024
"""How many bad units are remembered per metric, the newest ones."""


@dataclass(frozen=True, slots=True)
class MetricState:
    """One metric of one rollout: realised counts of both arms, and how strong the evidence of harm is.

    `*_total` is the number of bad units, or the sum of scores. `log_e` is the natural logarithm of the
    largest e-value reached, `log_bound` the one at which harm is declared. `state` is JSON: the test's own
    state, the counts at which the current step began, and what the metric must remember.
    """

    metric: str
    challenger_units: int
    challenger_total: float
    champion_units: int
    champion_total: float
    log_e: float
    log_bound: float
    state: str

    @property
    def harmful(self) -> bool:
        """Whether harm is shown. Once it is, it stays so."""
        return self.log_e >= self.log_bound

    @property
    def challenger_units_this_step(self) -> int:
        """The challenger's units since the current step began."""
        return self.challenger_units - int(json.loads(self.state)["step_from"])

    @property
    def latency_bound_us(self) -> float | None:
        """Above which latency a request is slow, in microseconds; None for the other metrics."""
        bound = json.loads(self.state).get("latency_bound_us")
        return None if bound is None else float(bound)


@dataclass(frozen=True, slots=True)
class Answered:
    """One request as the canary sees it.

    `unit` is what was randomised, `arm` where it was sent (a challenger that failed was sent there, whoever
    answered), `failed` whether that arm could not answer. A request that was refused because it was malformed
    is no evidence about either version: leave it out.
    """

    unit: bytes
    arm: Arm
    failed: bool
    latency_us: float


def begin(policy: Canary, latency_bound_seconds: float | None) -> tuple[MetricState, ...]:
    """No evidence yet: one state per metric of `policy`.

    `latency_bound_seconds` is frozen here for the whole rollout. `InputError` HF401 when the policy judges
    latency and there is no bound.

    >>> [state.metric for state in begin(Canary(), 0.020)]
    ['errors', 'latency', 'quality']
    """
    states = []
    for metric in policy.metrics:
        memory: dict[str, Any] = {"step_from": 0}
        if metric == QUALITY:
            memory["test"] = BettingTest.begin(policy.quality_margin).state()
        else:
            margin = policy.error_margin if metric == ERRORS else policy.latency_margin
            memory |= {"test": HypergeometricTest.begin(margin).state(), "bad_units": []}
        if metric == LATENCY:
            if latency_bound_seconds is None:
                raise InputError(
                    "HF401", "latency is judged, and no bound was frozen from the champion's latency"
                )
            memory["latency_bound_us"] = latency_bound_seconds * 1e6
        states.append(MetricState(metric, 0, 0.0, 0, 0.0, 0.0, policy.log_bound, canonical_json(memory)))
    return tuple(states)


def fold_counts(
    state: MetricState, *, challenger_units: int, challenger_bad: int, champion_units: int, champion_bad: int
) -> MetricState:
    """`state` of "errors" or "latency" after one more window; count each unit of randomisation once per
    window.

    >>> errors = begin(Canary(), 0.020)[0]
    >>> after = fold_counts(errors, challenger_units=50, challenger_bad=9, champion_units=450, champion_bad=2)
    >>> after.harmful, after.challenger_units, after.champion_total
    (True, 50, 2.0)
    """
    memory = json.loads(state.state)
    test = HypergeometricTest.from_state(memory["test"]).fold(
        challenger_units=challenger_units,
        challenger_bad=challenger_bad,
        champion_units=champion_units,
        champion_bad=champion_bad,
    )
    return _advanced(
        state,
        memory | {"test": test.state()},
        (challenger_units, challenger_bad, champion_units, champion_bad),
        test.log_e,
    )


def fold_scores(
    state: MetricState, challenger_scores: Sequence[float], champion_scores: Sequence[float]
) -> MetricState:
    """`state` of "quality" after more labelled answers, each list in the order of time, scores in [0, 1].

    >>> quality = begin(Canary(), 0.020)[2]
    >>> fold_scores(quality, [0.5], [0.9, 0.8]).champion_units
    2
    """
    memory = json.loads(state.state)
    test = BettingTest.from_state(memory["test"]).fold(challenger_scores, champion_scores)
    counts = (len(challenger_scores), sum(challenger_scores), len(champion_scores), sum(champion_scores))
    return _advanced(state, memory | {"test": test.state()}, counts, test.log_e)


def fold_requests(states: Sequence[MetricState], window: Iterable[Answered]) -> tuple[MetricState, ...]:
    """All metrics after one window of requests: "errors" and "latency" change, "quality" is handed through.

    A unit counts once per window and is bad when any of its requests was. A unit that was bad in an earlier
    window is no longer at risk and counts no more, in either arm: a session that fails at every click is one
    failure, not many. This is the log-rank test's first event per unit, and it keeps the guarantee for
    whoever comes back. The newest `REMEMBERED_UNITS` bad units are remembered.

    >>> states = begin(Canary(), 0.020)
    >>> window = [Answered(b"s1", Arm.CHALLENGER, True, 900.0)] * 5
    >>> window += [Answered(b"s2", Arm.CHAMPION, False, 900.0)]
    >>> errors = fold_requests(fold_requests(states, window), window)[0]
    >>> errors.challenger_units, errors.challenger_total, errors.champion_units
    (1, 1.0, 2)
    """
    requests = tuple(window)
    return tuple(state if state.metric == QUALITY else _fold_units(state, requests) for state in states)


def begin_step(states: Sequence[MetricState]) -> tuple[MetricState, ...]:
    """The same evidence at the start of a new step: what this step must show counts from here."""
    return tuple(
        replace(state, state=canonical_json(json.loads(state.state) | {"step_from": state.challenger_units}))
        for state in states
    )


def score(probability: float, label: float) -> float:
    """How good a probability was, once the label is known: 1 - (label - probability)², 1 is best.

    The mean of the square is the Brier score, which only honest probabilities minimise. Source: G. W. Brier,
    Mon. Weather Rev. 78 (1950), doi 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    >>> score(0.5, 1.0)
    0.75
    """
    return 1.0 - (label - probability) ** 2


def _fold_units(state: MetricState, requests: Sequence[Answered]) -> MetricState:
    memory = json.loads(state.state)
    known_bad = set(memory["bad_units"])
    bound_us = memory.get("latency_bound_us")
    bad_by_unit: dict[Arm, dict[str, bool]] = {Arm.CHALLENGER: {}, Arm.CHAMPION: {}}
    for request in requests:
        unit = request.unit.hex()
        units = bad_by_unit.get(request.arm)
        if units is None or unit in known_bad:
            continue
        bad = request.failed if bound_us is None else request.latency_us > bound_us
        units[unit] = units.get(unit, False) or bad
    challenger, champion = bad_by_unit[Arm.CHALLENGER], bad_by_unit[Arm.CHAMPION]
    folded = fold_counts(
        state,
        challenger_units=len(challenger),
        challenger_bad=sum(challenger.values()),
        champion_units=len(champion),
        champion_bad=sum(champion.values()),
    )
    newly_bad = [unit for units in (challenger, champion) for unit, bad in units.items() if bad]
    remembered = [*memory["bad_units"], *newly_bad][-REMEMBERED_UNITS:]
    return replace(folded, state=canonical_json(json.loads(folded.state) | {"bad_units": remembered}))


def _advanced(
    state: MetricState, memory: Mapping[str, Any], counts: tuple[int, float, int, float], log_e: float
) -> MetricState:
    return replace(
        state,
        challenger_units=state.challenger_units + counts[0],
        challenger_total=state.challenger_total + counts[1],
        champion_units=state.champion_units + counts[2],
        champion_total=state.champion_total + counts[3],
        log_e=log_e,
        state=canonical_json(memory),
    )
