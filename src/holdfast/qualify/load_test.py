"""Can a serving process load it, in time and in memory? Tried before anything else (R76, R96; reliability
F8)."""

from __future__ import annotations

from typing import Final

from holdfast.qualify.gate_config import MEBIBYTE, Gates
from holdfast.qualify.load_report import Trial
from holdfast.qualify.result import GateResult, judged
from holdfast.records import Verdict

GATE: Final = "loads"


def loads(trial: Trial, gates: Gates) -> GateResult:
    """Pass when a fresh process opened the file and answered within `gates.load_seconds` and
    `gates.memory_bytes`.

    A process that was killed, or had to be, is a failure, as a refused file is: the server would have met
    the same.
    """
    if not trial.loaded or trial.load_seconds is None or trial.peak_bytes is None:
        return judged(
            GATE,
            Verdict.FAIL,
            f"the process that tried it {trial.outcome} while {trial.stage}: {trial.explanation}",
            bound=gates.load_seconds,
        )
    measured = (
        f"loaded in {trial.load_seconds:.3f} s with {trial.peak_bytes / MEBIBYTE:.0f} MiB resident at most"
    )
    within = trial.load_seconds <= gates.load_seconds and trial.peak_bytes <= gates.memory_bytes
    allowed = f"allowed are {gates.load_seconds:g} s and {gates.memory_bytes / MEBIBYTE:.0f} MiB"
    return judged(
        GATE,
        Verdict.PASS if within else Verdict.FAIL,
        f"{measured}; {allowed}",
        observed=trial.load_seconds,
        bound=gates.load_seconds,
    )
