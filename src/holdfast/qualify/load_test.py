"""The gate `load_test`: load the file in a process within limits of time and memory (R76, R96; reliability F8)."""

from __future__ import annotations

from typing import Final

from holdfast.qualify.gate_config import MEBIBYTE, Gates
from holdfast.qualify.load_report import LoadReport
from holdfast.qualify.result import GateResult, gate_result
from holdfast.records import Verdict

GATE: Final = "load_test"


def check_load(report: LoadReport, gates: Gates) -> GateResult:
    """Pass if a fresh process opened the file and predicted within `gates.load_seconds` and `gates.memory_bytes`.

    A killed process is a failure, as a refused file is: a server would fail in the same way.
    """
    if not report.loaded or report.load_seconds is None or report.peak_bytes is None:
        return gate_result(
            GATE,
            Verdict.FAIL,
            f"the sandbox process {report.outcome} while {report.stage}: {report.explanation}",
            bound=gates.load_seconds,
        )
    measured = (
        f"loaded in {report.load_seconds:.3f} s with {report.peak_bytes / MEBIBYTE:.0f} MiB resident at most"
    )
    within = report.load_seconds <= gates.load_seconds and report.peak_bytes <= gates.memory_bytes
    allowed = f"the limits are {gates.load_seconds:g} s and {gates.memory_bytes / MEBIBYTE:.0f} MiB"
    return gate_result(
        GATE,
        Verdict.PASS if within else Verdict.FAIL,
        f"{measured}; {allowed}",
        observed=report.load_seconds,
        bound=gates.load_seconds,
    )
