"""The limits of the gates; declared with the model, so that a change of them is reviewed (R73)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast.errors import InputError
from holdfast.field_types import checked

MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
@checked()
class Gates:
    """The limits of the gates.

    Parameters
    ----------
    load_seconds
        Maximum time to open the file and predict once.
    memory_bytes
        Maximum resident memory of the sandbox process. The Python runtime, Polars and ONNX Runtime alone take
        some 200 MiB of it.
    trial_seconds
        Processor time after which the sandbox process is killed; by the wall clock four times as much.
    beat_heuristic_by
        The lower end of the interval of AUC minus the heuristic's AUC must be above this, which is at least 0.
    worse_than_champion_by
        The margin of non-inferiority: the lower end of the interval of AUC minus the champion's AUC must be
        above minus this.
    confidence
        Of those two-sided intervals, between 0.5 and 1. A version that is no better than the heuristic
        passes that gate with a probability of at most (1 - confidence) / 2.
    labelled_rows, of_each_class
        Minimum number of labelled held-out rows, in all and of either class.
    size_bytes
        Maximum size of the file.
    size_growth
        Maximum size as a multiple of the version before. Growth of more than 5 % is always reported as an
        alarm. It is no failure by itself, because training on more rows may increase a model's size.
    """

    load_seconds: float = 10.0
    memory_bytes: int = 1024 * MEBIBYTE
    trial_seconds: float = 60.0
    beat_heuristic_by: float = 0.0
    worse_than_champion_by: float = 0.01
    confidence: float = 0.95
    labelled_rows: int = 500
    of_each_class: int = 50
    size_bytes: int = 256 * MEBIBYTE
    size_growth: float = 2.0

    def __post_init__(self) -> None:
        rules = (
            ("load_seconds", self.load_seconds > 0, "it must be above 0"),
            ("memory_bytes", self.memory_bytes > 0, "it must be above 0"),
            ("trial_seconds", self.trial_seconds > 0, "it must be above 0"),
            ("beat_heuristic_by", self.beat_heuristic_by >= 0, "it must not be negative"),
            ("worse_than_champion_by", self.worse_than_champion_by >= 0, "it must not be negative"),
            ("confidence", 0.5 <= self.confidence < 1, "it lies between 0.5 and 1"),
            ("labelled_rows", self.labelled_rows >= 1, "it must be at least 1"),
            ("of_each_class", self.of_each_class >= 2, "an interval needs at least 2"),
            ("size_bytes", self.size_bytes > 0, "it must be above 0"),
            ("size_growth", self.size_growth >= 1, "it must be at least 1"),
        )
        wrong = [
            f"{name} is {getattr(self, name)}: {rule}"
            for name, right, rule in rules
            if not right or not math.isfinite(getattr(self, name))
        ]
        if wrong:
            raise InputError("HF107", f"Gates: {'; '.join(wrong)}")


_DEVIATION: float = 0.09
"""Standard deviation of the difference of two equal versions' AUC, times the root of the rarer class's held-out labels.

Measured on versions of consecutive nights, which were trained on nearly the same rows.
"""
_SURELY: float = 1.96 + 1.28
"""Standard deviations from a difference of 0 to the margin: then nine of ten equal versions pass at 95 % confidence."""


def suggest_margin(rarer: float) -> float:
    """Return a `worse_than_champion_by` that most equal versions pass with `rarer` held-out labels of the rarer class.

    It is at least that of `Gates`. A gate that only a much better version passes would end every nightly rollout before it
    begins.

    >>> suggest_margin(80), suggest_margin(350), suggest_margin(10_000)
    (0.035, 0.02, 0.01)
    """
    needed = _SURELY * _DEVIATION / math.sqrt(max(1.0, rarer))
    return max(Gates().worse_than_champion_by, min(0.5, math.ceil(200 * needed) / 200))
