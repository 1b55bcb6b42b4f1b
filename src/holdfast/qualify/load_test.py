"""The gate `load_test`: load the file in a process within limits of time and memory (R76, R96).

The process's report is also the evidence of the other gates that need the file opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from holdfast.qualify.gate_config import MEBIBYTE, Gates
from holdfast.qualify.result import GateResult
from holdfast.records import Verdict

GATE: Final = "load_test"

Outcome = Literal["succeeded", "refused", "died", "timed out"]
"""How the process ended: it predicted everything, refused the file with an error, crashed, or was killed."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """A named input or output of an ONNX model: `kind` as in "tensor(float)", `rank` the number of axes."""

    name: str
    kind: str
    rank: int

    def __str__(self) -> str:
        return f"{self.name} {self.kind}[{self.rank}]"


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The report of one process and one file.

    Parameters
    ----------
    outcome
        How it ended.
    stage
        Its last stage: "starting", "reading", "loading", "predicting" or "done".
    explanation
        Why it did not predict; empty if it did.
    load_seconds
        Time to open the file and predict once, by the wall clock; None if it did not get so far.
    peak_bytes
        Maximum resident memory of the process; None if unknown.
    inputs, outputs
        The file's signature, in its own order; empty if it was not opened. It may be known although the
        process failed later.
    metadata
        The file's metadata; empty if it was not read.
    golden
        The prediction of each golden query, in order.
    """

    outcome: Outcome
    stage: str
    explanation: str
    load_seconds: float | None = None
    peak_bytes: int | None = None
    inputs: tuple[TensorType, ...] = ()
    outputs: tuple[TensorType, ...] = ()
    metadata: Mapping[str, object] | None = None
    golden: tuple[float, ...] = ()

    @property
    def loaded(self) -> bool:
        """Return True if the file was opened and predicted, and the process ended normally."""
        return self.outcome == "succeeded"


def check_load(report: LoadReport, gates: Gates) -> GateResult:
    """Pass if a fresh process opened the file and predicted within `gates.load_seconds` and `gates.memory_bytes`.

    A killed process is a failure, as a refused file is: a server would fail in the same way.
    """
    if not report.loaded or report.load_seconds is None or report.peak_bytes is None:
        why = f"the sandbox process {report.outcome} while {report.stage}: {report.explanation}"
        return GateResult(GATE, Verdict.FAIL, why, bound=gates.load_seconds)
    measured = (
        f"loaded in {report.load_seconds:.3f} s with {report.peak_bytes / MEBIBYTE:.0f} MiB resident at most"
    )
    within = report.load_seconds <= gates.load_seconds and report.peak_bytes <= gates.memory_bytes
    allowed = f"the limits are {gates.load_seconds:g} s and {gates.memory_bytes / MEBIBYTE:.0f} MiB"
    return GateResult(
        GATE,
        Verdict.PASS if within else Verdict.FAIL,
        f"{measured}; {allowed}",
        observed=report.load_seconds,
        bound=gates.load_seconds,
    )
