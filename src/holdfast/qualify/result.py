"""What a gate says, and what follows from all that the gates said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
        Only `Verdict.PASS` lets a version through; too little data is `Verdict.INCONCLUSIVE`.
    observed
        The number that was judged; None when the gate judges no number.
    low, high
        The ends of its confidence interval, when it has one.
    bound
        What it was compared with.
    explanation
        The verdict in words and numbers, shown to people as it is.
    """

    gate: str
    verdict: Verdict
    observed: float | None
    low: float | None
    high: float | None
    bound: float | None
    explanation: str

    def as_dict(self) -> dict[str, object]:
        """The result in plain JSON types."""
        return asdict(self) | {"verdict": str(self.verdict)}


def judged(
    gate: str,
    verdict: Verdict,
    explanation: str,
    *,
    observed: float | None = None,
    low: float | None = None,
    high: float | None = None,
    bound: float | None = None,
) -> GateResult:
    """A `GateResult` with the numbers that there are."""
    return GateResult(gate, verdict, observed, low, high, bound, explanation)


def standing(results: Sequence[GateResult]) -> Literal["registered", "qualified", "refused"]:
    """What a version is after `results`: refused by one failure, qualified only when every gate passed.

    Anything in between leaves it registered: it may not be rolled out, and may be judged again with more
    data. Nothing judged is not a success.

    >>> passed, unsure = judged("size", Verdict.PASS, ""), judged("baseline", Verdict.INCONCLUSIVE, "")
    >>> standing([passed]), standing([passed, unsure]), standing([])
    ('qualified', 'registered', 'registered')
    """
    verdicts = {result.verdict for result in results}
    if Verdict.FAIL in verdicts:
        return "refused"
    return "qualified" if verdicts == {Verdict.PASS} else "registered"
