"""What a challenger showed on copies of requests, each beside the answer that the user got. Nobody was touched.

Five metrics, kept as the canary's are, their names begin with "shadow.":

* "shadow.disagreement": a unit for which a row was decided otherwise than by the champion, against the rate that the
  policy tolerates;
* "shadow.score": by how much the challenger's probabilities lie above the champion's; told with an interval, not judged;
* "shadow.errors": a unit that only one of the two could answer, against the same for the other;
* "shadow.latency": a unit for which only one of the two was slower than the champion's frozen bound. Both are timed one
  after the other on the same thread with the same rows: on the answer's path the champion does not share its core;
* "shadow.quality": the challenger's score less the champion's for the same row, once its label came.

Pairs need fewer units than two arms do: what is hard about a request is hard for both, and cancels. A shadow that never
came back fails at once, without statistics: in the answer's path it would have taken the server with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from holdfast.errors import InputError
from holdfast.records import Verdict, canonical_json
from holdfast.rollout.evidence.verdict import MetricVerdict
from holdfast.rollout.model import metric as metrics
from holdfast.rollout.model.metric import (
    SHADOW_DISAGREEMENT,
    SHADOW_ERRORS,
    SHADOW_LATENCY,
    SHADOW_QUALITY,
    SHADOW_SCORE,
    MetricState,
    is_shadow,
)
from holdfast.rollout.model.policy import Canary, Shadow
from holdfast.rollout.model.unit_memory import name_of, names_in, remember
from holdfast.stats import BettingTest, DiscordantTest, LevelTest, wilson

OK: Final = "ok"
HUNG: Final = "hung"
"""The result of a copy that the shadow did not come back from."""

REMEMBERED_UNITS: Final = 4096
"""How many units are remembered, so that each counts once: the newest ones. Where more units than that ask in turn, each
counts again when its turn comes."""

KEPT_SLICES: Final = 256
"""How many slices are counted; those that come later are not."""

_FEWEST_IN_SLICE: Final = 20


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One row with both probabilities, 0 to 1, and the slices that it belongs to, such as "carrier=AA"."""

    ours: float
    theirs: float
    slices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """One request that the champion answered and the shadow got a copy of.

    `unit` is what is randomised. `result` is "ok" or the shadow's kind of failure; then there are no `rows`, and neither
    are there when the champion had none. `latency_us` is how long the shadow took and `beside_us` how long the
    champion took beside it, microseconds; None when that was not timed.
    """

    unit: bytes
    result: str
    champion_failed: bool
    rows: tuple[ComparedRow, ...]
    latency_us: float
    beside_us: float | None


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """One row whose label came: the unit and the scores, 0 to 1, of the shadow's answer and of the champion's."""

    unit: bytes
    ours: float
    theirs: float


@dataclass(frozen=True, slots=True)
class ShadowSlice:
    """What one slice showed: its units, the share of them decided otherwise, and the mean shift of probability."""

    name: str
    units: int
    disagreement: float
    shift: float


def begin(policy: Canary, bound: float | None) -> tuple[MetricState, ...]:
    """No evidence yet: one state per metric, in order of their names. Without `bound`, the champion's frozen latency in
    seconds, latency is not compared.

    Raises `InputError` HF410 when the policy wants no shadow.

    >>> [state.metric for state in begin(Canary(shadow=Shadow()), None)]
    ['shadow.disagreement', 'shadow.errors', 'shadow.quality', 'shadow.score']
    """
    wanted = _wanted(policy)
    memories: dict[str, dict[str, Any]] = {
        SHADOW_DISAGREEMENT: {
            "test": LevelTest.begin(wanted.disagreement or 1.0).state(),
            "tolerated": wanted.disagreement,
            "threshold": wanted.threshold,
            "slices": {},
        },
        SHADOW_ERRORS: {"test": DiscordantTest.begin(policy.error_margin).state(), "results": {}, "seen": ""},
        SHADOW_QUALITY: {"test": BettingTest.begin(policy.quality_margin).state(), "seen": ""},
        SHADOW_SCORE: {"test": BettingTest.begin().state()},
    }
    if bound is not None:
        test = DiscordantTest.begin(policy.latency_margin).state()
        memories[SHADOW_LATENCY] = {"test": test, "latency_bound_us": bound * 1e6}
    judged = len(memories) - 1 - (wanted.disagreement >= 1.0)  # the score is told only
    log_bound = math.log(judged / policy.alpha)
    return tuple(
        MetricState(
            metric, 0, 0.0, 0, 0.0, 0.0, log_bound, canonical_json({"step_units": 0, **memories[metric]})
        )
        for metric in sorted(memories)
    )


