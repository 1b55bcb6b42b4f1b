"""What is known about a running rollout: counts as they happened, and the sequential test of each metric.

"errors" is a unit whose request the challenger could not answer, against the champion's; "latency" a unit slower than a
bound that was frozen from the champion's own latency before the canary began; "quality" scores in [0, 1], from labels that
come late; "slices" the first two again, in each slice of the requests for itself. Counts are realised ones; a configured
share is never used as if it had happened, because a share of 12 % where 10 % was configured already looks like harm.

Once the challenger has everything, nobody is left to compare it with. From then on what it does alone is held, for each
metric, to a level that was frozen from all that the champion showed before. Both tests bet one after the other with one
wealth, so what was earned against the champion counts on. A promotion is watched by detectors (`comparison` says why).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from holdfast.errors import InputError
from holdfast.records import Arm, canonical_json
from holdfast.rollout.evidence import comparison, slices
from holdfast.rollout.evidence.comparison import Counts
from holdfast.rollout.model import metric as metrics
from holdfast.rollout.model.metric import ERRORS, LATENCY, QUALITY, SLICES, Answered, MetricState
from holdfast.rollout.model.policy import Canary
from holdfast.rollout.model.unit_memory import name_of, names_in
from holdfast.stats import BettingTest, DiscordantTest, HypergeometricTest, Interval, upper_level

__all__ = [
    "ERRORS",
    "LATENCY",
    "QUALITY",
    "SLICES",
    "Answered",
    "MetricState",
    "begin",
    "begin_step",
    "begin_watch",
    "fold_counts",
    "fold_requests",
    "fold_scores",
    "hold_to_levels",
    "interval_of",
    "requests_of",
    "score",
]

REMEMBERED_UNITS: Final = 1024
"""How many bad units are remembered per metric, the newest ones."""

WAITING_SCORES: Final = 2_048
"""How many scores wait for those of the other arm, over all strata."""


def begin(policy: Canary, quantile_seconds: float | None) -> tuple[MetricState, ...]:
    """No evidence yet: one state per metric of `policy`.

    `quantile_seconds` is the champion's `latency_quantile`; with what the policy tolerates upon it, it is frozen here as
    the bound for the whole rollout. `InputError` HF401 when the policy judges latency and there is none.

    >>> [state.metric for state in begin(Canary(), 0.020)]
    ['errors', 'latency', 'quality']
    """
    if quantile_seconds is None and policy.latency_quantile is not None:
        raise InputError("HF401", "latency is judged, and no bound was frozen from the champion's latency")
    bound_us = None if quantile_seconds is None else policy.latency_bound_us(quantile_seconds)
    return tuple(
        MetricState(
            name,
            *(0, 0.0, 0, 0.0, 0.0),
            log_bound=policy.log_bound_of(name),
            state=canonical_json({"step_units": 0, **_begun(name, policy, bound_us)}),
        )
        for name in policy.metrics
    )


def _begun(name: str, policy: Canary, bound_us: float | None) -> dict[str, Any]:
    """What a metric remembers before it has seen anything."""
    if name == QUALITY:
        return {"test": BettingTest.begin(policy.quality_margin).state()}
    margins = {ERRORS: policy.error_margin, LATENCY: policy.latency_margin}
    if name == SLICES:
        judged = {kind: margins[kind] for kind in policy.metrics if kind in margins}
        seen = {"step_seen": "", "step_needs": policy.units_per_step, slices.COLUMNS_SEEN: []}
        return slices.begin(judged, bound_us) | seen
    memory = comparison.begin(margins[name])
    memory |= {"bad_units": [], "step_seen": "", "step_needs": policy.units_per_step}
    return memory | ({"latency_bound_us": bound_us} if name == LATENCY else {})


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
    memory |= {"step_units": memory["step_units"] + challenger_units}
    return _fold_window(
        state, memory, Counts(challenger_units, challenger_bad, champion_units, champion_bad), 0
    )


def fold_scores(
    state: MetricState,
    challenger_scores: Sequence[float],
    champion_scores: Sequence[float],
    minute_us: int = 0,
    *,
    since_us: int = 0,
) -> MetricState:
    """`state` of "quality" after more labelled answers of one stratum, each list in the order of time, scores in [0, 1].

    `minute_us` is when the minute began in which their labels were joined, `since_us` when the stratum began
    (`rollout.evidence.strata`). Scores of one arm wait until the other has some in the same stratum; scores of different
    strata are never compared. The newest `WAITING_SCORES` wait, those of the oldest strata are dropped.

    >>> quality = begin(Canary(), 0.020)[2]
    >>> fold_scores(quality, [0.5], [0.9, 0.8]).champion_units
    2
    """
    memory = json.loads(state.state)
    waiting = memory.setdefault("waiting", {})
    ours, theirs = waiting.pop(str(since_us), ([], []))
    test = replace(
        BettingTest.from_state(memory["test"]), waiting_challenger=tuple(ours), waiting_champion=tuple(theirs)
    )
    alone = [*ours, *challenger_scores]
    if comparison.LEVEL in memory and alone and not (champion_scores or theirs):
        memory = comparison.fold_losses(memory, [1.0 - each for each in alone], minute_us)
    else:
        test = test.fold(challenger_scores, champion_scores)
        if test.waiting_challenger or test.waiting_champion:
            waiting[str(since_us)] = [list(test.waiting_challenger), list(test.waiting_champion)]
        memory["test"] = replace(test, waiting_challenger=(), waiting_champion=()).state()
        memory["waiting"] = _newest(waiting)
    memory["step_units"] += len(challenger_scores)
    totals = (len(challenger_scores), sum(challenger_scores), len(champion_scores), sum(champion_scores))
    return _advanced(state, memory, totals, comparison.log_e_of(memory, state.log_bound))


def fold_requests(
    states: Sequence[MetricState], window: Iterable[Answered], minute_us: int = 0
) -> tuple[MetricState, ...]:
    """All metrics after one window of requests, which lies in the minute that begins at `minute_us`: "quality" is handed
    through.

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
    after = []
    for state in states:
        match state.metric:
            case metrics.ERRORS | metrics.LATENCY:
                after.append(_fold_units(state, requests, minute_us))
            case metrics.SLICES:
                after.append(_fold_slices(state, requests, minute_us))
            case _:
                after.append(state)
    return tuple(after)


