"""Errors of the server's own in one request: counted by step, and logged once per kind and minute.

Such an error is a defect. It must cost its request alone, and a caller that repeats the request must not fill the
operator's log.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

STEPS: Final = ("route", "decode", "prepare", "predict", "log", "count", "respond", "copy")
"""Where a request can fail: finding its handler; decompressing it; decoding and checking it; running the version; making its
log record; counting it; making its response; copying it to the shadow."""

MINUTE_US: Final = 60_000_000
_MAX_KINDS: Final = 256

_log = logging.getLogger(__name__)


class RequestErrors:
    """Counts and logs. It belongs to one thread.

    Parameters
    ----------
    clock_us
        Microseconds since 1970 UTC.
    """

    def __init__(self, clock_us: Callable[[], int]) -> None:
        self.by_step: Counter[str] = Counter()
        self._clock_us = clock_us
        self._logged_at_us: dict[tuple[str, str, int], int] = {}
        self._unlogged: Counter[tuple[str, str, int]] = Counter()

    def count(self, step: str, error: BaseException) -> None:
        """Count an error that cost a request its answer or its log record, and log it.

        Parameters
        ----------
        step
            One of `STEPS`.
        error
            What was raised, with its traceback.
        """
        self.by_step[step] += 1
        self.log(step, error)

    def log(self, step: str, error: BaseException) -> None:
        """Log `error` with its traceback, unless one of its kind was logged in the last minute.

        A kind is a step, an exception class and the line that raised it.
        """
        kind = (step, type(error).__name__, _line_of(error))
        now_us, before_us = self._clock_us(), self._logged_at_us.get(kind)
        if before_us is not None and 0 <= now_us - before_us < MINUTE_US:
            self._unlogged[kind] += 1
            return
        if before_us is None and len(self._logged_at_us) >= _MAX_KINDS:
            self._logged_at_us.clear()
        self._logged_at_us[kind] = now_us
        more = self._unlogged.pop(kind, 0)
        _log.error(
            "a request failed in the step %r (%d more of the kind since the last line)",
            step,
            more,
            exc_info=(type(error), error, error.__traceback__),
        )


def _line_of(error: BaseException) -> int:
    found = error.__traceback__
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    return 0 if found is None else found.tb_lineno
