"""The result of a gate, and the status that follows from all results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.records import Verdict


@dataclass(frozen=True, slots=True)
class GateResult:
    """The verdict of one gate on one version.

    Parameters
    ----------
    gate
        The gate's name.
    verdict
        Only `Verdict.PASS` qualifies a version; too little data is `Verdict.INCONCLUSIVE`.
    explanation
        The verdict as text, shown to users as it is.
    observed
        The measured number; None if the gate measures none.
    low, high
        The ends of its confidence interval, if it has one.
    bound
        The limit that it was compared with.
    """

    gate: str
    verdict: Verdict
    explanation: str
    observed: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None = None


def decide_status(results: Sequence[GateResult]) -> Literal["registered", "qualified", "refused"]:
    """Return the status of a version after `results`.

    One failure refuses it; it is qualified only if every gate passed. Otherwise it stays registered: it may not
    be rolled out, and may be evaluated again with more data. No result is not a success.

    >>> passed, unsure = GateResult("size", Verdict.PASS, ""), GateResult("baseline", Verdict.INCONCLUSIVE, "")
    >>> decide_status([passed]), decide_status([passed, unsure]), decide_status([])
    ('qualified', 'registered', 'registered')
    """
    verdicts = {result.verdict for result in results}
    if Verdict.FAIL in verdicts:
        return "refused"
    return "qualified" if verdicts == {Verdict.PASS} else "registered"
