"""Compare a challenger with the champion on copies of requests, before its predictions reach any caller.

Five metrics, whose names begin with "shadow.":

* "shadow.disagreement": a unit with a row that was decided differently from the champion, against the rate that the policy
  tolerates;
* "shadow.score": by how much the challenger's probabilities lie above the champion's; reported with an interval, not judged;
* "shadow.errors": a unit that only one of the two could answer, against the same for the other;
* "shadow.latency": a unit for which only one of the two was slower than the champion's frozen bound. Both are timed one
  after the other on the same thread with the same rows: on the path of the response the champion does not share its core;
* "shadow.quality": the challenger's score less the champion's for the same row, once its label came.

Pairs need fewer units than two arms do: what is hard about a request is hard for both, and cancels. A shadow that hangs
fails at once, without statistics: on the path of the response it would have hung the server.

Guarantee: a challenger that is, pair by pair, within the policy's margins of the champion fails here with probability at
most `policy.alpha`, however often one looks: each judged metric has an e-process, and Bonferroni joins them. The canary
that follows has an `alpha` of its own. Assumption: units come independently of each other given the past, and no more of
them in turn than `REMEMBERED_UNITS`. A hang is not a matter of chance and not counted in.

Sources: Q. McNemar, Psychometrika 12 (1947), doi 10.1007/BF02295996 (pairs that differ); I. Waudby-Smith, A. Ramdas,
J. R. Stat. Soc. B 86 (2024), doi 10.1093/jrsssb/qkad009 (bounded means).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from holdfast.errors import InputError
from holdfast.rollout.evidence.records import (
    DifferenceEvidence,
    DisagreementEvidence,
    Evidence,
    MetricState,
    PairEvidence,
    SliceDisagreement,
    Totals,
    name_of,
    names_in,
    remember,
)
from holdfast.rollout.model import metric as metrics
from holdfast.rollout.model.policy import Canary, Shadow
from holdfast.stats import BettingTest, DiscordantTest, LevelTest, wilson

OK: Final = "ok"
HUNG: Final = "hung"
"""The result of a copy on which the shadow hung."""

REMEMBERED_UNITS: Final = 4096
"""How many units are remembered, the newest ones, so that each counts once. Where more units than that take turns, each
counts again in its turn."""

KEPT_SLICES: Final = 256
"""How many slices are counted; later ones are not."""

_FEWEST_IN_SLICE: Final = 20


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One row with both probabilities, from 0 to 1, and its slices, such as "carrier=AA"."""

    ours: float
    theirs: float
    slices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """One request that the champion answered and of which the shadow got a copy.

    Parameters
    ----------
    unit
        What is randomised.
    result
        "ok" or the shadow's kind of failure.
    rows
        Empty when either version failed.
    latency_us, champion_rerun_us
        Microseconds of the shadow, and of the champion that ran again next to it; None when it was not timed.
    """

    unit: bytes
    result: str
    champion_failed: bool
    rows: tuple[ComparedRow, ...]
    latency_us: float
    champion_rerun_us: float | None


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """One labelled row: its unit and the scores, from 0 to 1, of the shadow's prediction and of the champion's."""

    unit: bytes
    ours: float
    theirs: float


@dataclass(frozen=True, slots=True)
class ShadowSlice:
    """One slice: its units, the share of them decided differently, and the mean shift of probability."""

    name: str
    units: int
    disagreement: float
    shift: float


