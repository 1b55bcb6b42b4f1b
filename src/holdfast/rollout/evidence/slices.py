"""Does the challenger harm one kind of request only? A guard for each slice that cannot hide behind the others.

A version that fails for one carrier of fifty fails in two percent of all requests: too little to be seen in all of them
together, and everything for who flies with that carrier. Each slice ("carrier=AA") is compared for itself, its errors and
its slow units, in the order in which slices appear: the first 64 each for itself, all later ones pooled as "other".

Why looking at 65 slices cries wolf no more often than looking at one: slot k has weight w_k, all weights together are 1,
and its harm is shown when its e-value reaches bound / w_k. Which slice gets which slot is settled by requests, before
anything is known of how they were answered, and each slot's e-value is valid by itself, so it ever gets that far with
probability at most w_k / bound (Ville); together at most 1 / bound, however the slices depend on one another. The weights
fall as 1 / k: with few slices each costs little, and the common ones, which appear early, cost least.

What it rests on: the requests that nobody could answer are logged without rows and belong to no slice. A row without a
value belongs to the slice "carrier=none". A slice that is rare may never come, and nobody waits for it; but a column by
which no unit of the challenger was seen at all has guarded nobody, and such a step proves nothing.

Source: J. Ville, Étude critique de la notion de collectif (1939); weights as in V. Vovk, R. Wang, Ann. Statist. 49
(2021), doi 10.1214/20-AOS2020 (combining e-values).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from holdfast.records import Arm
from holdfast.rollout.evidence import comparison
from holdfast.rollout.evidence.comparison import Counts
from holdfast.rollout.model.metric import ERRORS, Answered
from holdfast.rollout.model.unit_memory import name_of, names_in, remember

SLICES_GUARDED: Final = 64
"""How many slices are guarded each for itself."""

OTHER: Final = "other"

COLUMNS_SEEN: Final = "columns_seen"
"""Where the columns are kept by which units of the challenger were seen since the step began."""

REMEMBERED_UNITS: Final = 1024
_HARMONIC: Final = sum(1.0 / slot for slot in range(1, SLICES_GUARDED + 2))

Memory = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SliceShown:
    """What one slice showed of one kind of bad unit; harm where `log_e` >= `log_bound`."""

    name: str
    metric: str
    counts: Counts
    log_e: float
    log_bound: float

    def __str__(self) -> str:
        """The slice with its numbers."""
        bad = f"{self.counts.challenger_bad} of {self.counts.challenger_units}"
        theirs = f"{self.counts.champion_bad} of {self.counts.champion_units}"
        return (
            f"{self.name}: {self.metric}, {bad} units bad, champion {theirs} "
            f"(ln e-value {self.log_e:.1f} of {self.log_bound:.1f})"
        )


@dataclass(frozen=True, slots=True)
class Folded:
    """The memory after a window, its units that are in any slice, each once, and the evidence on the metric's own scale."""

    memory: dict[str, Any]
    counts: Counts
    log_e: float


def column_of(name: str) -> str:
    """The column that tells a slice apart.

    >>> column_of("carrier=AA")
    'carrier'
    """
    return name.partition("=")[0]


def unseen(memory: Memory, columns: Iterable[str]) -> tuple[str, ...]:
    """Those of `columns` by which no unit of the challenger was seen since the step began."""
    seen = memory.get(COLUMNS_SEEN, ())
    return tuple(column for column in columns if column not in seen)


def weight_of(slot: int, metrics: int) -> float:
    """The weight of slot number `slot`, from 1 on, for each of `metrics` kinds of bad units.

    >>> round(sum(weight_of(slot, 2) for slot in range(1, 66)) * 2, 12)
    1.0
    """
    return 1.0 / (slot * _HARMONIC * metrics)


def begin(margins: Mapping[str, float], latency_bound_us: float | None) -> dict[str, Any]:
    """No slice yet. `margins` are the odds ratios that are tolerated, by the kind of bad unit that is judged."""
    return {
        "margins": dict(margins),
        "slice_bound_us": latency_bound_us,
        "slices": {},
        "bad": dict.fromkeys(margins, ""),
    }


def fold(memory: Memory, window: Iterable[Answered], log_bound: float, minute_us: int) -> Folded:
    """The guard after one window of requests. A unit counts in each slice that its rows belong to, once per window and
    kind, and no more after it was bad."""
    after: dict[str, Any] = {**memory, "slices": dict(memory["slices"]), "bad": dict(memory["bad"])}
    requests = [(name_of(each.unit.hex()), each) for each in window]
    slot_of = _slots(after["slices"], (each for _, each in requests))
    units: dict[Arm, dict[str, bool]] = {Arm.CHALLENGER: {}, Arm.CHAMPION: {}}
    for metric in memory["margins"]:
        found = _units(requests, slot_of, metric, memory)
        newly_bad: dict[str, None] = {}
        for name, arms in found.items():
            counts = _counted(arms)
            after["slices"][name] = _fold_slice(after, name, metric, counts, log_bound, minute_us)
            newly_bad |= {unit: None for known in arms.values() for unit, bad in known.items() if bad}
            for arm, known in arms.items():
                units[arm] |= {unit: bad or units[arm].get(unit, False) for unit, bad in known.items()}
        after["bad"][metric] = remember(after["bad"][metric], newly_bad, REMEMBERED_UNITS)
    log_e = max((shown.log_e - shown.log_bound for shown in shown_by(after, log_bound)), default=-math.inf)
    return Folded(after, _counted(units), 0.0 if log_e == -math.inf else log_bound + log_e)


