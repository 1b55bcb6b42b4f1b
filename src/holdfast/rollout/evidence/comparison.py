"""The evidence on one kind of bad unit, through the three times of a rollout.

While both arms have traffic, the challenger is compared with the champion. Once it has everything, nobody is left: what it
does alone is held to a level that was frozen from all that the champion showed, and bets on with the same wealth. After
its promotion it is watched for days: there a test grows blind, because it must first win back what it lost while all was
well, and a detector, which forgets, takes its place.

The state is plain JSON: "test", then "watch" (the level's test), then "detector" with the window that is under way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from holdfast.stats import BettingTest, Detector, HypergeometricTest, LevelTest, upper_level
from holdfast.stats.level_test import BETS, loss_gains

Memory = Mapping[str, Any]

LEVEL: Final = "watch"
"""Where the test against a level is kept: a name in stored evidence, older than the watch that follows a promotion."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Units of both arms in one window, and how many of them were bad."""

    challenger_units: int
    challenger_bad: int
    champion_units: int
    champion_bad: int

    @property
    def alone(self) -> bool:
        """Whether the champion had no unit."""
        return self.champion_units == 0


def begin(margin: float) -> dict[str, Any]:
    """No evidence yet against "the odds of a bad unit are at most `margin` times the champion's"."""
    return {"test": HypergeometricTest.begin(margin).state()}


def fold(memory: Memory, counts: Counts, minute_us: int) -> dict[str, Any]:
    """`memory` after the units of one more window, which lies in the minute that begins at `minute_us`.

    Windows in which the champion has units compare, also when they come late, as a log does that was read late.
    """
    units, bad = counts.challenger_units, counts.challenger_bad
    if counts.alone and "detector" in memory:
        return _watched(memory, units, bad, minute_us) if units else dict(memory)
    if counts.alone and LEVEL in memory:
        return {
            **memory,
            LEVEL: LevelTest.from_state(memory[LEVEL]).fold_counts(units=units, bad=bad).state(),
        }
    test = HypergeometricTest.from_state(memory["test"]).fold(
        challenger_units=units,
        challenger_bad=bad,
        champion_units=counts.champion_units,
        champion_bad=counts.champion_bad,
    )
    return {**memory, "test": test.state()}


def fold_losses(memory: Memory, losses: Sequence[float], minute_us: int) -> dict[str, Any]:
    """`memory` after losses, 0 to 1, that the challenger showed alone, in the minute that begins at `minute_us`."""
    if not losses:
        return dict(memory)
    if "detector" not in memory:
        return {**memory, LEVEL: LevelTest.from_state(memory[LEVEL]).fold_losses(losses).state()}
    if "told" in memory:
        told = _windowed(memory["told"], losses, minute_us)
        told["alarmed"] = memory["told"]["alarmed"] or detector_of(told).alarm
        memory = {**memory, "told": told}
    return _windowed(memory, losses, minute_us)


def _windowed(memory: Memory, losses: Sequence[float], minute_us: int) -> dict[str, Any]:
    window = memory.get("window", {"minute_us": minute_us, "gains": [0.0] * BETS})
    if minute_us > window["minute_us"]:
        memory = {**memory, "detector": detector_of(memory).state()}
        window = {"minute_us": minute_us, "gains": [0.0] * BETS}
    # Gains add up, so what is rewritten with every join stays small however many labels a minute has.
    more = loss_gains(Detector.from_state(memory["detector"]).level, losses).tolist()
    gains = [one + other for one, other in zip(window["gains"], more, strict=True)]
    return {**memory, "window": {**window, "gains": gains}}


def hold_to(memory: Memory, level: float) -> dict[str, Any]:
    """From here on, what the challenger does alone is held to `level`, a mean loss above 0 and at most 1."""
    return {**memory, LEVEL: LevelTest.begin(level).state()}


def begin_detector(memory: Memory, run_length: float) -> dict[str, Any]:
    """From here on a detector watches against the level that it is held to, with windows of a minute and on average no false
    alarm in `run_length` of them."""
    level = LevelTest.from_state(memory[LEVEL]).level
    return {**memory, "detector": Detector.begin(level, run_length).state()}


def begin_told(memory: Memory, level: float, run_length: float) -> dict[str, Any]:
    """A second detector, at a `level` below which the world may push any version: its alarm is told and is no harm."""
    return {**memory, "told": {"detector": Detector.begin(level, run_length).state(), "alarmed": False}}


def detector_of(memory: Memory) -> Detector:
    """The detector as it stands now, the window that is under way with it.

    Looking before a window has ended costs no guarantee: the gambler who begins with it bets on from its beginning, and the
    alarm is counted to the window in which it is raised.
    """
    detector = Detector.from_state(memory["detector"])
    window = memory.get("window")
    if window is None:
        return detector
    if "gains" in window:
        return detector.fold_gains(np.array(window["gains"]))
    return detector.fold_counts(units=window["units"], bad=window["bad"])


def log_e_of(memory: Memory, log_bound: float) -> float:
    """Natural logarithm of the e-value now, on the scale on which `log_bound` shows harm.

    What the comparison and the level's test have is one wealth. A detector has a bound of its own, its run length: its
    value is put in proportion, so that it reaches `log_bound` when it raises its alarm.
    """
    kept = memory["test"]
    test = BettingTest if kept["kind"].startswith("betting") else HypergeometricTest
    log_e = test.from_state(kept).log_e
    if LEVEL in memory:
        log_e += LevelTest.from_state(memory[LEVEL]).log_e
    if "detector" not in memory:
        return log_e
    detector = detector_of(memory)
    return max(log_e, log_bound * detector.log_m / math.log(detector.run_length))


def odds_level(bad: float, units: int, margin: float, alpha: float) -> float:
    """The share of bad units that a challenger is held to: an upper bound on the champion's, its odds times `margin`.

    Guarantee: below the champion's own share times the margin with probability at most `alpha`. 1 where it showed nothing:
    then nothing can be held against the challenger.

    >>> round(odds_level(36, 3600, 1.0, 0.001), 3), odds_level(0, 0, 1.0, 0.001)
    (0.021, 1.0)
    """
    share = upper_level(bad, units, alpha)
    return margin * share / (1.0 - share + margin * share)


def _watched(memory: Memory, units: int, bad: int, minute_us: int) -> dict[str, Any]:
    window = memory.get("window", {"minute_us": minute_us, "units": 0, "bad": 0})
    if minute_us > window["minute_us"]:
        memory = {**memory, "detector": detector_of(memory).state()}
        window = {"minute_us": minute_us, "units": 0, "bad": 0}
    after = {**window, "units": window["units"] + units, "bad": window["bad"] + bad}
    return {**memory, "window": after}