def begin(policy: Canary, bound: float | None) -> tuple[MetricState, ...]:
    """Return one state without evidence per metric, in order of their names.

    `bound` is the champion's frozen latency in seconds; without it latency is not compared. Raises `InputError` HF410 when
    the policy has no shadow.

    >>> [state.metric for state in begin(Canary(shadow=Shadow()), None)]
    ['shadow.disagreement', 'shadow.errors', 'shadow.quality', 'shadow.score']
    """
    wanted = shadow_of(policy)
    evidence: dict[str, Evidence] = {
        metrics.SHADOW_DISAGREEMENT: DisagreementEvidence(
            LevelTest.begin(wanted.disagreement or 1.0), wanted.disagreement, wanted.threshold
        ),
        metrics.SHADOW_ERRORS: PairEvidence(DiscordantTest.begin(policy.error_margin)),
        metrics.SHADOW_QUALITY: DifferenceEvidence(BettingTest.begin(policy.quality_margin)),
        metrics.SHADOW_SCORE: DifferenceEvidence(BettingTest.begin()),
    }
    if bound is not None:
        evidence[metrics.SHADOW_LATENCY] = PairEvidence(DiscordantTest.begin(policy.latency_margin))
    judged = len(evidence) - 1 - (wanted.disagreement >= 1.0)  # the score is only reported
    log_bound = math.log(judged / policy.alpha)
    bound_us = None if bound is None else bound * 1e6
    return tuple(
        MetricState(
            metric,
            log_bound,
            evidence[metric],
            latency_bound_us=bound_us if metric == metrics.SHADOW_LATENCY else None,
        )
        for metric in sorted(evidence)
    )


def fold_pairs(states: Sequence[MetricState], pairs: Iterable[Pair]) -> tuple[MetricState, ...]:
    """Return all metrics after one window of pairs; "shadow.quality" and metrics of traffic are unchanged.

    A unit counts once, in the first window in which it comes, and is bad there when any of its requests was: a caller that
    repeats a request all day long is one unit. The newest `REMEMBERED_UNITS` units are remembered.

    >>> states = begin(Canary(shadow=Shadow(disagreement=0.05)), None)
    >>> other = [Pair(bytes([at]), "ok", False, (ComparedRow(0.9, 0.1),), 80.0, None) for at in range(40)]
    >>> disagreement, errors, *_ = fold_pairs(fold_pairs(states, other), other)
    >>> disagreement.is_harmful, disagreement.challenger_units, errors.challenger_units
    (True, 40, 40)
    """
    known = next((_pairs_of(state).seen for state in states if state.metric == metrics.SHADOW_ERRORS), None)
    if known is None:
        return tuple(states)
    units, seen = _new_units(pairs, known)
    if not units:
        return tuple(states)
    after = []
    for state in states:
        match state.metric:
            case metrics.SHADOW_ERRORS:
                after.append(_fold_errors(state, units, seen))
            case metrics.SHADOW_DISAGREEMENT:
                after.append(_fold_disagreement(state, units))
            case metrics.SHADOW_SCORE:
                after.append(
                    _fold_differences(state, *_means(unit.rows for unit in units if unit.rows), judged=False)
                )
            case metrics.SHADOW_LATENCY:
                after.append(_fold_latency(state, units))
            case _:
                after.append(state)
    return tuple(after)


def fold_labelled(states: Sequence[MetricState], pairs: Iterable[LabelledPair]) -> tuple[MetricState, ...]:
    """Return all states after more labelled rows; only "shadow.quality" changes.

    The rows of one unit count as one, their mean. Rows that come after its first ones count no more, as long as it is among
    the newest `REMEMBERED_UNITS` units. Raises `ValueError` for a score outside [0, 1].
    """
    labelled = list(pairs)
    return tuple(
        _fold_quality(state, labelled) if state.metric == metrics.SHADOW_QUALITY else state
        for state in states
    )


def shadow_of(policy: Canary) -> Shadow:
    """Return the shadow of `policy`. Raises `InputError` HF410 if it has none."""
    if policy.shadow is None:
        raise InputError("HF410", "this policy has no shadow", next_command="holdfast status")
    return policy.shadow


def has_hung(state: MetricState) -> bool:
    """Return True if the shadow hung on a copy."""
    return state.metric == metrics.SHADOW_ERRORS and _pairs_of(state).failures.get(HUNG, 0) > 0


