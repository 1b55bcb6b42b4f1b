"""What was seen when a fresh process tried a version: the evidence of the gates that need one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["answered", "refused", "died", "timed out"]
"""How the process ended: it answered everything, it refused the file with an error, something killed it, or
we did."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """A named input or output as ONNX Runtime describes it: `kind` as in "tensor(float)", `rank` the number
    of axes."""

    name: str
    kind: str
    rank: int

    def __str__(self) -> str:
        return f"{self.name} {self.kind}[{self.rank}]"


@dataclass(frozen=True, slots=True)
class Trial:
    """One process, one file.

    Parameters
    ----------
    outcome
        How it ended.
    stage
        What it was doing last: "starting", "reading", "loading", "answering" or "done".
    explanation
        Why it did not answer; empty when it did.
    load_seconds
        Opening the file and one answer, by the wall clock; None when it did not get so far.
    peak_bytes
        Largest resident memory of the process; None when it is not known.
    inputs, outputs
        The file's signature, in its own order; empty when it was not opened. It may be known although the
        process failed later.
    metadata
        What the file says of itself; empty when it was not read.
    golden
        Its answer to each golden query, in order.
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
        """Whether the file was opened and answered, and the process lived to tell."""
        return self.outcome == "answered"
