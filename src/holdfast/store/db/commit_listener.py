"""Wait for commits of other processes: nudges next to a SQLite file, NOTIFY on PostgreSQL.

Both may be lost, so that a listener polls as well: a command of another machine has no pipe here, a transaction pooler passes
no LISTEN, and a lost connection is noticed only when it is used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from holdfast.store.durability import nudges

RETRY_SECONDS: Final = 5.0
"""How long a lost connection is left alone before it is opened again."""

_log = logging.getLogger(__name__)


class CommitListener:
    """Waits for commits in one ledger. It belongs to one thread, except `wake`; `close` it before the ledger.

    Parameters
    ----------
    directory
        Where commands of this machine nudge; None on PostgreSQL.
    subscribe
        Opens the driver's connection on which PostgreSQL notifies; None on SQLite.
    """

    def __init__(self, directory: Path | None, subscribe: Callable[[], Any] | None = None) -> None:
        self._pipe = nudges.Listener(directory)
        self._subscribe = subscribe
        self._connection: Any = None
        self._retry_at = 0.0

    @property
    def is_nudged(self) -> bool:
        """Whether commits of other processes nudge this listener at present."""
        return self._pipe.is_nudged or self._connection is not None

    @property
    def sending_end(self) -> int:
        """A descriptor into which one byte ends `wait`, as `signal.set_wakeup_fd` needs it."""
        return self._pipe.sending_end

    def wait(self, seconds: float, *others: int) -> bool:
        """Return True once something was committed, `wake` was called, or one of `others` can be read; False after `seconds`.

        A commit that nothing follows from, such as the renewal of a lease, ends no wait.
        """
        connection = self._subscribed()
        if connection is None:
            return self._pipe.wait(seconds, *others)
        try:
            ready = self._pipe.wait(seconds, connection.fileno(), *others)
            connection.pgconn.consume_input()
            while connection.pgconn.notifies() is not None:
                pass
        except Exception as error:  # a driver raises what it likes
            self._lose(error)
            return True
        return ready

    def wake(self) -> None:
        """End the wait; any thread may."""
        self._pipe.wake()

    def close(self) -> None:
        """Release the pipe and the connection."""
        self._pipe.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _subscribed(self) -> Any:
        if self._subscribe is not None and self._connection is None and time.monotonic() >= self._retry_at:
            try:
                self._connection = self._subscribe()
            except Exception as error:
                self._lose(error)
        return self._connection

    def _lose(self, error: Exception) -> None:
        _log.info("commits are polled, the database does not notify of them: %s", error)
        lost, self._connection = self._connection, None
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if lost is not None:
            lost.close()
