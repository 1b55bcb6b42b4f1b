"""Follow the abort file in a thread that never touches the ledger, so that no ledger can delay a rollback (P7).

It calls stat(2) on one file fifty times a second. Aborts apply at once, with versions that are loaded already.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from holdfast.errors import HoldfastError
from holdfast.rollout.model.abort import Abort
from holdfast.store.serving import aborts

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.02
"""How often the file is looked at."""
RESERVE_SECONDS: Final = 0.5
"""How often the disk space for the next abort is checked."""


class AbortFollower:
    """Follows the aborts of one directory.

    Parameters
    ----------
    directory
        Holds the abort file, which servers and commands of this machine share.
    apply
        Called with the aborts that stand, whenever they change.
    """

    def __init__(self, directory: Path, apply: Callable[[Iterable[Abort]], None]) -> None:
        self.error = ""
        """Why the file cannot be read."""
        self.reserve_error = ""
        """Why no disk space is reserved for an abort."""
        self._directory = directory
        self._apply = apply
        self._seen: aborts.Stamp | None = None
        self._reserve_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aborts", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Return True while the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Look once now, then in a thread."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()

    def look(self) -> None:
        """Apply the aborts of the file if it changed."""
        try:
            stamp = aborts.stamp(self._directory)
            if stamp == self._seen:
                return
            self._apply(aborts.load(self._directory))
            self._seen = stamp
        except (HoldfastError, OSError) as error:
            self._report(str(error))
        else:
            self.error = ""

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            self.look()
            if time.monotonic() >= self._reserve_at:
                self._reserve()

    def _reserve(self) -> None:
        self._reserve_at = time.monotonic() + RESERVE_SECONDS
        try:
            aborts.reserve(self._directory)
        except OSError as error:
            # The next round tries again; an abort may still find the space that it needs.
            if str(error) != self.reserve_error:
                _log.warning("reserving disk space for an abort failed: %s", error)
            self.reserve_error = str(error)
        else:
            self.reserve_error = ""

    def _report(self, what: str) -> None:
        if what != self.error:
            _log.error("abort file cannot be followed: %s", what)
        self.error = what
