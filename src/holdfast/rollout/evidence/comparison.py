"""Fold units or losses into the phases of a comparison, and read the evidence that they hold.

The level test bets on with the wealth of the comparison. During the bake time a detector replaces it: after a long good
period a test has lost its wealth and reacts late, and a detector does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

from msgspec.structs import replace

from holdfast.rollout.evidence.records import (
    AtLevel,
    Comparing,
    Comparison,
    Counts,
    CountWindow,
    Detecting,
    LossWindow,
    Phase,
    WindowedDetector,
)
from holdfast.stats import Detector, LevelTest, upper_level
from holdfast.stats.level_test import BETS, loss_gains


def fold(comparison: Comparison, counts: Counts, minute_start_us: int) -> Comparison:
    """Return `comparison` after one more window, which lies in the minute that begins at `minute_start_us`.

    A window in which the champion has units is compared, also when its log was read late.
    """
    units, bad = counts.challenger_units, counts.challenger_bad
    if counts.champion_units == 0:
        match comparison.phase:
            case Detecting() as phase:
                return replace(comparison, phase=_fold_counts(phase, units, bad, minute_start_us))
            case AtLevel(test=level):
                return replace(comparison, phase=AtLevel(level.fold_counts(units=units, bad=bad)))
            case Comparing():
                pass
            case other:
                assert_never(other)
    test = comparison.test.fold(
        challenger_units=units,
        challenger_bad=bad,
        champion_units=counts.champion_units,
        champion_bad=counts.champion_bad,
    )
    return replace(comparison, test=test)


def fold_losses(
    phase: AtLevel | Detecting, losses: Sequence[float], minute_start_us: int
) -> AtLevel | Detecting:
    """Return `phase` after `losses`, from 0 to 1, that the challenger showed alone in the minute `minute_start_us`."""
    match phase:
        case AtLevel():
            return AtLevel(phase.test.fold_losses(losses))
        case Detecting():
            return replace(phase, detecting=fold_window_losses(phase.detecting, losses, minute_start_us))


def fold_window_losses(
    detecting: WindowedDetector, losses: Sequence[float], minute_start_us: int
) -> WindowedDetector:
    """Return `detecting` after `losses` in the minute `minute_start_us`; an older minute counts in the current window."""
    window = detecting.window
    if window is None or minute_start_us > window.minute_start_us:
        detecting, window = _next_window(detecting), LossWindow(minute_start_us, (0.0,) * BETS)
    assert isinstance(window, LossWindow), "a detector of losses has windows of losses"
    # Gains add up, so the record stays small however many labels a minute has.
    more = loss_gains(detecting.detector.level, losses).tolist()
    gains = tuple(one + other for one, other in zip(window.log_gains, more, strict=True))
    return replace(detecting, window=replace(window, log_gains=gains))


def freeze_level(level: float) -> AtLevel:
    """Begin to hold the challenger to `level`, a mean loss above 0 and at most 1."""
    return AtLevel(LevelTest.begin(level))


def begin_detecting(phase: Phase, run_length: float) -> Phase:
    """Begin a detector at the frozen level, with one false alarm in `run_length` windows of a minute on average.

    A phase without a level stays as it is: nothing can be held against it.
    """
    if not isinstance(phase, AtLevel):
        return phase
    return Detecting(phase.test, begin_detector(phase.test.level, run_length))


def begin_detector(level: float, run_length: float) -> WindowedDetector:
    """Begin a detector of a mean loss above `level`."""
    return WindowedDetector(Detector.begin(level, run_length))


def log_e_of(compared: float, phase: Phase, log_bound: float) -> float:
    """Return the natural logarithm of the e-value, on the scale on which `log_bound` shows harm.

    `compared` is that of the comparison; it and the level test share one wealth. A detector has its run length as bound:
    its value is scaled, so that it reaches `log_bound` when it raises its alarm.
    """
    match phase:
        case Comparing():
            return compared
        case AtLevel():
            return compared + phase.test.log_e
        case Detecting():
            detector = phase.detecting.current()
            log_e = compared + phase.test.log_e
            return max(log_e, log_bound * detector.log_m / math.log(detector.run_length))


def odds_level(bad: float, units: int, margin: float, alpha: float) -> float:
    """Return the share of bad units that a challenger is held to: an upper bound on the champion's, its odds times `margin`.

    Guarantee: below the champion's own share times the margin with probability at most `alpha`. 1 where the champion has no
    unit: then nothing can be held against the challenger.

    >>> round(odds_level(36, 3600, 1.0, 0.001), 3), odds_level(0, 0, 1.0, 0.001)
    (0.021, 1.0)
    """
    share = upper_level(bad, units, alpha)
    return margin * share / (1.0 - share + margin * share)


def _fold_counts(phase: Detecting, units: int, bad: int, minute_start_us: int) -> Detecting:
    if not units:
        return phase
    detecting, window = phase.detecting, phase.detecting.window
    if window is None or minute_start_us > window.minute_start_us:
        detecting, window = _next_window(detecting), CountWindow(minute_start_us, 0, 0)
    assert isinstance(window, CountWindow), "a detector of bad units has windows of counts"
    after = replace(window, units=window.units + units, bad=window.bad + bad)
    return replace(phase, detecting=replace(detecting, window=after))


def _next_window(detecting: WindowedDetector) -> WindowedDetector:
    return WindowedDetector(detecting.current())
