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
        The gate's name, which is also the name of its module.
    verdict
        Only `Verdict.PASS` qualifies a version; too little data is `Verdict.INCONCLUSIVE`.
    observed
        The measured number; None if the gate measures none.
    low, high
        The ends of its confidence interval, if it has one.
    bound
        The limit that it was compared with.
    explanation
        The verdict as text, shown to users as it is.
    """

    gate: str
    verdict: Verdict
    observed: float | None
    low: float | None
    high: float | None
    bound: float | None
    explanation: str


def gate_result(
    gate: str,
    verdict: Verdict,
    explanation: str,
    *,
    observed: float | None = None,
    low: float | None = None,
    high: float | None = None,
    bound: float | None = None,
) -> GateResult:
    """Return a `GateResult`; numbers that do not apply are None.

    Parameters
    ----------
    gate, verdict, explanation
        As in `GateResult`.
    observed, low, high, bound
        As in `GateResult`; None by default.
    """
    return GateResult(gate, verdict, observed, low, high, bound, explanation)


def decide_status(results: Sequence[GateResult]) -> Literal["registered", "qualified", "refused"]:
    """Return the status of a version after `results`.

    One failure refuses it; it is qualified only if every gate passed. Otherwise it stays registered: it may not
    be rolled out, and may be evaluated again with more data. No result is not a success.

    >>> passed, unsure = gate_result("size", Verdict.PASS, ""), gate_result("baseline", Verdict.INCONCLUSIVE, "")
    >>> decide_status([passed]), decide_status([passed, unsure]), decide_status([])
    ('qualified', 'registered', 'registered')
    """
    verdicts = {result.verdict for result in results}
    if Verdict.FAIL in verdicts:
        return "refused"
    return "qualified" if verdicts == {Verdict.PASS} else "registered"