def begin_step(states: Sequence[MetricState]) -> tuple[MetricState, ...]:
    """The same evidence at the start of a new step: what this step must show counts from here."""
    begun: dict[str, Any] = {"step_units": 0, "step_seen": ""}
    of_slices = begun | {slices.COLUMNS_SEEN: []}
    return tuple(_remembering(state, of_slices if state.metric == SLICES else begun) for state in states)


def hold_to_levels(states: Sequence[MetricState], policy: Canary) -> tuple[MetricState, ...]:
    """The same evidence when the challenger gets everything: from here on, what it does while the champion does
    nothing is held to the champion's level, frozen now. States that are held to one already are handed through.

    The level is an upper bound on the champion's share of bad units (its mean loss of score), with the margin
    of the policy upon it. Where the champion has shown nothing, nothing can be held against the challenger;
    such a metric is inconclusive.

    >>> errors, *_ = begin(Canary(), 0.020)
    >>> errors = fold_counts(errors, challenger_units=400, challenger_bad=4, champion_units=3600, champion_bad=36)
    >>> (errors,) = hold_to_levels([errors], Canary())
    >>> alone = dict(champion_units=0, champion_bad=0)
    >>> fold_counts(errors, challenger_units=50, challenger_bad=1, **alone).harmful
    False
    >>> fold_counts(errors, challenger_units=50, challenger_bad=9, **alone).harmful
    True
    """
    return tuple(_held(state, policy) for state in states)


def begin_watch(states: Sequence[MetricState], policy: Canary) -> tuple[MetricState, ...]:
    """The same evidence when the challenger was promoted: from here on detectors watch against the levels that were frozen,
    and what the watch must have seen counts from here. Labels of the canary's answers, which may come days later, are
    compared as before.

    Guarantee: over a watch of `policy.watch`, a version within its levels raises an alarm with probability of about
    `policy.alpha` at most, beside that of the canary; the levels are right but for `LevelTest`'s assumption. That of the
    mean score has `policy.bake_quality_margin` upon it; a second detector without it only tells.
    """
    minutes = max(2.0, policy.bake_us / 60e6)
    after = []
    for state in begin_step(states):
        memory = json.loads(state.state)
        run_length = minutes / policy.alpha_of(state.metric)
        if state.metric == SLICES:
            memory = slices.begin_detectors(memory, run_length)
        elif comparison.LEVEL in memory:
            memory = comparison.begin_detector(memory, run_length)
            if "told_level" in memory:
                memory = comparison.begin_told(memory, memory["told_level"], run_length)
        after.append(replace(state, state=canonical_json(memory)))
    return tuple(after)


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
            what = "mean probability" if state.metric == metrics.SHADOW_SCORE else "mean score"
            return what, BettingTest.from_state(kept).interval()
        case _:
            return "", None


def requests_of(states: Sequence[MetricState]) -> tuple[int, int]:
    """How many requests the challenger was sent, and how many of them it could not answer.

    >>> requests_of(begin(Canary(), 0.020))
    (0, 0)
    """
    for state in states:
        if state.metric == ERRORS:
            memory = json.loads(state.state)
            return int(memory.get("requests", 0)), int(memory.get("failed", 0))
    return 0, 0


