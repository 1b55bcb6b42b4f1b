"""Decide when a round of the control loop is due, and wait until then.

A round is due when something was committed or aborted, when a log has grown, while a rollout is under way, and every few
seconds for what only the time brings. Else a loop that has nothing to do would do a round five times a second for ever.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from holdfast.store import Store
from holdfast.store.db.commit_listener import CommitListener
from holdfast.store.durability.nudges import Listener
from holdfast.store.rollout import rollouts
from holdfast.store.rollout.plan_watch import Changes
from holdfast.store.serving import aborts, log_directory, servers

POLL_SECONDS: Final = 0.8
"""How long a wait lasts, besides the pause of a round, when no nudge comes: then commits and logs are looked for."""
ROUND_SECONDS: Final = 5.0
"""The longest time between two rounds: labels, drills and probes may be due although nothing was committed."""
JITTER: Final = 0.1
"""How much longer a wait may last, as a share: loops that were started together do not read together."""


class RoundTrigger:
    """Decides when a round of one model's loop is due. It belongs to one thread, except `wake`."""

    def __init__(self, store: Store, model: str) -> None:
        self._store = store
        self._model = model
        self._commits = store.ledger.listen()
        aborted = aborts.directory_of(store.root, model)
        self._aborts = Listener(aborts.nudges_of(aborted))
        self._aborted, self._abort_stamp = aborted, aborts.stamp(aborted)
        self._changes: Changes | None = None
        self._is_nudged = True
        self._is_rollout_under_way = False
        self.has_servers_elsewhere = False
        """Whether a server's log, and so its aborts, cannot be seen from this machine."""
        self._logs: tuple[Path, ...] = ()
        self._seen: dict[Path, tuple[int, int]] = {}
        self._round_at = 0.0

    @property
    def sending_end(self) -> int:
        """A descriptor into which one byte ends a wait, as `signal.set_wakeup_fd` needs it."""
        return self._commits.sending_end

    def begins_round(self) -> bool:
        """Return True if a round is due, which the caller then runs; what comes from now on makes the next one due."""
        # All are evaluated: each compares with what it saw at its last evaluation.
        causes = (
            self._is_nudged,
            self._wait(0.0),
            self._is_rollout_under_way,
            time.monotonic() >= self._round_at,
            self._is_revised(),
            self._has_log_grown(),
            self._has_abort_changed(),
        )
        if not any(causes):
            return False
        with self._store.ledger.read() as connection:
            self._is_rollout_under_way = rollouts.under_way(connection, self._model) is not None
            self._logs = tuple(each.log_directory for each in servers.registered(connection, self._model))
        self.has_servers_elsewhere = not all(each.is_dir() for each in self._logs)
        self._is_nudged = False
        self._round_at = time.monotonic() + _lengthened(ROUND_SECONDS)
        return True

    def hasten(self) -> None:
        """Make a round due: the last one left something undone."""
        self._is_nudged = True

    def wait(self, seconds: float) -> None:
        """Wait for a nudge, but no longer than `seconds`, and not at all while a rollout is under way."""
        if not self._is_nudged and not self._is_rollout_under_way:
            self._is_nudged = self._wait(_lengthened(seconds))

    def wake(self) -> None:
        """End a wait; any thread may."""
        self._commits.wake()

    def close(self) -> None:
        """Release what it holds, before the ledger is closed."""
        if self._changes is not None:
            self._changes.close()
        self._aborts.close()
        self._commits.close()

    def _wait(self, seconds: float) -> bool:
        is_nudged = self._commits.wait(seconds, self._aborts.receiving_end)
        self._aborts.drain()
        return is_nudged

    def _has_abort_changed(self) -> bool:
        before, self._abort_stamp = self._abort_stamp, aborts.stamp(self._aborted)
        return self._abort_stamp != before

    def _is_revised(self) -> bool:
        if self._changes is None:
            self._changes = Changes(self._store, self._model)
        try:
            return self._changes.since_last()
        except Exception:
            changes, self._changes = self._changes, None  # the ledger may be another file by now
            changes.close()
            raise

    def _has_log_grown(self) -> bool:
        """Return True if a server has logged something since the last call."""
        seen = {directory: found for directory in self._logs if (found := _newest_of(directory)) is not None}
        has_grown, self._seen = seen != self._seen, seen
        return has_grown


def nudged(commits: CommitListener, stopped: threading.Event) -> Callable[[float], bool]:
    """Return a function that waits for the seconds that it is given, then for a commit or `POLL_SECONDS`; True once stopped."""

    def wait(seconds: float) -> bool:
        if stopped.wait(seconds):
            return True
        commits.wait(_lengthened(POLL_SECONDS))
        return stopped.is_set()

    return wait


def _newest_of(directory: Path) -> tuple[int, int] | None:
    """Return the newest segment of a log and its size; None if it cannot be seen from here."""
    try:
        listed = log_directory.segments(directory)
        return (listed[-1][0], listed[-1][1].stat().st_size) if listed else None
    except OSError:
        return None


def _lengthened(seconds: float) -> float:
    return seconds * random.uniform(1.0, 1.0 + JITTER)  # noqa: S311 - no secret depends on it
