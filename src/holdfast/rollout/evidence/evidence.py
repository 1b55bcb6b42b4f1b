"""Fold what traffic shows into the evidence of a rollout: realised counts, and the sequential test of each metric.

* "errors": a unit whose request the challenger could not answer, against the champion's.
* "latency": a unit slower than a bound that was frozen from the champion's own latency before the canary began.
* "quality": scores from 0 to 1, from labels that come late.
* "slices": the first two again, in each slice of the requests.

Counts are realised ones, never a configured share: a share of 12 % where 10 % was configured already looks like harm.

Once the challenger has all traffic, no champion is left to compare with. A level test then compares it with a level that
was frozen from the champion. Both tests bet one after the other with one wealth, so evidence against the champion counts
on. During the bake time detectors replace the level tests (see `comparison`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, assert_never

from msgspec.structs import replace

from holdfast.errors import InputError
from holdfast.records import Arm
from holdfast.rollout.evidence import comparison, slices
from holdfast.rollout.evidence.records import (
    AtLevel,
    Comparing,
    Comparison,
    Counts,
    DifferenceEvidence,
    DisagreementEvidence,
    Evidence,
    MetricState,
    PairEvidence,
    QualityEvidence,
    RateEvidence,
    RequestOutcome,
    SliceEvidence,
    UnitEvidence,
    WaitingScores,
    name_of,
    names_in,
)
from holdfast.rollout.model.metric import ERRORS, LATENCY, QUALITY, SHADOW_SCORE, SLICES
from holdfast.rollout.model.policy import Canary
from holdfast.stats import BettingTest, HypergeometricTest, Interval, upper_level

REMEMBERED_UNITS: Final = 1024
"""How many bad units are remembered per metric, the newest ones."""

WAITING_SCORES: Final = 2_048
"""How many scores wait for those of the other arm, over all strata."""


def begin(policy: Canary, quantile_seconds: float | None) -> tuple[MetricState, ...]:
    """Return one state without evidence per metric of `policy`.

    `quantile_seconds` is the champion's `latency_quantile`; with the tolerance of the policy it becomes the bound for the
    whole rollout. Raises `InputError` HF401 when the policy judges latency and there is none.

    >>> [state.metric for state in begin(Canary(), 0.020)]
    ['errors', 'latency', 'quality']
    """
    if quantile_seconds is None and policy.latency_quantile is not None:
        raise InputError("HF401", "latency is judged, and no bound was frozen from the champion's latency")
    bound_us = None if quantile_seconds is None else policy.latency_bound_us(quantile_seconds)
    return tuple(
        MetricState(
            name,
            policy.log_bound_of(name),
            _begin_metric(name, policy, bound_us),
            latency_bound_us=bound_us if name == LATENCY else None,
        )
        for name in policy.metrics
    )


def _begin_metric(name: str, policy: Canary, bound_us: float | None) -> Evidence:
    if name == QUALITY:
        return QualityEvidence(BettingTest.begin(policy.quality_margin))
    margins = {ERRORS: policy.error_margin, LATENCY: policy.latency_margin}
    if name == SLICES:
        judged = {metric: margins[metric] for metric in policy.metrics if metric in margins}
        return slices.begin(judged, bound_us, policy.units_per_step)
    return UnitEvidence(Comparison(HypergeometricTest.begin(margins[name])), policy.units_per_step)


def fold_counts(
    state: MetricState, *, challenger_units: int, challenger_bad: int, champion_units: int, champion_bad: int
) -> MetricState:
    """Return `state` of "errors" or "latency" after one more window; count each unit once per window.

    Without their names, the units of all windows are taken for different ones.

    >>> errors = begin(Canary(), 0.020)[0]
    >>> after = fold_counts(errors, challenger_units=50, challenger_bad=9, champion_units=450, champion_bad=2)
    >>> after.is_harmful, after.challenger_units, after.champion_total
    (True, 50, 2.0)
    """
    assert isinstance(state.evidence, UnitEvidence)
    counts = Counts(challenger_units, challenger_bad, champion_units, champion_bad)
    return _fold_window(state, state.evidence, counts, 0, state.step_units + challenger_units)


def fold_scores(
    state: MetricState,
    challenger_scores: Sequence[float],
    champion_scores: Sequence[float],
    minute_start_us: int = 0,
    *,
    since_us: int = 0,
) -> MetricState:
    """Return `state` of "quality" after more labelled predictions of one stratum.

    Parameters
    ----------
    challenger_scores, champion_scores
        Scores from 0 to 1, in the order of time.
    minute_start_us
        The start of the minute in which their labels were joined, microseconds since 1970 UTC.
    since_us
        The start of the stratum (`rollout.evidence.strata`).

    Scores of one arm wait until the other has some in the same stratum; scores of different strata are never compared. The
    newest `WAITING_SCORES` wait, those of the oldest strata are dropped.

    >>> quality = begin(Canary(), 0.020)[2]
    >>> fold_scores(quality, [0.5], [0.9, 0.8]).champion_units
    2
    """
    evidence = state.evidence
    assert isinstance(evidence, QualityEvidence)
    waiting = dict(evidence.waiting)
    waited = waiting.pop(since_us, WaitingScores())
    alone = (*waited.challenger, *challenger_scores)
    if not isinstance(evidence.phase, Comparing) and alone and not (champion_scores or waited.champion):
        evidence = _fold_losses(
            replace(evidence, waiting=waiting), [1.0 - each for each in alone], minute_start_us
        )
    else:
        test = dataclasses.replace(
            evidence.test, waiting_challenger=waited.challenger, waiting_champion=waited.champion
        ).fold(challenger_scores, champion_scores)
        if test.waiting_challenger or test.waiting_champion:
            waiting[since_us] = WaitingScores(test.waiting_challenger, test.waiting_champion)
        kept = dataclasses.replace(test, waiting_challenger=(), waiting_champion=())
        evidence = replace(evidence, test=kept, waiting=_newest(waiting))
    log_e = comparison.log_e_of(evidence.test.log_e, evidence.phase, state.log_bound)
    totals = (len(challenger_scores), sum(challenger_scores), len(champion_scores), sum(champion_scores))
    return state.advance(evidence, totals, log_e, state.step_units + len(challenger_scores))


def fold_requests(
    states: Sequence[MetricState],
    window: Iterable[RequestOutcome],
    minute_start_us: int = 0,
    *,
    of_step: bool = True,
) -> tuple[MetricState, ...]:
    """Return all metrics after one window of requests in the minute that begins at `minute_start_us`; "quality" is unchanged.

    With `of_step` False its requests were answered under the share of an earlier step: they are evidence, and count nothing
    towards what this step must show.

    A unit counts once per window and is bad when any of its requests was. A unit that was bad in an earlier window is no
    longer at risk and counts no more, in either arm: a session that fails at every click is one failure, not many. This is
    the log-rank test's first event per unit, and it keeps the guarantee for units that come back. The newest
    `REMEMBERED_UNITS` bad units are remembered.

    >>> states = begin(Canary(), 0.020)
    >>> window = [RequestOutcome(b"s1", Arm.CHALLENGER, True, 900.0)] * 5
    >>> window += [RequestOutcome(b"s2", Arm.CHAMPION, False, 900.0)]
    >>> errors = fold_requests(fold_requests(states, window), window)[0]
    >>> errors.challenger_units, errors.challenger_total, errors.champion_units
    (1, 1.0, 2)
    """
    requests = list(window)
    after = []
    for state in states:
        match state.evidence:
            case UnitEvidence() as evidence:
                folded = _fold_units(state, evidence, requests, minute_start_us)
            case SliceEvidence() as evidence:
                folded = _fold_slices(state, evidence, requests, minute_start_us)
            case _:
                folded = state
        after.append(folded if of_step else _with_step_of(state, folded))
    return tuple(after)


def _with_step_of(before: MetricState, after: MetricState) -> MetricState:
    """Return `after` with what `before` had counted towards the step."""
    match before.evidence, after.evidence:
        case UnitEvidence(seen=seen), UnitEvidence() as evidence:
            return dataclasses.replace(
                after, step_units=before.step_units, evidence=replace(evidence, seen=seen)
            )
        case SliceEvidence(seen=seen, columns_seen=columns), SliceEvidence() as evidence:
            evidence = replace(evidence, seen=seen, columns_seen=columns)
            return dataclasses.replace(after, step_units=before.step_units, evidence=evidence)
        case _:
            return after


def begin_step(states: Sequence[MetricState]) -> tuple[MetricState, ...]:
    """Return the same evidence at the start of a new step: what this step must show counts from here."""
    return tuple(
        dataclasses.replace(state, step_units=0, evidence=_begin_step(state.evidence)) for state in states
    )


def _begin_step(evidence: Evidence) -> Evidence:
    match evidence:
        case UnitEvidence():
            return replace(evidence, seen="")
        case SliceEvidence():
            return replace(evidence, seen="", columns_seen=())
        case _:
            return evidence


def freeze_levels(states: Sequence[MetricState], policy: Canary) -> tuple[MetricState, ...]:
    """Return the same evidence when the challenger gets all traffic: hold it to the champion's level, frozen now.

    States that have a level are unchanged. The level is an upper bound on the champion's share of bad units (its mean loss
    of score), with the margin of the policy upon it. Where the champion has shown nothing, nothing can be held against the
    challenger; such a metric is inconclusive.

    >>> errors, *_ = begin(Canary(), 0.020)
    >>> errors = fold_counts(errors, challenger_units=400, challenger_bad=4, champion_units=3600, champion_bad=36)
    >>> (errors,) = freeze_levels([errors], Canary())
    >>> alone = dict(champion_units=0, champion_bad=0)
    >>> fold_counts(errors, challenger_units=50, challenger_bad=1, **alone).is_harmful
    False
    >>> fold_counts(errors, challenger_units=50, challenger_bad=9, **alone).is_harmful
    True
    """
    return tuple(dataclasses.replace(state, evidence=_freeze_level(state, policy)) for state in states)


def begin_bake(states: Sequence[MetricState], policy: Canary) -> tuple[MetricState, ...]:
    """Return the same evidence at the start of the bake time: detectors compare with the frozen levels from here on.

    What the bake time must show counts from here. Labels of the canary's predictions may come days later; they are
    compared as before.

    Guarantee: over a bake time of `policy.bake`, a version within its levels raises an alarm with probability of about
    `policy.alpha` at most, in addition to that of the canary; the levels rest on `LevelTest`'s assumption. That of the
    mean score has `policy.bake_quality_margin` upon it; a second detector without it only warns.
    """
    minutes = max(2.0, policy.bake_us / 60e6)
    return tuple(
        dataclasses.replace(
            state, evidence=_begin_detecting(state.evidence, minutes / policy.alpha_of(state.metric))
        )
        for state in begin_step(states)
    )


def _begin_detecting(evidence: Evidence, run_length: float) -> Evidence:
    match evidence:
        case UnitEvidence(comparison=kept):
            phase = comparison.begin_detecting(kept.phase, run_length)
            return replace(evidence, comparison=replace(kept, phase=phase))
        case SliceEvidence():
            return slices.begin_detecting(evidence, run_length)
        case QualityEvidence(phase=AtLevel(), warning_level=level) if level is not None:
            phase = comparison.begin_detecting(evidence.phase, run_length)
            return replace(evidence, phase=phase, warning=comparison.begin_detector(level, run_length))
        case _:
            return evidence


def interval_of(state: MetricState) -> tuple[str, Interval | None]:
    """Return what of the two arms is compared, in words, and its interval at 95 %; "" and None where nothing is known.

    The interval may be read at every look. The "odds ratio" is the challenger's odds of a bad unit over the champion's;
    "mean score" and "mean probability" are the challenger's less the champion's. While the challenger is alone, the
    interval does not change.

    >>> interval_of(begin(Canary(), 0.020)[0])
    ('', None)
    """
    if min(state.challenger_units, state.champion_units) == 0:
        return "", None
    match state.evidence:
        case UnitEvidence(comparison=Comparison(test=test)):
            return "odds ratio", test.interval()
        case PairEvidence(test=discordant):
            return "odds ratio", discordant.interval()
        case QualityEvidence(test=scores) | DifferenceEvidence(test=scores):
            what = "mean probability" if state.metric == SHADOW_SCORE else "mean score"
            return what, scores.interval()
        case SliceEvidence() | DisagreementEvidence() | RateEvidence():
            return "", None
        case other:
            assert_never(other)


def count_requests(
    states: Sequence[MetricState], requests: Iterable[RequestOutcome]
) -> tuple[MetricState, ...]:
    """Return the metrics with the challenger's requests among `requests` counted. They are no evidence: no test sees them.

    >>> late = [RequestOutcome(b"s1", Arm.CHALLENGER, True, 900.0)]
    >>> counted = count_requests(begin(Canary(), 0.020), late)
    >>> requests_of(counted), counted[0].challenger_units
    ((1, 1), 0)
    """
    found = list(requests)
    return tuple(
        dataclasses.replace(state, evidence=_with_requests(state.evidence, found))
        if isinstance(state.evidence, UnitEvidence)
        else state
        for state in states
    )


def _with_requests(evidence: UnitEvidence, requests: Sequence[RequestOutcome]) -> UnitEvidence:
    ours = [request for request in requests if request.arm is Arm.CHALLENGER]
    return replace(
        evidence,
        requests=evidence.requests + sum(request.requests for request in ours),
        failed=evidence.failed + sum(request.requests for request in ours if request.failed),
    )


def requests_of(states: Sequence[MetricState]) -> tuple[int, int]:
    """Return how many requests the challenger was sent, and how many of them failed.

    >>> requests_of(begin(Canary(), 0.020))
    (0, 0)
    """
    for state in states:
        if state.metric == ERRORS and isinstance(state.evidence, UnitEvidence):
            return state.evidence.requests, state.evidence.failed
    return 0, 0


def score(probability: float, label: float) -> float:
    """Return the score of a probability, given its label: 1 - (label - probability)², 1 is best.

    The mean of the square is the Brier score, which only honest probabilities minimise. Source: G. W. Brier,
    Mon. Weather Rev. 78 (1950), doi 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    >>> score(0.5, 1.0)
    0.75
    """
    return 1.0 - (label - probability) ** 2


def _fold_losses(evidence: QualityEvidence, losses: Sequence[float], minute_start_us: int) -> QualityEvidence:
    assert not isinstance(evidence.phase, Comparing)
    after = replace(evidence, phase=comparison.fold_losses(evidence.phase, losses, minute_start_us))
    if evidence.warning is None:
        return after
    warning = comparison.fold_window_losses(evidence.warning, losses, minute_start_us)
    return replace(after, warning=warning, has_warned=evidence.has_warned or warning.current().alarm)


def _newest(waiting: Mapping[int, WaitingScores]) -> dict[int, WaitingScores]:
    """Return the newest strata of `waiting`, as many as have no more than `WAITING_SCORES` scores together."""
    kept: dict[int, WaitingScores] = {}
    total = 0
    for since_us in sorted(waiting, reverse=True):
        scores = waiting[since_us]
        total += len(scores.challenger) + len(scores.champion)
        if total > WAITING_SCORES:
            break
        kept[since_us] = scores
    return kept


def _fold_units(
    state: MetricState, evidence: UnitEvidence, requests: Sequence[RequestOutcome], minute_start_us: int
) -> MetricState:
    known_bad, bound_us = set(evidence.bad_units), state.latency_bound_us
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
    step_units, seen = _count_different(state.step_units, evidence.seen, evidence.needed, challenger)
    after = replace(
        _with_requests(evidence, requests),
        seen=seen,
        bad_units=(*evidence.bad_units, *newly_bad)[-REMEMBERED_UNITS:],
    )
    counts = Counts(len(challenger), sum(challenger.values()), len(champion), sum(champion.values()))
    return _fold_window(state, after, counts, minute_start_us, step_units)


def _fold_slices(
    state: MetricState, evidence: SliceEvidence, requests: Sequence[RequestOutcome], minute_start_us: int
) -> MetricState:
    folded = slices.fold(evidence, requests, state.log_bound, minute_start_us)
    ours = [each for each in requests if each.arm is Arm.CHALLENGER and each.slices]
    units = {each.unit.hex() for each in ours}
    step_units, seen = _count_different(state.step_units, evidence.seen, evidence.needed, units)
    columns = {slices.column_of(name) for each in ours for name in each.slices}
    after = replace(
        folded.evidence, seen=seen, columns_seen=tuple(sorted(columns.union(evidence.columns_seen)))
    )
    return state.advance(after, folded.counts.totals, folded.log_e, step_units)


def _count_different(count: int, seen: str, needed: int, units: Collection[str]) -> tuple[int, str]:
    """Return how many units the step has after `units`, each counted once, and those that are remembered.

    Only as many are remembered as the step needs.
    """
    if count >= needed:
        return count, seen
    new = sorted({name_of(unit) for unit in units} - names_in(seen))
    count += len(new)
    return count, "" if count >= needed else seen + "".join(new)


def _fold_window(
    state: MetricState, evidence: UnitEvidence, counts: Counts, minute_start_us: int, step_units: int
) -> MetricState:
    after = comparison.fold(evidence.comparison, counts, minute_start_us)
    log_e = comparison.log_e_of(after.test.log_e, after.phase, state.log_bound)
    return state.advance(replace(evidence, comparison=after), counts.totals, log_e, step_units)


def _freeze_level(state: MetricState, policy: Canary) -> Evidence:
    alpha = policy.level_alpha_of(state.metric)
    match state.evidence:
        case UnitEvidence(comparison=Comparison(phase=Comparing())) as evidence:
            margin = policy.error_margin if state.metric == ERRORS else policy.latency_margin
            level = comparison.odds_level(state.champion_total, state.champion_units, margin, alpha)
            phase = comparison.freeze_level(level)
            return replace(evidence, comparison=replace(evidence.comparison, phase=phase))
        case QualityEvidence(phase=Comparing()) as evidence:
            loss = max(0.0, state.champion_units - state.champion_total)
            warning_level = min(1.0, upper_level(loss, state.champion_units, alpha) + policy.quality_margin)
            level = min(1.0, warning_level + policy.bake_quality_margin)
            return replace(evidence, phase=comparison.freeze_level(level), warning_level=warning_level)
        case SliceEvidence(at_level=False) as evidence:
            return slices.freeze_levels(evidence, alpha)
        case other:
            return other
