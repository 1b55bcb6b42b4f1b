"""The lock of `holdfast up`: one group of processes for a store's root, which has the logs of only one.

Ports cannot distinguish two that start at once: neither process listens yet. The kernel ends the lock with its process, however
that ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from holdfast.errors import ConflictError
from holdfast.store.durability import access

FILE: Final = "up.lock"
"""Its lock is held by the process whose id it names."""


@contextmanager
def hold(root: Path) -> Iterator[None]:
    """Hold the lock of `holdfast up` for `root`, which is created if it does not exist.

    Where no lock can be taken, because the disk is full or the file system has none, the group starts without one.

    Raises
    ------
    ConflictError
        HF507 when another process holds it.
    """
    descriptor = _open(root)
    if descriptor is None:
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(os.pread(descriptor, 20, 0).decode(errors="replace"), root) from None
        except OSError:
            yield
            return
        with suppress(OSError):  # on a full disk the other process is named without its id
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open(root: Path) -> int | None:
    try:
        if not root.exists():
            root.mkdir(parents=True)
            access.restrict_root(root)
        return os.open(root / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, access.file_mode())
    except OSError:
        return None


def _held(process: str, root: Path) -> ConflictError:
    holder = f"process {process}" if process.isdigit() else "another process"
    return ConflictError(
        "HF507",
        f"holdfast up already runs for {root} ({holder})",
        state="nothing was started",
        next_command=f"kill {process}, then holdfast up" if process.isdigit() else "holdfast status",
    )
