"""File locks (flock) that distinguish the files of a living process from those of a dead one.

The kernel ends a lock with its process, however the process ends. A process that gets the lock of a file knows that its maker
is gone, and no other process takes the file for abandoned while it holds the lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from holdfast.store.durability import access

_PAUSE_SECONDS: Final = 0.005


def create_locked(path: Path, *, directory: bool = False) -> int:
    """Create a file or a directory at `path` and return a descriptor that holds its lock; closing it ends the lock."""
    while True:
        if directory:
            path.mkdir(mode=access.directory_mode(), exist_ok=True)
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY if directory else os.O_WRONLY | os.O_CREAT
            descriptor = os.open(path, flags, access.file_mode())
        except FileNotFoundError:
            if not directory:
                raise
            continue
        # A sweep may have removed it before it was locked; then it is created again.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return descriptor
        os.close(descriptor)


def lock_existing(path: Path) -> int:
    """Wait for the lock of `path` and return a descriptor that holds it; closing it ends the lock.

    Raises `FileNotFoundError` if the path is missing, or was removed while another process held the lock.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        same = os.path.samestat(os.fstat(descriptor), path.stat())
    except BaseException:
        os.close(descriptor)
        raise
    if same:
        return descriptor
    os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


@contextmanager
def seized(path: Path) -> Iterator[bool]:
    """Yield True if no living process holds the lock of `path`; inside the block none can get it.

    A missing file is not held. On a file system without locks every file counts as held.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def share(path: Path, timeout_seconds: float) -> int:
    """Return a descriptor with a shared lock of `path`, which is created if missing; closing it ends the lock.

    Raises `OSError`, also if another process has the exclusive lock for longer than `timeout_seconds`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, access.file_mode())
    end = time.monotonic() + timeout_seconds
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                time.sleep(_PAUSE_SECONDS)
            else:
                return descriptor
    except BaseException:
        os.close(descriptor)
        raise


def is_last(descriptor: int, path: Path) -> bool:
    """Return True if no other process shares the lock of `path`; it is then exclusive until `descriptor` is closed.

    If False, the shared lock may be lost: call it only before closing `descriptor`. False if the file was removed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
