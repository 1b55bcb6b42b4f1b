"""What is known about a running rollout: counts as they happened, and the sequential test of each metric.

Three metrics: "errors" (a unit whose request the challenger could not answer, against the champion's),
"latency" (a unit slower than a bound that was frozen from the champion's own latency before the canary began)
and "quality" (scores in [0, 1], from labels that come late). Counts are realised ones; a configured share is
never used as if it had happened, because a share of 12 % where 10 % was configured already looks like harm.

Once the challenger has everything, nobody is left to compare it with. From then on each metric is watched: what
the challenger does alone is held to a level that was frozen from all that the champion showed before. Both tests
bet one after the other with one wealth, so what was earned against the champion counts on.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from holdfast.errors import InputError
from holdfast.records import Arm, canonical_json, sha256_hex
from holdfast.rollout.policy import Canary
from holdfast.stats import BettingTest, DiscordantTest, HypergeometricTest, Interval, LevelTest, upper_level

ERRORS: Final = "errors"
LATENCY: Final = "latency"
QUALITY: Final = "quality"

REMEMBERED_UNITS: Final = 1024
"""How many bad units are remembered per metric, the newest ones."""

_HASH_DIGITS: Final = 8  # of a unit's hash, to tell the units of one step apart


@dataclass(frozen=True, slots=True)
class MetricState:
    """One metric of one rollout: realised counts of both arms, and how strong the evidence of harm is.

    `*_total` is the number of bad units, or the sum of scores. `log_e` is the natural logarithm of the
    largest e-value reached, `log_bound` the one at which harm is declared. `state` is JSON: the tests' own
    state, the units of the current step, and what the metric must remember.
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
        """The challenger's different units since the current step began, counted until the step has enough."""
        return int(json.loads(self.state)["step_units"])

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


def begin(policy: Canary, quantile_seconds: float | None) -> tuple[MetricState, ...]:
    """No evidence yet: one state per metric of `policy`.

    `quantile_seconds` is the champion's `latency_quantile`; with the policy's tolerance upon it, it is frozen here as the
    bound for the whole rollout. `InputError` HF401 when the policy judges latency and there is none.

    >>> [state.metric for state in begin(Canary(), 0.020)]
    ['errors', 'latency', 'quality']
    """
    states = []
    for metric in policy.metrics:
        memory: dict[str, Any] = {"step_units": 0}
        if metric == QUALITY:
            memory["test"] = BettingTest.begin(policy.quality_margin).state()
        else:
            margin = policy.error_margin if metric == ERRORS else policy.latency_margin
            memory |= {"test": HypergeometricTest.begin(margin).state(), "bad_units": []}
            memory |= {"step_seen": "", "step_needs": policy.units_per_step}
        if metric == LATENCY:
            if quantile_seconds is None:
                raise InputError(
                    "HF401", "latency is judged, and no bound was frozen from the champion's latency"
                )
            memory["latency_bound_us"] = policy.latency_tolerance * quantile_seconds * 1e6
        log_bound = policy.log_bound_of(metric)
        states.append(MetricState(metric, 0, 0.0, 0, 0.0, 0.0, log_bound, canonical_json(memory)))
    return tuple(states)


def fold_counts(
    state: MetricState, *, challenger_units: int, challenger_bad: int, champion_units: int, champion_bad: int
) -> MetricState:
    """`state` of "errors" or "latency" after one more window; count each unit of randomisation once per
    window. Without their names, the units of all windows are taken for different ones.

    >>> errors = begin(Canary(), 0.020)[0]
    >>> after = fold_counts(errors, challenger_units=50, challenger_bad=9, champion_units=450, champion_bad=2)
    >>> after.harmful, after.challenger_units, after.champion_total
    (True, 50, 2.0)
    """
    memory = json.loads(state.state)
    counts = (challenger_units, challenger_bad, champion_units, champion_bad)
    return _fold_window(state, memory | {"step_units": memory["step_units"] + challenger_units}, counts)


def fold_scores(
    state: MetricState, challenger_scores: Sequence[float], champion_scores: Sequence[float]
) -> MetricState:
    """`state` of "quality" after more labelled answers, each list in the order of time, scores in [0, 1].

    >>> quality = begin(Canary(), 0.020)[2]
    >>> fold_scores(quality, [0.5], [0.9, 0.8]).champion_units
    2
    """
    memory = json.loads(state.state)
    test = BettingTest.from_state(memory["test"])
    ours = (*test.waiting_challenger, *challenger_scores)
    if "watch" in memory and ours and not (champion_scores or test.waiting_champion):
        watch = LevelTest.from_state(memory["watch"]).fold_losses([1.0 - each for each in ours])
        test = replace(test, waiting_challenger=())
        memory["watch"] = watch.state()
    else:
        test = test.fold(challenger_scores, champion_scores)
    counts = (len(challenger_scores), sum(challenger_scores), len(champion_scores), sum(champion_scores))
    memory |= {"test": test.state(), "step_units": memory["step_units"] + len(challenger_scores)}
    return _advanced(state, memory, counts, test)


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
    return tuple(_remembering(state, {"step_units": 0, "step_seen": ""}) for state in states)