def describe(state: MetricState) -> str:
    """Return what a shadow metric showed, in a sentence with its numbers and without a full stop."""
    ours, theirs, units = state.challenger_total, state.champion_total, state.challenger_units
    match state.evidence:
        case DisagreementEvidence(tolerated=tolerated):
            return (
                f"{ours:.0f} of {units} units were decided differently from the champion "
                f"({100.0 * tolerated:g} % are tolerated)"
            )
        case PairEvidence() if state.latency_bound_us is not None:
            bound = f"{state.latency_bound_us / 1e3:.3g} ms"
            return f"{ours:.0f} of {units} units were slower than {bound}; {theirs:.0f} of the champion's"
        case PairEvidence(failures=failures):
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(failures.items()))
            unanswered = f"{ours:.0f} of {units} units failed ({kinds})"
            return (
                f"{unanswered if kinds else f'{units} units were answered'}; the champion failed {theirs:.0f}"
            )
        case DifferenceEvidence(test=test):
            what = "mean score" if state.metric == metrics.SHADOW_QUALITY else "mean probability"
            means = f"{ours / max(1, units):.4f} of {units} units, champion {theirs / max(1, units):.4f}"
            return f"{what} {means}, difference {test.interval()}"
        case _:
            raise ValueError(f"{state.metric} is no metric of a shadow")


def rank_slices(states: Sequence[MetricState]) -> tuple[ShadowSlice, ...]:
    """Return the slices of the policy's columns, the worst first; slices of fewer than 20 units are left out.

    The order is by the lower bound of the rate of disagreement, then by the shift of probability. Slices are reported, not
    judged.

    >>> rank_slices(begin(Canary(shadow=Shadow()), None))
    ()
    """
    found = []
    for state in states:
        if isinstance(state.evidence, DisagreementEvidence):
            for name, kept in state.evidence.slices.items():
                if kept.units >= _FEWEST_IN_SLICE:
                    bound = wilson(kept.differing, kept.units).low
                    rate, shift = kept.differing / kept.units, kept.shift / kept.units
                    found.append((bound, ShadowSlice(name, kept.units, rate, shift)))
    found.sort(key=lambda each: (-each[0], -abs(each[1].shift), each[1].name))
    return tuple(each for _, each in found)


@dataclass(slots=True)
class _Unit:
    """The requests of one unit in one window."""

    results: list[str] = field(default_factory=list)
    champion_failed: bool = False
    rows: list[ComparedRow] = field(default_factory=list)
    timed: list[tuple[float, float]] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        self.results.append(pair.result)
        self.champion_failed = self.champion_failed or pair.champion_failed
        self.rows += pair.rows
        if pair.champion_rerun_us is not None and pair.result == OK:
            self.timed.append((pair.latency_us, pair.champion_rerun_us))

    @property
    def failed(self) -> bool:
        return any(result != OK for result in self.results)


def _new_units(pairs: Iterable[Pair], known: str) -> tuple[list[_Unit], str]:
    seen = names_in(known)
    units: dict[str, _Unit] = {}
    for pair in pairs:
        name = name_of(pair.unit)
        if name not in seen:
            units.setdefault(name, _Unit()).add(pair)
    return list(units.values()), remember(known, units, REMEMBERED_UNITS)


def _pairs_of(state: MetricState) -> PairEvidence:
    assert isinstance(state.evidence, PairEvidence)
    return state.evidence


def _fold_errors(state: MetricState, units: Sequence[_Unit], seen: str) -> MetricState:
    evidence = _pairs_of(state)
    failures = dict(evidence.failures)
    for unit in units:
        for result in unit.results:
            if result != OK:
                failures[result] = failures.get(result, 0) + 1
    bad = [(unit.failed, unit.champion_failed) for unit in units]
    return _fold_discordant(state, replace(evidence, seen=seen, failures=failures), bad)


def _fold_latency(state: MetricState, units: Sequence[_Unit]) -> MetricState:
    bound_us = state.latency_bound_us
    assert bound_us is not None
    slow = [
        (any(ours > bound_us for ours, _ in unit.timed), any(theirs > bound_us for _, theirs in unit.timed))
        for unit in units
        if unit.timed
    ]
    return _fold_discordant(state, _pairs_of(state), slow)


