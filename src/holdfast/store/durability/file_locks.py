"""Kernel locks (flock) that tell the work of a living process from what a dead one left.

The kernel ends a lock with its process, however it ends. So whoever gets the lock of a thing knows that its maker is
gone, and as long as he holds it nobody else can take the thing for abandoned, or for his own.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PAUSE_SECONDS: Final = 0.005


def hold(make: Callable[[], int], path: Path) -> int:
    """The descriptor that `make` opened, holding the lock of `path`: `make` makes what `path` names. A sweep may remove it
    between its making and its locking; then it is made again.
    """
    while True:
        descriptor = make()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return descriptor
        os.close(descriptor)


@contextmanager
def seized(path: Path) -> Iterator[bool]:
    """Whether no living process holds the lock of `path`; inside the block none can get it.

    What is not there is held by nobody. A file system that cannot tell counts as held.
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


def share(path: Path, patience_seconds: float) -> int:
    """A descriptor with a shared lock of `path`, which is made when it is not there; closing it ends the lock.

    Raises `OSError`, also when somebody has the lock for himself for longer than `patience_seconds`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    end = time.monotonic() + patience_seconds
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
    """Whether nobody else shares the lock of `path`; then it is exclusive until `descriptor` is closed. Otherwise it may
    have been lost: for one who lets go of it either way. A lock whose file was removed tells nothing, so nobody is last.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
