"""Which labelled answers may be compared with one another: those that were given under one share, within one hour.

Labels come together that belong to answers of many days. Compared in the order in which they came, the challenger's would
mostly be of the days in which its share was large and the champion's of all days; a world that grew harder meanwhile
would look like the challenger's harm. Within a stratum the chance of being the challenger's is the same for each answer, so
what the arms differ in is the version alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from holdfast.records import HOUR_US, Arm

STRATUM_US: Final = HOUR_US
"""How long a stratum is at most, microseconds: within an hour the world changes little."""


@dataclass(frozen=True, slots=True)
class LabelledPrediction:
    """A predicted row whose label has arrived.

    `at_us` is the time of its prediction, microseconds since 1970 UTC, and `score` its quality, 0 to 1. `share_ppm` is the
    challenger's share when it was made, parts per million, as its record states; None if it states none.
    """

    prediction: str
    at_us: int
    arm: Arm
    unit: bytes
    score: float
    share_ppm: int | None = None


@dataclass(frozen=True, slots=True)
class Stratum:
    """The scores of both arms' units in one hour under one share, each in order of the unit's first prediction.

    `since_us` names the stratum: the start of its hour in microseconds since 1970 UTC plus its share in parts per million.
    Names rise with time, because a share is less than a second. Where records state no share, it is when the period began.
    """

    since_us: int
    challenger: tuple[float, ...]
    champion: tuple[float, ...]


def stratified(
    predictions: Iterable[LabelledPrediction], changes_us: Sequence[int] = ()
) -> tuple[Stratum, ...]:
    """Return `predictions` by stratum, the oldest first. In each, those of one unit count as one, their mean.

    Parameters
    ----------
    changes_us
        When the model's traffic plans were committed, rising; those before the hour of the first prediction may be missing.
        Only for predictions whose records state no share.

    Guarantee: no stratum has predictions under two shares, or of two hours: some servers follow a plan later than others, so
    the share is the one that the record states. Predictions without one are separated by `changes_us`, assuming that all
    servers followed at once.

    >>> served = [LabelledPrediction(str(at), at, Arm.CHAMPION, bytes([at]), 0.5, 10_000 * (at % 2)) for at in range(5)]
    >>> [(each.since_us, len(each.champion)) for each in stratified(served)]
    [(0, 3), (10000, 2)]
    >>> served = [LabelledPrediction(str(at), at * STRATUM_US // 4, Arm.CHAMPION, bytes([at]), 0.5) for at in range(6)]
    >>> [(each.since_us, len(each.champion)) for each in stratified(served, [STRATUM_US // 2])]
    [(0, 2), (1800000000, 2), (3600000000, 2)]
    """
    found: dict[int, _Units] = defaultdict(_Units)
    for each in sorted(predictions, key=lambda one: (one.at_us, one.prediction)):
        found[_stratum_of(each, changes_us)].of[each.arm, each.unit].append(each.score)
    return tuple(
        Stratum(since_us, units.scores(Arm.CHALLENGER), units.scores(Arm.CHAMPION))
        for since_us, units in sorted(found.items())
    )


def _stratum_of(prediction: LabelledPrediction, changes_us: Sequence[int]) -> int:
    hour_us = prediction.at_us - prediction.at_us % STRATUM_US
    if prediction.share_ppm is not None:
        return hour_us + prediction.share_ppm
    changed = bisect_right(changes_us, prediction.at_us)
    return max(hour_us, changes_us[changed - 1]) if changed else hour_us


@dataclass(slots=True)
class _Units:
    """Scores by arm and unit, in the order in which the units came."""

    of: dict[tuple[Arm, bytes], list[float]] = field(default_factory=lambda: defaultdict(list))

    def scores(self, wanted: Arm) -> tuple[float, ...]:
        return tuple(sum(each) / len(each) for (arm, _), each in self.of.items() if arm is wanted)
