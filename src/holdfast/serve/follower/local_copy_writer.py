"""Keeps the local copy in step with what is served: a thread of its own, so that a disk that stalls is in no plan's way.

A roll-back is a plan, and to follow it takes memory alone. What was served before it is perhaps still being written; only the
newest of what waits is written next.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final

from holdfast.errors import IntegrityError
from holdfast.serve.follower.local_copy import LocalCopy

_log = logging.getLogger(__name__)

TROUBLE_SECONDS: Final = 1.0
"""How long to wait after the disk refused."""
BUSY_SECONDS: Final = 0.2
"""How long to wait for another server that writes."""

Write = Callable[[LocalCopy], bool]
"""Brings a part of the copy up to date; False when another server writes. Raises `OSError` or `IntegrityError`."""


class CopyKeeper:
    """Writes into `copy` what it is given, the newest of each part, until the disk has taken it."""

    def __init__(self, copy: LocalCopy) -> None:
        self.trouble = ""
        """Why the copy cannot be kept."""
        self._copy = copy
        self._waiting: dict[str, Write] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._forever, name="copy-keeper", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more. Does not wait: the thread may hang in a disk that does not answer."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()

    def keep(self, part: str, write: Write) -> None:
        """Let `write` bring `part` up to date, in place of what waits for it; returns at once."""
        with self._changed:
            self._waiting[part] = write
            self._changed.notify()

    @property
    def has_kept(self) -> bool:
        """Whether the disk has taken everything that was given."""
        return not self._waiting

    def _forever(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                while not self._waiting and not self._stopping.is_set():
                    self._changed.wait()
                waiting = dict(self._waiting)
            self._stopping.wait(self._write(waiting))

    def _write(self, waiting: Mapping[str, Write]) -> float:
        """Write what waits; how many seconds to wait before the rest is tried again."""
        try:
            done = {part: write for part, write in waiting.items() if write(self._copy)}
        except (OSError, IntegrityError) as error:
            if str(error) != self.trouble:
                _log.warning("local copy is out of date, writing it failed: %s", error)
            self.trouble = str(error)
            return TROUBLE_SECONDS
        self.trouble = ""
        with self._changed:
            for part, write in done.items():
                if self._waiting.get(part) is write:  # else a newer one came meanwhile
                    del self._waiting[part]
        return 0.0 if done == waiting else BUSY_SECONDS
