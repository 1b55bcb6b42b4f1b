"""Handles of SQLite ledgers: which files this process has open, and when their page checksums are written and removed.

Every process with a connection holds a shared kernel lock on a file next to the ledger. The last process to close it can make
the lock exclusive, and writes the page checksums. The first that changes it removes them, durably, before its change. A lock
ends with its process, so a kill leaves no checksums, and never wrong ones.

The pages are read through one descriptor that stays open as long as this process has connections: closing any descriptor of a
file drops the POSIX locks that SQLite holds on it in the same process ("How To Corrupt An SQLite Database File", 2.2).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from sqlalchemy import Connection

from holdfast.errors import UnavailableError
from holdfast.store.db import page_checksums
from holdfast.store.durability import file_locks, fsync

LOCK_TIMEOUT_SECONDS: Final = 30.0
"""How long an open waits for another process that writes checksums, which takes some 2 ms for each MB."""

_Key: TypeAlias = tuple[Path, int, int]


@dataclass(slots=True, eq=False)
class Handle:
    """One ledger file that this process has open, for all its connections.

    `is_ledger` is set once the file was recognised: the database of another program gets no checksums.
    """

    key: _Key
    lock: int
    data: int
    connections: int = 0
    is_ledger: bool = False
    changes: bool = False

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.key[0]


class TrackedConnection(sqlite3.Connection):
    """A connection that keeps a handle of its ledger until it is closed or garbage collected."""

    handle: Handle | None = None

    def track(self) -> None:
        """Open a handle of this connection's file before it is read. A ledger in memory has none.

        Raises `IntegrityError` HF309 if the file does not match its page checksums, and `UnavailableError` HF302 if it
        cannot be locked.
        """
        name = self.execute("PRAGMA database_list").fetchone()[2]
        if name:
            self.handle = _open(Path(name))

    def close(self) -> None:
        """Close, and write the page checksums if no other connection is left."""
        super().close()
        handle, self.handle = self.handle, None
        if handle is not None:
            _CLOSED.append(handle)
            _release_closed()

    def __del__(self) -> None:
        """Release the handle of a connection that was not closed."""
        if self.handle is not None:
            self.close()


def lock_of(ledger: Path) -> Path:
    """Return the path of the ledger's lock file. It is empty, and is removed only while no process has the ledger open."""
    return ledger.with_name(f"{ledger.name}-lock")


def handle_of(connection: Connection) -> Handle | None:
    """Return the handle behind `connection`; None on PostgreSQL, and for a ledger in memory."""
    driver = connection.connection.driver_connection
    return driver.handle if isinstance(driver, TrackedConnection) else None


def before_change(handle: Handle) -> None:
    """Remove the page checksums, durably, once for each handle.

    Raises `IntegrityError` HF309 if the file does not match them, so that a damaged file never gets new ones, and
    `UnavailableError` HF302 if they cannot be removed.
    """
    if handle.changes:
        return
    try:
        with _GUARD:
            if not handle.changes:
                page_checksums.verify(handle.ledger, handle.data)
                page_checksums.path_of(handle.ledger).unlink(missing_ok=True)
                # Also when another process has just removed them: its own sync may not be done yet.
                fsync.sync(handle.ledger.parent)
                handle.changes = True
    except OSError as error:
        raise _unavailable(handle.ledger, "changed", error) from error
    finally:
        _release_closed()


def has_valid_checksums(handle: Handle) -> bool:
    """Return True if the ledger has page checksums and matches them; `IntegrityError` HF309 on a mismatch."""
    try:
        with _GUARD:
            return not handle.changes and page_checksums.verify(handle.ledger, handle.data)
    finally:
        _release_closed()


_HANDLES: Final[dict[_Key, Handle]] = {}
_CLOSED: Final[deque[Handle]] = deque()
_GUARD = threading.Lock()


def _open(ledger: Path) -> Handle:
    try:
        with _GUARD:
            found = ledger.stat()
            key = (ledger, found.st_dev, found.st_ino)
            if key not in _HANDLES:
                _HANDLES[key] = _create(key)
            _HANDLES[key].connections += 1
            return _HANDLES[key]
    except OSError as error:
        raise _unavailable(ledger, "locked", error) from error
    finally:
        _release_closed()


def _create(key: _Key) -> Handle:
    ledger = key[0]
    lock = file_locks.share(lock_of(ledger), LOCK_TIMEOUT_SECONDS)
    try:
        data = os.open(ledger, os.O_RDONLY)
        try:
            page_checksums.verify(ledger, data)
        except BaseException:
            os.close(data)
            raise
    except BaseException:
        os.close(lock)
        raise
    return Handle(key, lock, data)


def _release_closed() -> None:
    """Release the handles of closed connections.

    The garbage collector may close a connection at any time, also while this very thread has `_GUARD`; then the owner of the
    guard releases it on its way out.
    """
    while _CLOSED and _GUARD.acquire(blocking=False):
        try:
            while _CLOSED:
                _release(_CLOSED.popleft())
        finally:
            _GUARD.release()


def _release(handle: Handle) -> None:
    if _HANDLES.get(handle.key) is not handle:
        return  # it is the parent's, from before a fork
    handle.connections -= 1
    if handle.connections:
        return
    del _HANDLES[handle.key]
    try:
        if (handle.is_ledger or handle.changes) and file_locks.is_last(handle.lock, lock_of(handle.ledger)):
            _write_checksums(handle)
    except (OSError, sqlite3.Error):
        # The disk is full or fails. A ledger without checksums is as intact as one with them, and the next close writes them.
        pass
    finally:
        os.close(handle.data)
        os.close(handle.lock)


def _write_checksums(handle: Handle) -> None:
    ledger, ours = handle.ledger, os.fstat(handle.data)
    if (
        page_checksums.path_of(ledger).exists()
        or not os.path.samestat(ours, ledger.stat())
        or not ours.st_size
    ):
        return
    if page_checksums.log_bytes(ledger):
        # Two processes closed it at once, and each left the log to the other.
        with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if page_checksums.log_bytes(ledger):
        return
    # After a power failure, checksums may exist only with their pages, and without the log.
    os.fsync(handle.data)
    fsync.sync(ledger.parent)
    page_checksums.write(ledger, page_checksums.compute(handle.data))


def _forget() -> None:
    """Close the parent's handles in a forked child, which must not keep the parent's locks alive."""
    global _GUARD
    _GUARD = threading.Lock()
    for handle in _HANDLES.values():
        os.close(handle.data)
        os.close(handle.lock)
    _HANDLES.clear()
    _CLOSED.clear()


os.register_at_fork(after_in_child=_forget)


def _unavailable(ledger: Path, what: str, error: OSError) -> UnavailableError:
    return UnavailableError(
        "HF302",
        f"the ledger {ledger} cannot be {what}: {error.strerror or error}",
        state="nothing was changed",
        next_command="the same command again, when its directory can be written",
    )
