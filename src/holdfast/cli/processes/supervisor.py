"""Keeps the processes of one machine running as one group: started together, started again one by one, ended together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

STOP_SECONDS: Final = 10.0
"""How long a process may take to end by itself before it is killed."""
PAUSE_SECONDS: Final = 1.0
"""The least time between two starts of the same process, so that one that cannot start does not burn a core."""
WATCH_SECONDS: Final = 0.5
"""How often a process of a group looks whether its group is still there."""
LOOK_SECONDS: Final = 0.05
"""How often a group looks whether a successor is ready."""
_TAIL_BYTES: Final = 4096
_OWN: Final = (sys.executable, "-m", "holdfast")


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended by itself: with which status (negative: by which signal), and its last words."""

    name: str
    status: int
    last_words: str

    @property
    def words(self) -> str:
        """How it ended, for a person.

        >>> Ended("serve", -9, "").words
        'serve was killed by SIGKILL'
        """
        how = (
            f"was killed by {signal.Signals(-self.status).name}"
            if self.status < 0
            else f"ended with status {self.status}"
        )
        return f"{self.name} {how}" + (f": {self.last_words}" if self.last_words and self.status > 0 else "")


class Group:
    """Named holdfast commands as child processes. Use it as a context: leaving it ends them all.

    Parameters
    ----------
    commands
        The arguments of each command by its name; each takes `--exit-with-parent`.
    directory
        Where each child's output goes: `<name>.log`. It is made when it is not there.
    programs
        What runs a command, by its name; by default this binary. Those that are named here can be succeeded.
    listening
        Makes the socket that they listen on; None while its address is taken. The group holds it from then on.

    A child whose supervisor was killed ends by itself within about a second (`end_with`), so that the same command can be
    given again.
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
        self._programs = {name: tuple(words) for name, words in (programs or {}).items()}
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
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if self._socket is not None:
            self._socket.close()

    def log(self, name: str) -> Path:
        """The file that the child `name` writes its output to."""
        return self._directory / f"{name}.log"

    def revive(self) -> list[Ended]:
        """Start again each child that ended, and say how it ended."""
        ended = []
        with self._lock:
            for name, child in self._children.items():
                status = child.poll()
                if status is not None and time.monotonic() - self._started[name] >= PAUSE_SECONDS:
                    ended.append(Ended(name, status, self._last_words(name)))
            for each in ended:
                self._start(each.name)
        return ended

    def succeed(self, name: str, program: Sequence[str], is_ready: Callable[[], bool], seconds: float) -> str:
        """Let `program` run the command `name` in the place of what does: start it beside, and end that once `is_ready`.

        Returns why it could not, an empty text when it could. What is not ready after `seconds` is ended instead, and what
        ran goes on. Blocks for as long as it takes; one thread may call it.
        """
        with self._lock:
            if self._socket is None or self._ended:
                return "its address is not shared"
            begun = self.log(name).stat().st_size
            successor = self._spawn(name, program, "--when-ready")
            self._leaving.append(
                successor
            )  # until it has taken over, it ends with the group like one that leaves
        until = time.monotonic() + seconds
        while not (ready := is_ready()) and successor.poll() is None and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        with self._lock:
            why = ""
            if successor.poll() is not None:
                why = Ended(name, successor.returncode, self._last_words(name, begun)).words
            elif not ready:
                why = f"it did not answer within {seconds:g} s"
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
        self._children[name] = self._spawn(name, self._programs.get(name, _OWN))
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

    def _last_words(self, name: str, since_bytes: int = 0) -> str:
        with self.log(name).open("rb") as output:
            output.seek(max(since_bytes, output.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = output.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        # An error of ours is followed by its state and its next command; the first of them says what happened.
        return next((line for line in reversed(said) if line.startswith("error ")), said[-1] if said else "")


def end_with(supervisor: int | None) -> None:
    """End this process (SIGTERM to itself) soon after its parent is no longer process `supervisor`; None watches nothing."""
    if supervisor is None:
        return

    def watch() -> None:
        while os.getppid() == supervisor:
            time.sleep(WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch-supervisor", daemon=True).start()
