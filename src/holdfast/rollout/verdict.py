"""What is said of one metric of a rollout, with the numbers that it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.records import Verdict


@dataclass(frozen=True, slots=True)
class MetricVerdict:
    """One metric's verdict with the numbers that it rests on; `wanting` says what is still too little."""

    metric: str
    verdict: Verdict
    units: int
    needed: int
    log_e: float
    log_bound: float
    wanting: str