def fold_pairs(states: Sequence[MetricState], pairs: Iterable[Pair]) -> tuple[MetricState, ...]:
    """All metrics after one window of pairs; "shadow.quality" is handed through, and so is what is no shadow's.

    A unit counts once, in the first window in which it comes, and is bad there when any of its requests was: somebody
    who asks the same all day long is one unit. The newest `REMEMBERED_UNITS` units are remembered.

    >>> states = begin(Canary(shadow=Shadow(disagreement=0.05)), None)
    >>> other = [Pair(bytes([at]), "ok", False, (ComparedRow(0.9, 0.1),), 80.0, None) for at in range(40)]
    >>> disagreement, errors, *_ = fold_pairs(fold_pairs(states, other), other)
    >>> disagreement.harmful, disagreement.challenger_units, errors.challenger_units
    (True, 40, 40)
    """
    by_metric = {state.metric: state for state in states}
    if SHADOW_ERRORS not in by_metric:
        return tuple(states)
    errors = by_metric[SHADOW_ERRORS]
    memory = json.loads(errors.state)
    units, seen = _new_units(pairs, memory["seen"])
    if not units:
        return tuple(states)
    by_metric[SHADOW_ERRORS] = _fold_errors(errors, memory | {"seen": seen}, units)
    for metric, fold in (
        (SHADOW_DISAGREEMENT, _fold_disagreement),
        (SHADOW_SCORE, _fold_score),
        (SHADOW_LATENCY, _fold_latency),
    ):
        if metric in by_metric:
            by_metric[metric] = fold(by_metric[metric], units)
    return tuple(by_metric[state.metric] for state in states)


def fold_labelled(states: Sequence[MetricState], pairs: Iterable[LabelledPair]) -> tuple[MetricState, ...]:
    """All states after more labelled rows; only "shadow.quality" changes. The rows of one unit count as one, their mean,
    and those that come after its first ones count no more, as long as it is among the newest `REMEMBERED_UNITS` units.

    Raises `InputError` HF410 for a score outside [0, 1].
    """
    told = list(pairs)
    return tuple(_fold_quality(state, told) if state.metric == SHADOW_QUALITY else state for state in states)


def judge(states: Sequence[MetricState], policy: Canary) -> tuple[MetricVerdict, ...]:
    """The verdict of each shadow metric among `states`. Too few units are inconclusive, never a pass; labels may come
    later, so nothing waits for them.

    Guarantee: a challenger that is, pair by pair, within the policy's margins of the champion fails here with
    probability at most `policy.alpha`, however often one looks: each judged metric has an e-process, and Bonferroni
    joins them. The canary that follows has an `alpha` of its own. Assumption: units come independently of each other
    given the past, and no more of them in turn than `REMEMBERED_UNITS`; a hang is no matter of chance, and is not counted in.

    Sources: Q. McNemar, Psychometrika 12 (1947), doi 10.1007/BF02295996 (pairs that differ); I. Waudby-Smith, A. Ramdas,
    J. R. Stat. Soc. B 86 (2024), doi 10.1093/jrsssb/qkad009 (bounded means).
    """
    needed = _wanted(policy).units
    return tuple(_judge(state, needed) for state in states if is_shadow(state.metric))


