"""Run work of another system no longer than a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from holdfast.store.sources.delivery import unanswered

T = TypeVar("T")


def within(deadline_seconds: float, work: Callable[[], T], name: str) -> T:
    """Return or raise what `work` does; `UnavailableError` HF209 about the source `name` if it takes longer.

    The thread of work that never ends is left behind: a call into a stopped system cannot be cancelled. It does not keep
    the process alive.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # raised again, in the thread that waits
            failed.append(error)

    thread = threading.Thread(target=run, name=f"reading {name}", daemon=True)
    thread.start()
    thread.join(deadline_seconds)
    if failed:
        raise failed[0]
    if not done:
        raise unanswered(name, f"did not answer within {deadline_seconds:g} seconds")
    return done[0]
