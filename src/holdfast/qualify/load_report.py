"""The report of the sandbox process that loaded a version: the evidence of the gates that need one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