def in_words(state: MetricState) -> str:
    """What a shadow metric showed, in a sentence with its numbers and without a full stop."""
    memory = json.loads(state.state)
    ours, theirs, units = state.challenger_total, state.champion_total, state.challenger_units
    match state.metric:
        case metrics.SHADOW_DISAGREEMENT:
            tolerated = f"{100.0 * memory['tolerated']:g} % are tolerated"
            return f"{ours:.0f} of {units} units were decided otherwise than by the champion ({tolerated})"
        case metrics.SHADOW_ERRORS:
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(memory["results"].items()))
            unanswered = f"{ours:.0f} of {units} units were not answered ({kinds})"
            failed = unanswered if kinds else f"{units} units were answered"
            return f"{failed}; the champion failed {theirs:.0f}"
        case metrics.SHADOW_LATENCY:
            bound = f"{memory['latency_bound_us'] / 1e3:.3g} ms"
            return f"{ours:.0f} of {units} units took more than {bound}; of the champion's beside them {theirs:.0f}"
        case _:
            shift = BettingTest.from_state(memory["test"]).interval()
            what = "mean score" if state.metric == SHADOW_QUALITY else "mean probability"
            means = f"{ours / max(1, units):.4f} of {units} units, champion {theirs / max(1, units):.4f}"
            return f"{what} {means}, difference {shift}"


def slices_of(states: Sequence[MetricState]) -> tuple[ShadowSlice, ...]:
    """What each slice of the policy's columns showed, the worst first: by the lower bound of its rate of disagreement,
    then by its shift of probability. Slices of fewer than 20 units are left out. Told, not judged.

    >>> slices_of(begin(Canary(shadow=Shadow()), None))
    ()
    """
    found = []
    for state in states:
        if state.metric == SHADOW_DISAGREEMENT:
            for name, (units, otherwise, shift) in json.loads(state.state)["slices"].items():
                if units >= _FEWEST_IN_SLICE:
                    bound = wilson(otherwise, units).low
                    found.append((bound, ShadowSlice(name, units, otherwise / units, shift / units)))
    found.sort(key=lambda each: (-each[0], -abs(each[1].shift), each[1].name))
    return tuple(each for _, each in found)


@dataclass(slots=True)
class _Unit:
    """What the requests of one unit in one window amount to."""

    results: list[str] = field(default_factory=list)
    champion_failed: bool = False
    rows: list[ComparedRow] = field(default_factory=list)
    timed: list[tuple[float, float]] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        self.results.append(pair.result)
        self.champion_failed = self.champion_failed or pair.champion_failed
        self.rows += pair.rows
        if pair.beside_us is not None and pair.result == OK:
            self.timed.append((pair.latency_us, pair.beside_us))

    @property
    def failed(self) -> bool:
        return any(result != OK for result in self.results)


def _wanted(policy: Canary) -> Shadow:
    if policy.shadow is None:
        raise InputError("HF410", "this policy wants no shadow", next_command="holdfast status")
    return policy.shadow


def _new_units(pairs: Iterable[Pair], known: str) -> tuple[list[_Unit], str]:
    seen = names_in(known)
    units: dict[str, _Unit] = {}
    for pair in pairs:
        name = name_of(pair.unit)
        if name not in seen:
            units.setdefault(name, _Unit()).add(pair)
    return list(units.values()), remember(known, units, REMEMBERED_UNITS)


def _fold_errors(state: MetricState, memory: dict[str, Any], units: Sequence[_Unit]) -> MetricState:
    results = dict(memory["results"])
    for unit in units:
        for result in unit.results:
            if result != OK:
                results[result] = results.get(result, 0) + 1
    bad = [(unit.failed, unit.champion_failed) for unit in units]
    return _fold_discordant(state, memory | {"results": results}, bad)


def _fold_latency(state: MetricState, units: Sequence[_Unit]) -> MetricState:
    memory = json.loads(state.state)
    bound_us = memory["latency_bound_us"]
    slow = [
        (any(ours > bound_us for ours, _ in unit.timed), any(theirs > bound_us for _, theirs in unit.timed))
        for unit in units
        if unit.timed
    ]
    return _fold_discordant(state, memory, slow)


def _fold_discordant(
    state: MetricState, memory: Mapping[str, Any], bad: Sequence[tuple[bool, bool]]
) -> MetricState:
    test = DiscordantTest.from_state(memory["test"]).fold(
        challenger_only=sum(ours and not theirs for ours, theirs in bad),
        champion_only=sum(theirs and not ours for ours, theirs in bad),
    )
    totals = (sum(ours for ours, _ in bad), sum(theirs for _, theirs in bad))
    return _after(state, {**memory, "test": test.state()}, len(bad), totals, test.log_e)


