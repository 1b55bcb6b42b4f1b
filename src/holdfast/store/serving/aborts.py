"""The abort file of a machine: rollbacks without the ledger, until the ledger agrees with them.

`<root>/serve/<model>/abort.json` carries its own SHA-256 and is replaced in one step after it is durable. Next to it
is a spare of the same size whose blocks are allocated: on a full disk the spare becomes the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from holdfast.errors import IntegrityError, UnavailableError
from holdfast.records import sha256_hex
from holdfast.rollout.model.abort import Abort
from holdfast.store.durability import access, fsync
from holdfast.store.durability.nudges import nudge

SERVERS_DIRECTORY: Final = "serve"
"""The directory of the servers' local copies and abort files under the store's root: `serve/<model>`."""
FILE_BYTES: Final = 16 * 1024
"""The spare's size. No list of aborts is longer, because reasons are truncated."""
REASON_CHARACTERS: Final = 500
LOCK_SECONDS: Final = 0.5
"""How long a writer waits for another one: a stopped writer must not block a rollback."""

_FILE: Final = "abort.json"
_SPARE: Final = "abort.spare"
_LOCK: Final = "abort.lock"
_PAUSE_SECONDS: Final = 0.005
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

Stamp = tuple[int, int, int]
"""Identifies one state of the file: inode, time of change in nanoseconds, size."""


class _Checksummed(msgspec.Struct, frozen=True):
    sha256: str
    aborts: msgspec.Raw


def directory_of(root: Path, model: str) -> Path:
    """Return the directory of a model's abort file and local copy under the store's root."""
    return root / SERVERS_DIRECTORY / model


def nudges_of(directory: Path) -> Path:
    """Return the directory in which servers are nudged that the abort file has changed."""
    return directory / "nudges"


def stamp(directory: Path) -> Stamp | None:
    """Return a value that changes whenever the file does; None if there is no file. One call of stat(2)."""
    try:
        found = (directory / _FILE).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def load(directory: Path) -> tuple[Abort, ...]:
    """Return the aborts that stand, the oldest first. Raises `IntegrityError` HF316 when the file was altered."""
    path = directory / _FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ()
    try:
        stored = msgspec.json.decode(data, type=_Checksummed)
        found = msgspec.json.decode(stored.aborts, type=tuple[Abort, ...])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _altered(path) from error
    if sha256_hex(bytes(stored.aborts)) != stored.sha256:
        raise _altered(path)
    return found


class Added(NamedTuple):
    """The abort that stands for a version; `is_new` unless it stood before."""

    abort: Abort
    is_new: bool


def _consent(_: tuple[Abort, ...]) -> None:
    return


def add(directory: Path, abort: Abort, *, check: Callable[[tuple[Abort, ...]], None] = _consent) -> Added:
    """Write `abort`, and return the abort that stands for its version. When this returns, it survives a power failure.

    An abort of the same version that knew of as new a rollout stands already, with its actor and reason. A damaged
    file is replaced.

    Parameters
    ----------
    check
        Called with the aborts that stand, while no other writer is at work. If it raises, nothing is written.

    Raises
    ------
    UnavailableError
        HF307 when the disk does not take it.
    """
    abort = replace(abort, reason=abort.reason[:REASON_CHARACTERS])
    try:
        fsync.make_directory(directory)
        with _alone(directory):
            known = _known(directory)
            check(known)
            for each in known:
                if each.version == abort.version and each.rollout_id >= abort.rollout_id:
                    return Added(each, is_new=False)
            _put(directory, (*(each for each in known if each.version != abort.version), abort))
            nudge(nudges_of(directory))
    except OSError as error:
        raise UnavailableError(
            "HF307",
            f"{directory / _FILE} cannot be written: {error.strerror}",
            state="nothing was changed",
            next_command="make room on the disk, then the same command again",
        ) from error
    return Added(abort, is_new=True)


def remove(directory: Path, ended: Iterable[Abort]) -> None:
    """Remove `ended`, except one that was added again meanwhile. Raises `OSError` when the disk does not take it."""
    gone = frozenset(ended)
    with _alone(directory):
        known = _known(directory)
        rest = tuple(each for each in known if each not in gone)
        if rest == known:
            return
        if rest:
            _put(directory, rest)
        else:
            (directory / _FILE).unlink(missing_ok=True)
            fsync.sync(directory)
        nudge(nudges_of(directory))


def reserve(directory: Path) -> None:
    """Allocate the spare and the lock's file, unless they are there: a full disk takes no new name either.

    Raises `OSError` when the disk has no space for them.
    """
    if not is_reserved(directory):
        fsync.make_directory(directory)
        os.close(_open_lock(directory))
        fsync.replace(directory / _SPARE, b"\n" * FILE_BYTES)


def is_reserved(directory: Path) -> bool:
    """Return True if a full disk would still take one abort."""
    return (directory / _SPARE).exists() and (directory / _LOCK).exists()


def _known(directory: Path) -> tuple[Abort, ...]:
    try:
        return load(directory)
    except IntegrityError:
        return ()  # its content is lost; the new abort must not wait for it


def _put(directory: Path, aborts: tuple[Abort, ...]) -> None:
    encoded = msgspec.json.encode(aborts)
    data = msgspec.json.encode(_Checksummed(sha256_hex(encoded), msgspec.Raw(encoded)))
    try:
        fsync.replace(directory / _FILE, data)
    except OSError as error:
        if error.errno not in _FULL or len(data) > FILE_BYTES:
            raise
        _use_spare(directory, data)


def _use_spare(directory: Path, data: bytes) -> None:
    """Overwrite blocks that are allocated already; white space after JSON means nothing."""
    path = directory / _SPARE
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        fsync.write_all(descriptor, data.ljust(FILE_BYTES, b"\n"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.replace(directory / _FILE)
    fsync.sync(directory)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold off other writers, except one that does not finish within `LOCK_SECONDS`."""
    descriptor = _open_lock(directory)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while not _try_lock(descriptor) and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _open_lock(directory: Path) -> int:
    return os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, access.file_mode())


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _altered(path: Path) -> IntegrityError:
    return IntegrityError(
        "HF316",
        f"{path} was altered: its aborts cannot be read",
        state="servers go on with what they knew",
        next_command="holdfast rollback again",
    )