def score(probability: float, label: float) -> float:
    """How good a probability was, once the label is known: 1 - (label - probability)², 1 is best.

    The mean of the square is the Brier score, which only honest probabilities minimise. Source: G. W. Brier,
    Mon. Weather Rev. 78 (1950), doi 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    >>> score(0.5, 1.0)
    0.75
    """
    return 1.0 - (label - probability) ** 2


def _newest(waiting: Mapping[str, list[list[float]]]) -> dict[str, list[list[float]]]:
    """The newest strata of `waiting`, as many as have no more than `WAITING_SCORES` scores together."""
    kept, total = {}, 0
    for since, scores in sorted(waiting.items(), key=lambda each: -int(each[0])):
        total += sum(map(len, scores))
        if total > WAITING_SCORES:
            break
        kept[since] = scores
    return kept


def _fold_units(state: MetricState, requests: Sequence[Answered], minute_us: int) -> MetricState:
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
    ours = [request for request in requests if request.arm is Arm.CHALLENGER]
    memory["requests"] = memory.get("requests", 0) + len(ours)
    memory["failed"] = memory.get("failed", 0) + sum(request.failed for request in ours)
    memory["bad_units"] = [*memory["bad_units"], *newly_bad][-REMEMBERED_UNITS:]
    counts = Counts(len(challenger), sum(challenger.values()), len(champion), sum(champion.values()))
    return _fold_window(state, memory, counts, minute_us)


def _fold_slices(state: MetricState, requests: Sequence[Answered], minute_us: int) -> MetricState:
    folded = slices.fold(json.loads(state.state), requests, state.log_bound, minute_us)
    ours = [each for each in requests if each.arm is Arm.CHALLENGER and each.slices]
    memory = folded.memory | _different(folded.memory, {each.unit.hex() for each in ours})
    columns = {slices.column_of(name) for each in ours for name in each.slices}
    memory[slices.COLUMNS_SEEN] = sorted(columns.union(memory.get(slices.COLUMNS_SEEN, ())))
    return _advanced(state, memory, _totals(folded.counts), folded.log_e)


def _different(memory: Mapping[str, Any], units: Collection[str]) -> dict[str, Any]:
    """The units of this step after `units`, each once however many windows it comes back in.

    Only as many are remembered as the step needs; when it has them, nobody asks any more.
    """
    if "step_needs" not in memory:  # slices, as an older release began them
        return {"step_units": memory["step_units"] + len(units)}
    count, known, needed = memory["step_units"], memory["step_seen"], memory["step_needs"]
    if count >= needed:
        return {}
    new = sorted({name_of(unit) for unit in units} - names_in(known))
    count += len(new)
    return {"step_units": count, "step_seen": "" if count >= needed else known + "".join(new)}


def _fold_window(
    state: MetricState, memory: Mapping[str, Any], counts: Counts, minute_us: int
) -> MetricState:
    after = comparison.fold(memory, counts, minute_us)
    return _advanced(state, after, _totals(counts), comparison.log_e_of(after, state.log_bound))


def _held(state: MetricState, policy: Canary) -> MetricState:
    """`state` held to the champion's level, unless it is already."""
    memory = json.loads(state.state)
    alpha = policy.level_alpha_of(state.metric)
    match state.metric:
        case _ if comparison.LEVEL in memory or memory.get("held", False):
            return state
        case metrics.SLICES:
            memory = slices.hold_to_levels(memory, alpha) | {"held": True}
        case metrics.QUALITY:
            loss = max(0.0, state.champion_units - state.champion_total)
            told = min(1.0, upper_level(loss, state.champion_units, alpha) + policy.quality_margin)
            memory = comparison.hold_to(memory, min(1.0, told + policy.bake_quality_margin))
            memory |= {"told_level": told}
        case other:
            margin = policy.error_margin if other == ERRORS else policy.latency_margin
            level = comparison.odds_level(state.champion_total, state.champion_units, margin, alpha)
            memory = comparison.hold_to(memory, level)
    return replace(state, state=canonical_json(memory))


def _remembering(state: MetricState, more: Mapping[str, Any]) -> MetricState:
    return replace(state, state=canonical_json(json.loads(state.state) | more))


def _totals(counts: Counts) -> tuple[int, float, int, float]:
    return counts.challenger_units, counts.challenger_bad, counts.champion_units, counts.champion_bad


def _advanced(
    state: MetricState, memory: Mapping[str, Any], totals: tuple[int, float, int, float], log_e: float
) -> MetricState:
    return replace(
        state,
        challenger_units=state.challenger_units + totals[0],
        challenger_total=state.challenger_total + totals[1],
        champion_units=state.champion_units + totals[2],
        champion_total=state.champion_total + totals[3],
        log_e=max(state.log_e, log_e),
        state=canonical_json(memory),
    )