def _fold_disagreement(state: MetricState, units: Sequence[_Unit]) -> MetricState:
    memory = json.loads(state.state)
    threshold, slices = memory["threshold"], dict(memory["slices"])
    otherwise = [any(_otherwise(row, threshold) for row in unit.rows) for unit in units if unit.rows]
    test = LevelTest.from_state(memory["test"]).fold_counts(units=len(otherwise), bad=sum(otherwise))
    for unit in units:
        _count_slices(slices, unit.rows, threshold)
    log_e = test.log_e
    if memory["tolerated"] == 0.0 and any(otherwise):
        log_e = state.log_bound  # "none" is refuted by one
    memory |= {"test": test.state(), "slices": slices}
    return _after(state, memory, len(otherwise), (sum(otherwise), 0.0), log_e)


def _count_slices(slices: dict[str, list[float]], rows: Sequence[ComparedRow], threshold: float) -> None:
    by_slice: dict[str, list[ComparedRow]] = {}
    for row in rows:
        for name in row.slices:
            by_slice.setdefault(name, []).append(row)
    for name, found in by_slice.items():
        if name not in slices and len(slices) >= KEPT_SLICES:
            continue
        units, otherwise, shift = slices.get(name, [0, 0, 0.0])
        differs = any(_otherwise(row, threshold) for row in found)
        moved = sum(row.ours - row.theirs for row in found) / len(found)
        slices[name] = [units + 1, otherwise + differs, shift + moved]


def _otherwise(row: ComparedRow, threshold: float) -> bool:
    return (row.ours >= threshold) != (row.theirs >= threshold)


def _fold_score(state: MetricState, units: Sequence[_Unit]) -> MetricState:
    return _fold_differences(state, *_means(unit.rows for unit in units if unit.rows), judged=False)


def _fold_quality(state: MetricState, pairs: Sequence[LabelledPair]) -> MetricState:
    memory = json.loads(state.state)
    known = memory.get("seen", "")
    seen = names_in(known)
    found: dict[str, list[LabelledPair]] = {}
    for pair in pairs:
        name = name_of(pair.unit)
        if name not in seen:
            found.setdefault(name, []).append(pair)
    if not found:
        return state
    remembered = replace(
        state, state=canonical_json(memory | {"seen": remember(known, found, REMEMBERED_UNITS)})
    )
    return _fold_differences(remembered, *_means(found.values()), judged=True)


def _means(units: Iterable[Sequence[ComparedRow | LabelledPair]]) -> tuple[list[float], list[float]]:
    found = list(units)
    ours = [sum(row.ours for row in rows) / len(rows) for rows in found]
    return ours, [sum(row.theirs for row in rows) / len(rows) for rows in found]


def _fold_differences(
    state: MetricState, ours: Sequence[float], theirs: Sequence[float], *, judged: bool
) -> MetricState:
    memory = json.loads(state.state)
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    test = BettingTest.from_state(memory["test"]).fold_differences(differences)
    log_e = test.log_e if judged else 0.0
    return _after(state, memory | {"test": test.state()}, len(ours), (sum(ours), sum(theirs)), log_e)


def _after(
    state: MetricState, memory: Mapping[str, Any], units: int, totals: tuple[float, float], log_e: float
) -> MetricState:
    return replace(
        state,
        challenger_units=state.challenger_units + units,
        challenger_total=state.challenger_total + totals[0],
        champion_units=state.champion_units + units,
        champion_total=state.champion_total + totals[1],
        log_e=max(state.log_e, log_e),
        state=canonical_json({**memory, "step_units": memory["step_units"] + units}),
    )


def _judge(state: MetricState, wanted: int) -> MetricVerdict:
    units = state.challenger_units
    needed = 0 if state.metric == SHADOW_QUALITY else wanted
    wanting = "" if units >= needed else f"{units} of {needed} units in shadow for {state.metric}"
    hung = state.metric == SHADOW_ERRORS and json.loads(state.state)["results"].get(HUNG, 0) > 0
    if state.harmful or hung:
        verdict = Verdict.FAIL
    elif wanting or not units:
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.PASS
    return MetricVerdict(state.metric, verdict, units, needed, state.log_e, state.log_bound, wanting)