def begin_watch(states: Sequence[MetricState], policy: Canary) -> tuple[MetricState, ...]:
    """The same evidence when the challenger gets everything: from here on, what it does while the champion does
    nothing is held to the champion's level, frozen now. States that are watched already are handed through.

    The level is an upper bound on the champion's share of bad units (its mean loss of score), with the margin
    of the policy upon it. Where the champion has shown nothing, nothing can be held against the challenger;
    such a metric is inconclusive.

    >>> errors, *_ = begin(Canary(), 0.020)
    >>> errors = fold_counts(errors, challenger_units=400, challenger_bad=4, champion_units=3600, champion_bad=36)
    >>> (errors,) = begin_watch([errors], Canary())
    >>> alone = dict(champion_units=0, champion_bad=0)
    >>> fold_counts(errors, challenger_units=50, challenger_bad=1, **alone).harmful
    False
    >>> fold_counts(errors, challenger_units=50, challenger_bad=9, **alone).harmful
    True
    """
    return tuple(
        state
        if "watch" in json.loads(state.state)
        else _remembering(state, {"watch": LevelTest.begin(_level(state, policy)).state()})
        for state in states
    )


def interval_of(state: MetricState) -> tuple[str, Interval | None]:
    """What of the two arms is compared, in words, and its interval at 95 %, which may be read at every look; nothing where
    nothing can be said.

    The "odds ratio" is the challenger's odds of a bad unit over the champion's; "mean score" and "mean probability" are
    the challenger's less the champion's. While the challenger is alone, it stays as it was.

    >>> interval_of(begin(Canary(), 0.020)[0])
    ('', None)
    """
    if min(state.challenger_units, state.champion_units) == 0:
        return "", None
    kept = json.loads(state.state).get("test", {})
    match str(kept.get("kind")).partition("-")[0]:
        case "hypergeometric":
            return "odds ratio", HypergeometricTest.from_state(kept).interval()
        case "discordant":
            return "odds ratio", DiscordantTest.from_state(kept).interval()
        case "betting":
            what = "mean probability" if state.metric == "shadow.score" else "mean score"
            return what, BettingTest.from_state(kept).interval()
        case _:
            return "", None


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
    newly_bad = [unit for units in (challenger, champion) for unit, bad in units.items() if bad]
    memory |= _different(memory, challenger)
    memory["bad_units"] = [*memory["bad_units"], *newly_bad][-REMEMBERED_UNITS:]
    counts = (len(challenger), sum(challenger.values()), len(champion), sum(champion.values()))
    return _fold_window(state, memory, counts)


def _different(memory: Mapping[str, Any], units: Collection[str]) -> dict[str, Any]:
    """The units of this step after `units`, each once however many windows it comes back in.

    Only as many are remembered as the step needs; when it has them, nobody asks any more.
    """
    count, known, needed = memory["step_units"], memory["step_seen"], memory["step_needs"]
    if count >= needed:
        return {}
    seen = {known[at : at + _HASH_DIGITS] for at in range(0, len(known), _HASH_DIGITS)}
    new = sorted({sha256_hex(unit)[:_HASH_DIGITS] for unit in units} - seen)
    count += len(new)
    return {"step_units": count, "step_seen": "" if count >= needed else known + "".join(new)}


def _fold_window(
    state: MetricState, memory: Mapping[str, Any], counts: tuple[int, int, int, int]
) -> MetricState:
    challenger_units, challenger_bad, champion_units, champion_bad = counts
    test = HypergeometricTest.from_state(memory["test"])
    if "watch" in memory and champion_units == 0:
        watch = LevelTest.from_state(memory["watch"]).fold_counts(units=challenger_units, bad=challenger_bad)
        return _advanced(state, {**memory, "watch": watch.state()}, counts, test)
    test = test.fold(
        challenger_units=challenger_units,
        challenger_bad=challenger_bad,
        champion_units=champion_units,
        champion_bad=champion_bad,
    )
    return _advanced(state, {**memory, "test": test.state()}, counts, test)


def _level(state: MetricState, policy: Canary) -> float:
    """The share of bad units, or the mean loss of score, that the challenger is held to when it is alone."""
    alpha = policy.level_alpha_of(state.metric)
    if state.metric == QUALITY:
        loss = max(0.0, state.champion_units - state.champion_total)
        return min(1.0, upper_level(loss, state.champion_units, alpha) + policy.quality_margin)
    share = upper_level(state.champion_total, state.champion_units, alpha)
    margin = policy.error_margin if state.metric == ERRORS else policy.latency_margin
    return margin * share / (1.0 - share + margin * share)


def _remembering(state: MetricState, more: Mapping[str, Any]) -> MetricState:
    return replace(state, state=canonical_json(json.loads(state.state) | more))


def _advanced(
    state: MetricState,
    memory: Mapping[str, Any],
    counts: tuple[int, float, int, float],
    test: HypergeometricTest | BettingTest,
) -> MetricState:
    log_e = test.log_e
    if "watch" in memory:  # the wealth of the comparison is what the watch began with
        log_e = test.log_e + LevelTest.from_state(memory["watch"]).log_e
    return replace(
        state,
        challenger_units=state.challenger_units + counts[0],
        challenger_total=state.challenger_total + counts[1],
        champion_units=state.champion_units + counts[2],
        champion_total=state.champion_total + counts[3],
        log_e=max(state.log_e, log_e),
        state=canonical_json(memory),
    )
