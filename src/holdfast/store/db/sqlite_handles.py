"""Who has a SQLite ledger open: the last one to let go of it seals it, and the first one to change it removes the seal.

Every process that has a connection holds a shared kernel lock on a file beside the ledger. Whoever can make it exclusive when
he lets go is alone. A lock ends with its process, so a kill leaves no seal, and never a wrong one: a seal is written by one
who is alone, and is gone, durably, before anybody's first change.

The bytes are read through one descriptor that stays open for as long as this process has connections: closing any descriptor
of a file drops the POSIX locks that SQLite holds on it in the same process ("How To Corrupt An SQLite Database File", 2.2).
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

PATIENCE_SECONDS: Final = 30.0
"""How long an open waits for another process that is sealing, before it gives up; sealing takes some 2 ms for each MB."""

_Key: TypeAlias = tuple[Path, int, int]


@dataclass(slots=True, eq=False)
class Hold:
    """What this process has of one ledger file, for all its connections. `is_ledger` once it was seen to be one of ours:
    the file of another program is never sealed.
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


class HeldConnection(sqlite3.Connection):
    """A connection that keeps its ledger held until it is closed, by whomever: also by the collector of garbage."""

    hold: Hold | None = None

    def take_hold(self) -> None:
        """Hold the file that this connection has opened and not yet read. A ledger without a file is not held.

        Raises `IntegrityError` HF302 when the file is not what was sealed, and `UnavailableError` HF302 when it cannot be held.
        """
        name = self.execute("PRAGMA database_list").fetchone()[2]
        if name:
            self.hold = _take(Path(name))

    def close(self) -> None:
        """Close, and seal the ledger if nobody has it open any more."""
        super().close()
        hold, self.hold = self.hold, None
        if hold is not None:
            _LET_GO.append(hold)
            _settle()

    def __del__(self) -> None:
        """What nobody closed is let go all the same."""
        if self.hold is not None:
            self.close()


def lock_of(ledger: Path) -> Path:
    """Where the lock of `ledger` lies. It is empty, may be copied, and is removed only when nobody has the ledger open."""
    return ledger.with_name(f"{ledger.name}-lock")


def hold_of(connection: Connection) -> Hold | None:
    """What this process has of the file that `connection` reads; None on PostgreSQL, and of a ledger without a file."""
    driver = connection.connection.driver_connection
    return driver.hold if isinstance(driver, HeldConnection) else None


def before_change(hold: Hold) -> None:
    """Remove the seal, durably, once for each hold; a file that is not what was sealed is never sealed anew.

    Raises `IntegrityError` HF302 when it is not, and `UnavailableError` HF302 when the seal cannot be removed.
    """
    if hold.changes:
        return
    try:
        with _GUARD:
            if not hold.changes:
                page_checksums.refuse_broken(hold.ledger, hold.data)
                page_checksums.path_of(hold.ledger).unlink(missing_ok=True)
                # Also when another process removed it just now: it may not have come to this.
                fsync.sync_directory(hold.ledger.parent)
                hold.changes = True
    except OSError as error:
        raise _cannot(hold.ledger, "unsealed", error) from error
    finally:
        _settle()


def is_sealed(hold: Hold) -> bool:
    """Whether the ledger is sealed, and to the bit what was sealed; `IntegrityError` HF302 when it is not."""
    try:
        with _GUARD:
            return not hold.changes and page_checksums.refuse_broken(hold.ledger, hold.data)
    finally:
        _settle()


_HOLDS: Final[dict[_Key, Hold]] = {}
_LET_GO: Final[deque[Hold]] = deque()
_GUARD = threading.Lock()


def _take(ledger: Path) -> Hold:
    try:
        with _GUARD:
            found = ledger.stat()
            key = (ledger, found.st_dev, found.st_ino)
            if key not in _HOLDS:
                _HOLDS[key] = _begin(key)
            _HOLDS[key].connections += 1
            return _HOLDS[key]
    except OSError as error:
        raise _cannot(ledger, "held", error) from error
    finally:
        _settle()


def _begin(key: _Key) -> Hold:
    ledger = key[0]
    lock = file_locks.share(lock_of(ledger), PATIENCE_SECONDS)
    try:
        data = os.open(ledger, os.O_RDONLY)
        try:
            page_checksums.refuse_broken(ledger, data)
        except BaseException:
            os.close(data)
            raise
    except BaseException:
        os.close(lock)
        raise
    return Hold(key, lock, data)


def _settle() -> None:
    """Let go of what was closed. Connections may be collected as garbage at any moment, also inside of `_GUARD` in this very
    thread; then who has the guard does it when he leaves.
    """
    while _LET_GO and _GUARD.acquire(blocking=False):
        try:
            while _LET_GO:
                _leave(_LET_GO.popleft())
        finally:
            _GUARD.release()


def _leave(hold: Hold) -> None:
    if _HOLDS.get(hold.key) is not hold:
        return  # it is the parent's, from before a fork
    hold.connections -= 1
    if hold.connections:
        return
    del _HOLDS[hold.key]
    try:
        if (hold.is_ledger or hold.changes) and file_locks.is_last(hold.lock, lock_of(hold.ledger)):
            _seal(hold)
    except (OSError, sqlite3.Error):
        # No room, or a disk that fails: a ledger without a seal is as whole as one with it, and the next one to close it tries
        # again. Who closes has nobody to tell.
        pass
    finally:
        os.close(hold.data)
        os.close(hold.lock)


def _seal(hold: Hold) -> None:
    ledger, ours = hold.ledger, os.fstat(hold.data)
    if (
        page_checksums.path_of(ledger).exists()
        or not os.path.samestat(ours, ledger.stat())
        or not ours.st_size
    ):
        return
    if page_checksums.log_bytes(ledger):
        # Two closed it at once, and each left the log to the other.
        with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if page_checksums.log_bytes(ledger):
        return
    # After a power cut a seal is there only with the bytes that it speaks of, and without the log that it says is gone.
    os.fsync(hold.data)
    fsync.sync_directory(ledger.parent)
    page_checksums.write(ledger, page_checksums.measure(hold.data))


def _forget() -> None:
    """A forked child has none of its parent's connections, and must not keep the parent's locks alive."""
    global _GUARD
    _GUARD = threading.Lock()
    for hold in _HOLDS.values():
        os.close(hold.data)
        os.close(hold.lock)
    _HOLDS.clear()
    _LET_GO.clear()


os.register_at_fork(after_in_child=_forget)


def _cannot(ledger: Path, what: str, error: OSError) -> UnavailableError:
    return UnavailableError(
        "HF302",
        f"the ledger {ledger} cannot be {what}: {error.strerror or error}",
        state="nothing was changed",
        next_command="the same command again, when its directory can be written",
    )
