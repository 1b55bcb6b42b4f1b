"""Run processes of one machine as a group: start them together, restart each that ends, end them together."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

STOP_SECONDS: Final = 10.0
"""How long a process may take to end before it is killed."""
PAUSE_SECONDS: Final = 1.0
"""The least time between two starts of a process, so that one that cannot start does not use a whole core."""
POLL_SECONDS: Final = 0.5
"""How often a process of a group checks that its parent is alive."""
LOOK_SECONDS: Final = 0.05
"""How often a group checks that a successor is ready."""
LOG_BYTES: Final = 8 * 1024 * 1024
"""A child's log of this size becomes `<name>.log.1`, which replaces the one before."""
_TAIL_BYTES: Final = 4096
OWN: Final = (sys.executable, "-m", "holdfast")
"""The command that runs this runtime."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended: its status (negative: the signal) and its last line of output."""

    name: str
    status: int
    last_line: str

    def describe(self) -> str:
        """Return how it ended, as text.

        >>> Ended("serve", -9, "").describe()
        'serve was killed by SIGKILL'
        """
        how = (
            f"was killed by {signal.Signals(-self.status).name}"
            if self.status < 0
            else f"ended with status {self.status}"
        )
        return f"{self.name} {how}" + (f": {self.last_line}" if self.last_line and self.status > 0 else "")


class Group:
    """Named Holdfast commands as child processes. Leaving the context ends them all.

    Parameters
    ----------
    commands
        The arguments of each command by its name; each takes `--exit-with-parent`.
    directory
        The directory of each child's output, `<name>.log`, bounded by `rotate_logs`. Created if it does not exist.
    programs
        The program that runs a command, by its name; by default this one. Those named here can be replaced.
    listening
        Creates the socket that they listen on, which the group then owns; returns None while the address is taken.

    A child whose parent was killed ends within about a second (`end_with`), so that the same command can start again.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        directory: Path,
        *,
        programs: Mapping[str, Sequence[str]] | None = None,
        listening: Callable[[], socket.socket | None] | None = None,
    ) -> None:
        self._commands = commands
        self._programs = {name: tuple(program) for name, program in (programs or {}).items()}
        self._listening = listening
        self._socket: socket.socket | None = None
        self._lock = threading.RLock()
        self._leaving: list[subprocess.Popen[bytes]] = []
        self._ended = False
        self._directory = directory
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> Group:
        self._directory.mkdir(parents=True, exist_ok=True)
        for name in self._commands:
            self._start(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._ended = True
            children = [*self._children.values(), *self._leaving]
            # Before the children stop: the last process that has the socket accepts what waits there.
            if self._socket is not None:
                self._socket.close()
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def log(self, name: str) -> Path:
        """Return the file of the output of the child `name`."""
        return self._directory / f"{name}.log"

    def signal(self, name: str, number: int) -> None:
        """Send the child `name` a signal."""
        with self._lock:
            self._children[name].send_signal(number)

    def rotate_logs(self, limit_bytes: int = LOG_BYTES) -> None:
        """Move the content of each log that reached `limit_bytes` to `<name>.log.1`.

        On a full disk it is dropped. A line that a child writes meanwhile may be lost.
        """
        for name in self._commands:
            path = self.log(name)
            with suppress(OSError):
                if path.stat().st_size < limit_bytes:
                    continue
                before = path.with_name(f"{path.name}.1")
                before.unlink(missing_ok=True)
                try:
                    # Copied, not renamed: the child goes on writing at the end of the file that it has.
                    shutil.copyfile(path, before)
                except OSError:
                    before.unlink(missing_ok=True)
                os.truncate(path, 0)

    def revive(self) -> list[Ended]:
        """Restart each child that ended, and rotate the logs; return how they ended."""
        self.rotate_logs()
        ended = []
        with self._lock:
            for name, child in self._children.items():
                status = child.poll()
                if status is not None and time.monotonic() - self._started[name] >= PAUSE_SECONDS:
                    ended.append(Ended(name, status, self._last_line(name)))
            for each in ended:
                self._start(each.name)
        return ended

    def succeed(self, name: str, program: Sequence[str], is_ready: Callable[[], bool], seconds: float) -> str:
        """Replace the program that runs the command `name`: start `program`, and end the old one once `is_ready`.

        Blocks until it is done; only one thread may call it.

        Parameters
        ----------
        name
            The command.
        program
            The command line before its arguments.
        is_ready
            Whether the new process answers.
        seconds
            The deadline. A process that is not ready then is ended, and the old one stays.

        Returns
        -------
        str
            The reason of a failure; empty on success.
        """
        with self._lock:
            if self._socket is None or self._ended:
                return "its address is not shared"
            begun = self.log(name).stat().st_size
            successor = self._spawn(name, program, "--when-ready")
            self._leaving.append(successor)  # until it has taken over, it ends with the group
        until = time.monotonic() + seconds
        while not (ready := is_ready()) and successor.poll() is None and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        with self._lock:
            why = ""
            if successor.poll() is not None:
                why = Ended(name, successor.returncode, self._last_line(name, begun)).describe()
            elif not ready:
                why = f"it did not respond within {seconds:g} s"
            if not why:
                self._leaving.remove(successor)
                self._leaving.append(self._children[name])
                self._children[name], self._started[name] = successor, time.monotonic()
                self._programs[name] = tuple(program)
            leaving = self._leaving[-1]
        leaving.send_signal(signal.SIGUSR1)
        try:
            leaving.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            leaving.kill()
            leaving.wait()
        with self._lock:
            self._leaving.remove(leaving)
        return why

    def _start(self, name: str) -> None:
        self._children[name] = self._spawn(name, self._programs.get(name, OWN))
        self._started[name] = time.monotonic()

    def _spawn(self, name: str, program: Sequence[str], *more: str) -> subprocess.Popen[bytes]:
        arguments = [*self._commands[name], "--exit-with-parent", str(os.getpid()), *more]
        passed: tuple[int, ...] = ()
        if name in self._programs and self._listening is not None:
            self._socket = self._socket or self._listening()
            if self._socket is not None:
                passed = (self._socket.fileno(),)
                arguments += ["--fd", str(passed[0])]
        with self.log(name).open("ab") as output:
            return subprocess.Popen(
                [*program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=passed,
            )

    def _last_line(self, name: str, since_bytes: int = 0) -> str:
        with self.log(name).open("rb") as output:
            output.seek(max(since_bytes, output.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = output.read().decode(errors="replace").split("\n")
        texts = [line.strip() for line in lines if line.strip()]
        # Our errors print state and next command after the line that begins with "error".
        return next(
            (line for line in reversed(texts) if line.startswith("error ")), texts[-1] if texts else ""
        )


def end_with(parent: int | None) -> None:
    """End this process (SIGTERM to itself) soon after its parent is no longer the process `parent`; None: never."""
    if parent is None:
        return

    def poll_parent() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=poll_parent, name="poll-parent", daemon=True).start()
