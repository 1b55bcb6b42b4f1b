"""The gate `check_size`: limit the size of the file and its growth (R95)."""

from __future__ import annotations

from typing import Final

from holdfast.qualify.gate_config import Gates
from holdfast.qualify.result import GateResult
from holdfast.records import Verdict

GATE: Final = "size"

ALARM_GROWTH: Final = 1.05
"""A file larger than this multiple of the version before is reported, whatever the verdict."""

ALARM_SHRINK: Final = 0.5
"""A file smaller than this multiple is reported: the model was trained on too little, or lost a part of itself."""


def check_size(file_bytes: int, previous_bytes: int | None, gates: Gates) -> GateResult:
    """Fail over `gates.size_bytes`, or over `gates.size_growth` times the version before; alarm at +5 % and -50 %.

    The alarm alone refuses nothing: a forest trained on more rows rightly grows by a few per cent, and another learner
    may need less.

    >>> check_size(1_100, 1_000, Gates()).explanation
    'ALARM: 1,100 bytes are 10.0 % more than the 1,000 of the version before'
    >>> check_size(130, 1_000, Gates()).explanation
    'ALARM: 130 bytes are 87.0 % less than the 1,000 of the version before'
    """
    limit = float(gates.size_bytes)
    if file_bytes > gates.size_bytes:
        why = f"{file_bytes:,} bytes are more than the {gates.size_bytes:,} declared"
        return GateResult(GATE, Verdict.FAIL, why, observed=float(file_bytes), bound=limit)
    if previous_bytes is None:
        why = f"{file_bytes:,} bytes; no version before to compare with"
        return GateResult(GATE, Verdict.PASS, why, observed=float(file_bytes), bound=limit)
    growth = file_bytes / previous_bytes
    change = f"{abs(growth - 1) * 100:.1f} % {'more' if growth >= 1 else 'less'}"
    compared = f"{file_bytes:,} bytes are {change} than the {previous_bytes:,} of the version before"
    return GateResult(
        GATE,
        Verdict.FAIL if growth > gates.size_growth else Verdict.PASS,
        f"ALARM: {compared}" if not ALARM_SHRINK <= growth <= ALARM_GROWTH else compared,
        observed=growth,
        bound=gates.size_growth,
    )
