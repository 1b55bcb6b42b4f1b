"""Write the local copy in a thread of its own, so that a disk that stalls delays no plan.

A rollback is a plan, and following it needs memory alone. The plan before it may still be being written; of the waiting
parts only the newest is written next.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final

from holdfast.errors import IntegrityError
from holdfast.serve.follower.local_copy import LocalCopy

_log = logging.getLogger(__name__)

ERROR_SECONDS: Final = 1.0
"""How long to wait after a write failed."""
BUSY_SECONDS: Final = 0.2
"""How long to wait for another server that writes."""

Write = Callable[[LocalCopy], bool]
"""Writes a part of the copy; returns False while another server writes. Raises `OSError` or `IntegrityError`."""


class LocalCopyWriter:
    """Runs submitted writes on `copy`, the newest of each part, until they succeed."""

    def __init__(self, copy: LocalCopy) -> None:
        self.error = ""
        """Why the copy is out of date."""
        self._copy = copy
        self._waiting: dict[str, Write] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="local-copy-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Start no further write. Does not wait: the thread may hang in a disk that does not respond."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()

    def submit(self, part: str, write: Write) -> None:
        """Queue `write` for `part`, in place of one that waits; returns at once."""
        with self._changed:
            self._waiting[part] = write
            self._changed.notify()

    @property
    def is_idle(self) -> bool:
        """Return True if everything that was submitted is on disk."""
        return not self._waiting

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                while not self._waiting and not self._stopping.is_set():
                    self._changed.wait()
                waiting = dict(self._waiting)
            self._stopping.wait(self._write(waiting))

    def _write(self, waiting: Mapping[str, Write]) -> float:
        """Run the waiting writes; return the seconds to wait before the rest is tried again."""
        try:
            done = {part: write for part, write in waiting.items() if write(self._copy)}
        except (OSError, IntegrityError) as error:
            if str(error) != self.error:
                _log.warning("local copy is out of date, writing it failed: %s", error)
            self.error = str(error)
            return ERROR_SECONDS
        self.error = ""
        with self._changed:
            for part, write in done.items():
                if self._waiting.get(part) is write:  # else a newer one came meanwhile
                    del self._waiting[part]
        return 0.0 if done == waiting else BUSY_SECONDS
