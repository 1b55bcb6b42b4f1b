"""Guard each slice of the requests for itself, so that harm to one kind of request cannot hide behind the others.

A version that fails for one carrier of fifty fails in two percent of all requests: too little to be seen in all of them
together. The errors and slow units of each slice ("carrier=AA") are compared separately, in the order in which slices
appear: the first 64 by themselves, all later ones pooled as "other".

Looking at 65 slices raises no more false alarms than looking at one. Slot k has weight w_k, all weights together are 1,
and its harm is shown when its e-value reaches bound / w_k. Requests settle which slice gets which slot, before anything is
known of their responses, and each slot's e-value is valid by itself. So it gets that far with probability at most
w_k / bound (Ville), together at most 1 / bound, however the slices depend on one another. The weights fall as 1 / k: with
few slices each costs little, and the common ones, which appear early, cost least.

Conditions: requests that no version could answer are logged without rows and belong to no slice. A row without a value
belongs to the slice "carrier=none". A rare slice may never come, and no step waits for it. A step in which no unit of the
challenger was seen by one of the columns proves nothing.

Source: J. Ville, Étude critique de la notion de collectif (1939); weights as in V. Vovk, R. Wang, Ann. Statist. 49
(2021), doi 10.1214/20-AOS2020 (combining e-values).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from holdfast.records import Arm
from holdfast.rollout.evidence import comparison
from holdfast.rollout.evidence.records import (
    Comparison,
    Counts,
    GuardedSlice,
    RequestOutcome,
    SliceComparison,
    SliceEvidence,
    name_of,
    names_in,
    remember,
)
from holdfast.rollout.model.metric import ERRORS
from holdfast.stats import HypergeometricTest

SLICES_GUARDED: Final = 64
"""How many slices are guarded separately."""

OTHER: Final = "other"

REMEMBERED_UNITS: Final = 1024
_HARMONIC: Final = sum(1.0 / slot for slot in range(1, SLICES_GUARDED + 2))

BadByUnit = dict[str, bool]


@dataclass(frozen=True, slots=True)
class SliceFinding:
    """Evidence on one kind of bad unit in one slice; harm where `log_e` >= `log_bound`."""

    name: str
    metric: str
    counts: Counts
    log_e: float
    log_bound: float

    @property
    def is_harmful(self) -> bool:
        """Return True if harm is shown."""
        return self.log_e >= self.log_bound

    def __str__(self) -> str:
        """Return the slice with its numbers."""
        bad = f"{self.counts.challenger_bad} of {self.counts.challenger_units}"
        theirs = f"{self.counts.champion_bad} of {self.counts.champion_units}"
        return (
            f"{self.name}: {self.metric}, {bad} units bad, champion {theirs} "
            f"(ln e-value {self.log_e:.1f} of {self.log_bound:.1f})"
        )


@dataclass(frozen=True, slots=True)
class Folded:
    """The evidence after a window, its units that are in any slice, and `log_e` on the scale of the whole metric."""

    evidence: SliceEvidence
    counts: Counts
    log_e: float


def column_of(name: str) -> str:
    """Return the column of a slice.

    >>> column_of("carrier=AA")
    'carrier'
    """
    return name.partition("=")[0]


def unseen_columns(evidence: SliceEvidence, columns: Iterable[str]) -> tuple[str, ...]:
    """Return those of `columns` by which no unit of the challenger was seen since the step began."""
    return tuple(column for column in columns if column not in evidence.columns_seen)


def weight_of(slot: int, metrics: int) -> float:
    """Return the weight of slot number `slot`, from 1 on, for each of `metrics` kinds of bad units.

    >>> round(sum(weight_of(slot, 2) for slot in range(1, 66)) * 2, 12)
    1.0
    """
    return 1.0 / (slot * _HARMONIC * metrics)


def begin(margins: Mapping[str, float], latency_bound_us: float | None, needed: int) -> SliceEvidence:
    """Return evidence without a slice. `margins`: the tolerated odds ratio by metric; a step needs `needed` units."""
    return SliceEvidence(dict(margins), latency_bound_us, needed, bad_units=dict.fromkeys(margins, ""))


def fold(
    evidence: SliceEvidence, window: Iterable[RequestOutcome], log_bound: float, minute_start_us: int
) -> Folded:
    """Return the evidence after one window of requests.

    A unit counts in each slice of its rows, once per window and metric, and no more after it was bad.
    """
    requests = [(name_of(each.unit.hex()), each) for each in window]
    slices, bad_units = dict(evidence.slices), dict(evidence.bad_units)
    slice_of = _assign_slots(slices, (each for _, each in requests))
    units: dict[Arm, BadByUnit] = {Arm.CHALLENGER: {}, Arm.CHAMPION: {}}
    for metric in evidence.margins:
        newly_bad: dict[str, None] = {}
        for name, arms in _units_by_slice(requests, slice_of, metric, evidence).items():
            slices[name] = _fold_slice(
                evidence, slices[name], metric, _counts_of(arms), log_bound, minute_start_us
            )
            newly_bad |= {unit: None for known in arms.values() for unit, bad in known.items() if bad}
            for arm, known in arms.items():
                units[arm] |= {unit: bad or units[arm].get(unit, False) for unit, bad in known.items()}
        bad_units[metric] = remember(bad_units[metric], newly_bad, REMEMBERED_UNITS)
    after = replace(evidence, slices=slices, bad_units=bad_units)
    above = [found.log_e - found.log_bound for found in rank_slices(after, log_bound)]
    return Folded(after, _counts_of(units), log_bound + max(above) if above else 0.0)


def rank_slices(evidence: SliceEvidence, log_bound: float) -> list[SliceFinding]:
    """Return the finding on every slice, the nearest to its bound first."""
    found = [
        SliceFinding(
            name,
            metric,
            kept.counts,
            kept.log_e,
            log_bound - math.log(weight_of(each.slot, len(evidence.margins))),
        )
        for name, each in evidence.slices.items()
        for metric, kept in each.metrics.items()
    ]
    return sorted(found, key=lambda each: (each.log_bound - each.log_e, each.name, each.metric))


def freeze_levels(evidence: SliceEvidence, alpha: float) -> SliceEvidence:
    """Begin to hold each slice of the challenger to what the champion showed in it; the slices share `alpha`."""

    def held(kept: SliceComparison, metric: str, weight: float) -> Comparison:
        level = comparison.odds_level(
            kept.counts.champion_bad, kept.counts.champion_units, evidence.margins[metric], alpha * weight
        )
        return replace(kept.comparison, phase=comparison.freeze_level(level))

    return replace(_change_each(evidence, held), at_level=True)


def begin_detecting(evidence: SliceEvidence, run_length: float) -> SliceEvidence:
    """Begin a detector in each slice, together with one false alarm in `run_length` minutes on average.

    A slice that first came when the champion had no traffic has no level: nothing can be held against it.
    """

    def detecting(kept: SliceComparison, _: str, weight: float) -> Comparison:
        phase = comparison.begin_detecting(kept.comparison.phase, run_length / weight)
        return replace(kept.comparison, phase=phase)

    return _change_each(evidence, detecting)


def _change_each(
    evidence: SliceEvidence, change: Callable[[SliceComparison, str, float], Comparison]
) -> SliceEvidence:
    """Change each comparison, given its metric and its weight."""
    slices = {}
    for name, each in evidence.slices.items():
        weight = weight_of(each.slot, len(evidence.margins))
        changed = {
            metric: replace(kept, comparison=change(kept, metric, weight))
            for metric, kept in each.metrics.items()
        }
        slices[name] = replace(each, metrics=changed)
    return replace(evidence, slices=slices)


def _assign_slots(slices: dict[str, GuardedSlice], requests: Iterable[RequestOutcome]) -> dict[str, str]:
    """Return the guarded slice that each slice of `requests` counts in; add new ones to `slices` at the next slot."""
    counts_in: dict[str, str] = {}
    for request in requests:
        for name in request.slices:
            if name in counts_in:
                continue
            counts_in[name] = name if name in slices or len(slices) < SLICES_GUARDED else OTHER
            slices.setdefault(counts_in[name], GuardedSlice(len(slices) + 1))
    return counts_in


def _units_by_slice(
    requests: Sequence[tuple[str, RequestOutcome]],
    slice_of: Mapping[str, str],
    metric: str,
    evidence: SliceEvidence,
) -> dict[str, dict[Arm, BadByUnit]]:
    """Return whether each unit was bad, by slice and arm, without those that were bad in an earlier window."""
    known_bad, bound_us = names_in(evidence.bad_units[metric]), evidence.latency_bound_us
    found: dict[str, dict[Arm, BadByUnit]] = {}
    for unit, request in requests:
        if unit in known_bad or request.arm not in (Arm.CHALLENGER, Arm.CHAMPION):
            continue
        if metric == ERRORS:
            bad = request.failed
        else:
            assert bound_us is not None, "latency is judged with a frozen bound"
            bad = request.latency_us > bound_us
        for name in {slice_of[each]: None for each in request.slices}:
            units = found.setdefault(name, {Arm.CHALLENGER: {}, Arm.CHAMPION: {}})[request.arm]
            units[unit] = units.get(unit, False) or bad
    return found


def _counts_of(arms: Mapping[Arm, BadByUnit]) -> Counts:
    ours, theirs = arms[Arm.CHALLENGER], arms[Arm.CHAMPION]
    return Counts(len(ours), sum(ours.values()), len(theirs), sum(theirs.values()))


def _fold_slice(
    evidence: SliceEvidence,
    guarded: GuardedSlice,
    metric: str,
    counts: Counts,
    log_bound: float,
    minute_start_us: int,
) -> GuardedSlice:
    begun = SliceComparison(Comparison(HypergeometricTest.begin(evidence.margins[metric])))
    kept = guarded.metrics.get(metric, begun)
    after = comparison.fold(kept.comparison, counts, minute_start_us)
    bound = log_bound - math.log(weight_of(guarded.slot, len(evidence.margins)))
    log_e = comparison.log_e_of(after.test.log_e, after.phase, bound)
    folded = SliceComparison(after, kept.counts + counts, max(kept.log_e, log_e))
    return replace(guarded, metrics={**guarded.metrics, metric: folded})
