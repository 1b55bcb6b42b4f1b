"""Waiting for a condition: polls until it holds, and fails after a deadline that a busy machine does not reach."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 120.0
"""A deadline only ends what would never end: it reports nothing about how fast anything has to be."""


def wait_until(
    condition: Callable[[], T], what: str = "the condition", *, seconds: float = PATIENCE_SECONDS
) -> T:
    """Poll `condition` until it returns something true, and return that.

    Raises `AssertionError` with `what` when `seconds` have passed.
    """
    deadline = time.monotonic() + seconds
    pause = 0.005
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not hold within {seconds:g} s"
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
