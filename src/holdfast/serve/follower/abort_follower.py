"""Looks for aborts: a thread that never touches the ledger, so that no ledger can keep a roll-back from the traffic (P7).

It looks at one file with stat(2) fifty times a second. What it finds is obeyed at once, from versions that are warm already.
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
"""How often the file is looked for."""
RESERVE_SECONDS: Final = 0.5
"""How often the room for the next abort is made sure of."""


class AbortFollower:
    """Follows the aborts of one directory.

    Parameters
    ----------
    directory
        Where servers and commands of this machine keep them.
    obey
        Is told the aborts that stand, whenever they change.
    """

    def __init__(self, directory: Path, obey: Callable[[Iterable[Abort]], None]) -> None:
        self.trouble = ""
        """Why the file cannot be obeyed."""
        self.reserve_trouble = ""
        """Why no room is kept for an abort on a disk that gets full."""
        self.directory = directory
        self._obey = obey
        self._seen: aborts.Stamp | None = None
        self._reserve_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._forever, name="aborts", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Look once, now, and go on in a thread."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Look no longer."""
        self._stopping.set()

    def look(self) -> None:
        """Obey what stands in the file, when it is not what was last seen there."""
        try:
            stamp = aborts.stamp(self.directory)
            if stamp == self._seen:
                return
            self._obey(aborts.load(self.directory))
            self._seen = stamp
        except (HoldfastError, OSError) as error:
            self._in_trouble(str(error))
        else:
            self.trouble = ""

    def _forever(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            self.look()
            if time.monotonic() >= self._reserve_at:
                self._reserve()

    def _reserve(self) -> None:
        self._reserve_at = time.monotonic() + RESERVE_SECONDS
        try:
            aborts.reserve(self.directory)
        except OSError as error:
            # The next round tries again; an abort may still find the room that it needs.
            if str(error) != self.reserve_trouble:
                _log.warning("reserving disk space for an abort failed: %s", error)
            self.reserve_trouble = str(error)
        else:
            self.reserve_trouble = ""

    def _in_trouble(self, what: str) -> None:
        if what != self.trouble:
            _log.error("abort file cannot be followed: %s", what)
        self.trouble = what
