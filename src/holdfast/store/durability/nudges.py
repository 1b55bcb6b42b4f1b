"""Nudge the processes of this machine that wait for a change: look now.

A listener makes a named pipe in a directory, and a process that changed something writes a byte into every pipe there. A nudge
carries nothing and may be lost: a listener polls as well, and only looks later without it. A pipe costs nothing while no one
writes, needs no port, has no limit on the length of its path, and shows a writer at once that its reader has died.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from holdfast.store.durability import access

_SUFFIX: Final = ".nudge"
_BYTES: Final = 65_536
"""The most that a pipe holds."""
_SEND: Final = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_RECEIVE: Final = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC

_log = logging.getLogger(__name__)


class Listener:
    """Waits for nudges of a directory. It belongs to one thread, except `wake`.

    Parameters
    ----------
    directory
        Where the pipe is made, with the directory itself. None, or one that takes no pipe, leaves `wake` as the only nudge.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path: Path | None = None
        if directory is not None:
            try:
                self._path, self._read = _make_pipe(directory)
            except OSError as error:
                _log.warning("no nudges in %s, it is polled more often: %s", directory, error.strerror)
        if self._path is not None:
            self._write = self._read
        else:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)
        self._lock = threading.Lock()
        self._is_closed = False
        self.is_nudged = self._path is not None
        """Whether other processes can nudge this one."""

    @property
    def sending_end(self) -> int:
        """A descriptor into which one byte is a nudge, as `signal.set_wakeup_fd` needs it."""
        return self._write

    @property
    def receiving_end(self) -> int:
        """A descriptor that can be read when a nudge waits."""
        return self._read

    def wait(self, seconds: float, *others: int) -> bool:
        """Wait for a nudge, or until one of the descriptors `others` can be read; return False after `seconds` without either.

        All nudges that wait are taken together.
        """
        polled = select.poll()
        for descriptor in (self._read, *others):
            polled.register(descriptor, select.POLLIN)
        ready = polled.poll(max(0.0, seconds) * 1000)
        self.drain()
        return bool(ready)

    def drain(self) -> None:
        """Forget the nudges that wait."""
        with suppress(BlockingIOError):
            os.read(self._read, _BYTES)

    def wake(self) -> None:
        """Nudge this listener; any thread may."""
        # Under the lock: a descriptor that was closed may be another file's by now.
        with self._lock, suppress(BlockingIOError):
            if not self._is_closed:
                os.write(self._write, b"\0")

    def close(self) -> None:
        """Remove the pipe. Nothing may wait; a later `wake` does nothing."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            if self._path is not None:
                with suppress(OSError):
                    self._path.unlink()
            for descriptor in {self._read, self._write}:
                os.close(descriptor)


def _make_pipe(directory: Path) -> tuple[Path, int]:
    directory.mkdir(mode=access.directory_mode(), parents=True, exist_ok=True)
    name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
    unread = directory / f"{name}.new"
    os.mkfifo(unread, access.file_mode())
    try:
        # Opened before it has its name: a writer removes a pipe that no one reads.
        read = os.open(unread, _RECEIVE)
        path = unread.rename(directory / f"{name}{_SUFFIX}")
    except OSError:
        unread.unlink(missing_ok=True)
        raise
    return path, read


def nudge(directory: Path) -> int:
    """Nudge every listener of `directory`, and return how many there are. Never waits and never raises `OSError`.

    Pipes of processes that ended are removed.
    """
    try:
        with os.scandir(directory) as found:
            paths = [each.path for each in found if each.name.endswith(_SUFFIX)]
    except OSError:
        return 0
    return sum(_send(path) for path in paths)


def _send(path: str) -> bool:
    try:
        descriptor = os.open(path, _SEND)
    except OSError as error:
        if error.errno == errno.ENXIO:
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108 - no Path is made for every commit
        return False
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.write(descriptor, b"\0")
            return True
    except OSError as error:
        return error.errno == errno.EAGAIN  # full of nudges that wait
    finally:
        os.close(descriptor)
    return False
