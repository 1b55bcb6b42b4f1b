"""What the simulated world must know of the real code: what its loop only logs, and which refusals are right."""

from __future__ import annotations

import logging

from holdfast.errors import HoldfastError
from tests.simulation.checker import RejectedError

EXPECTED = {"HF205", "HF302", "HF304", "HF311", "HF404"}
"""What a concern may fail by: a ledger that is unreachable or busy, and another that was faster."""
REFUSALS = EXPECTED | {"HF303", "HF403", "HF410"}
"""What a person may be reported."""


class Listener(logging.Handler):
    """Hears what the loop only logs: whatever it did not expect."""

    def __init__(self, odd: list[str]) -> None:
        super().__init__()
        self._odd = odd

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HoldfastError) and error.code in EXPECTED:
            return
        if error is not None:
            self._odd.append(
                f"{record.getMessage()}: {error!r}" if not isinstance(error, RejectedError) else str(error)
            )