def _fold_discordant(
    state: MetricState, evidence: PairEvidence, bad: Sequence[tuple[bool, bool]]
) -> MetricState:
    test = evidence.test.fold(
        challenger_only=sum(ours and not theirs for ours, theirs in bad),
        champion_only=sum(theirs and not ours for ours, theirs in bad),
    )
    totals = (len(bad), sum(ours for ours, _ in bad), len(bad), sum(theirs for _, theirs in bad))
    return _advance(state, replace(evidence, test=test), totals, test.log_e)


def _fold_disagreement(state: MetricState, units: Sequence[_Unit]) -> MetricState:
    evidence = state.evidence
    assert isinstance(evidence, DisagreementEvidence)
    threshold, slices = evidence.threshold, dict(evidence.slices)
    differing = [any(_differs(row, threshold) for row in unit.rows) for unit in units if unit.rows]
    test = evidence.test.fold_counts(units=len(differing), bad=sum(differing))
    for unit in units:
        _count_slices(slices, unit.rows, threshold)
    log_e = test.log_e
    if evidence.tolerated == 0.0 and any(differing):
        log_e = state.log_bound  # "none" is refuted by one
    after = replace(evidence, test=test, slices=slices)
    return _advance(state, after, (len(differing), sum(differing), len(differing), 0.0), log_e)


def _count_slices(
    slices: dict[str, SliceDisagreement], rows: Sequence[ComparedRow], threshold: float
) -> None:
    by_slice: dict[str, list[ComparedRow]] = {}
    for row in rows:
        for name in row.slices:
            by_slice.setdefault(name, []).append(row)
    for name, found in by_slice.items():
        if name not in slices and len(slices) >= KEPT_SLICES:
            continue
        kept = slices.get(name, SliceDisagreement())
        differs = any(_differs(row, threshold) for row in found)
        shift = sum(row.ours - row.theirs for row in found) / len(found)
        slices[name] = SliceDisagreement(kept.units + 1, kept.differing + differs, kept.shift + shift)


def _differs(row: ComparedRow, threshold: float) -> bool:
    return (row.ours >= threshold) != (row.theirs >= threshold)


def _fold_quality(state: MetricState, pairs: Sequence[LabelledPair]) -> MetricState:
    evidence = state.evidence
    assert isinstance(evidence, DifferenceEvidence)
    seen = names_in(evidence.seen)
    found: dict[str, list[LabelledPair]] = {}
    for pair in pairs:
        name = name_of(pair.unit)
        if name not in seen:
            found.setdefault(name, []).append(pair)
    if not found:
        return state
    after = replace(evidence, seen=remember(evidence.seen, found, REMEMBERED_UNITS))
    return _fold_differences(dataclasses.replace(state, evidence=after), *_means(found.values()), judged=True)


def _means(units: Iterable[Sequence[ComparedRow | LabelledPair]]) -> tuple[list[float], list[float]]:
    found = list(units)
    ours = [sum(row.ours for row in rows) / len(rows) for rows in found]
    return ours, [sum(row.theirs for row in rows) / len(rows) for rows in found]


def _fold_differences(
    state: MetricState, ours: Sequence[float], theirs: Sequence[float], *, judged: bool
) -> MetricState:
    evidence = state.evidence
    assert isinstance(evidence, DifferenceEvidence)
    test = evidence.test.fold_differences([one - other for one, other in zip(ours, theirs, strict=True)])
    log_e = test.log_e if judged else 0.0
    return _advance(
        state, replace(evidence, test=test), (len(ours), sum(ours), len(theirs), sum(theirs)), log_e
    )


def _advance(state: MetricState, evidence: Evidence, totals: Totals, log_e: float) -> MetricState:
    return state.advance(evidence, totals, log_e, state.step_units + totals[0])