def shown_by(memory: Memory, log_bound: float) -> list[SliceShown]:
    """What every slice showed, the nearest to its bound first."""
    shown = []
    for name, kept in memory["slices"].items():
        for metric in memory["margins"]:
            if metric in kept:
                bound = log_bound - math.log(weight_of(kept["slot"], len(memory["margins"])))
                counts = Counts(*kept[metric]["counts"])
                shown.append(SliceShown(name, metric, counts, kept[metric]["log_e"], bound))
    return sorted(shown, key=lambda each: (each.log_bound - each.log_e, each.name, each.metric))


def hold_to_levels(memory: Memory, alpha: float) -> dict[str, Any]:
    """From here on each slice of the challenger is held to what the champion showed in it; `alpha` is shared among them."""

    def held(kept: Memory, metric: str, weight: float) -> dict[str, Any]:
        counts = Counts(*kept["counts"])
        level = comparison.odds_level(
            counts.champion_bad, counts.champion_units, memory["margins"][metric], alpha * weight
        )
        return comparison.hold_to(kept, level)

    return _each(memory, held)


def begin_detectors(memory: Memory, run_length: float) -> dict[str, Any]:
    """From here on detectors watch, together with on average no false alarm in `run_length` minutes.

    A slice that first came when the champion had no traffic any more has no level: nothing can be held against it.
    """

    def watched(kept: Memory, _: str, weight: float) -> dict[str, Any]:
        return (
            comparison.begin_detector(kept, run_length / weight) if comparison.LEVEL in kept else dict(kept)
        )

    return _each(memory, watched)


def _each(memory: Memory, change: Callable[[Memory, str, float], dict[str, Any]]) -> dict[str, Any]:
    """`memory` with what `change` makes of each slice's evidence, given its kind of bad unit and its weight."""
    slices: dict[str, Any] = {}
    for name, kept in memory["slices"].items():
        weight = weight_of(kept["slot"], len(memory["margins"]))
        changed = {
            metric: change(kept[metric], metric, weight) for metric in memory["margins"] if metric in kept
        }
        slices[name] = {**kept, **changed}
    return {**memory, "slices": slices}


def _slots(slices: dict[str, Any], requests: Iterable[Answered]) -> dict[str, str]:
    """Which guarded slice each slice of `requests` counts in; those that are new get the next slot."""
    counts_in: dict[str, str] = {}
    for request in requests:
        for name in request.slices:
            if name in counts_in:
                continue
            counts_in[name] = name if name in slices or len(slices) < SLICES_GUARDED else OTHER
            slices.setdefault(counts_in[name], {"slot": len(slices) + 1})
    return counts_in


def _units(
    requests: Sequence[tuple[str, Answered]], slot_of: Mapping[str, str], metric: str, memory: Memory
) -> dict[str, dict[Arm, dict[str, bool]]]:
    """Whether each unit was bad, by slice and arm; without those that were bad in an earlier window."""
    known_bad, bound_us = names_in(memory["bad"][metric]), memory["slice_bound_us"]
    found: dict[str, dict[Arm, dict[str, bool]]] = {}
    for unit, request in requests:
        if unit in known_bad or request.arm not in (Arm.CHALLENGER, Arm.CHAMPION):
            continue
        bad = request.failed if metric == ERRORS else request.latency_us > bound_us
        for name in {slot_of[each]: None for each in request.slices}:
            units = found.setdefault(name, {Arm.CHALLENGER: {}, Arm.CHAMPION: {}})[request.arm]
            units[unit] = units.get(unit, False) or bad
    return found


def _counted(arms: Mapping[Arm, Mapping[str, bool]]) -> Counts:
    ours, theirs = arms[Arm.CHALLENGER], arms[Arm.CHAMPION]
    return Counts(len(ours), sum(ours.values()), len(theirs), sum(theirs.values()))


def _plus(one: Counts, other: Counts) -> Counts:
    return Counts(
        one.challenger_units + other.challenger_units,
        one.challenger_bad + other.challenger_bad,
        one.champion_units + other.champion_units,
        one.champion_bad + other.champion_bad,
    )


def _fold_slice(
    memory: Memory, name: str, metric: str, counts: Counts, log_bound: float, minute_us: int
) -> dict[str, Any]:
    slot = memory["slices"][name]
    begun = {**comparison.begin(memory["margins"][metric]), "counts": [0, 0, 0, 0], "log_e": 0.0}
    kept = slot.get(metric, begun)
    after = comparison.fold(kept, counts, minute_us)
    bound = log_bound - math.log(weight_of(slot["slot"], len(memory["margins"])))
    seen = _plus(Counts(*kept["counts"]), counts)
    after["counts"] = [
        seen.challenger_units, seen.challenger_bad, seen.champion_units, seen.champion_bad,
    ]  # fmt: skip
    after["log_e"] = max(kept["log_e"], comparison.log_e_of(after, bound))
    return {**slot, metric: after}
