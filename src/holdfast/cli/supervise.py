"""Keeps the processes of one machine running as one group: started together, started again one by one, ended together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

STOP_SECONDS: Final = 10.0
"""How long a process may take to end by itself before it is killed."""
PAUSE_SECONDS: Final = 1.0
"""The least time between two starts of the same process, so that one that cannot start does not burn a core."""


class Group:
    """Named holdfast commands as child processes. Use it as a context: leaving it ends them all.

    Parameters
    ----------
    commands
        The arguments of each command by its name.
    directory
        Where each child's output goes: `<name>.log`.
    environment
        The children's environment; None means this process's own.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._commands = commands
        self._directory = directory
        self._environment = environment
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> Group:
        for name in self._commands:
            self._start(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children.values():
            child.terminate()
        for child in self._children.values():
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def pid(self, name: str) -> int:
        """The process id of the child `name`."""
        return self._children[name].pid

    def log(self, name: str) -> Path:
        """The file that the child `name` writes its output to."""
        return self._directory / f"{name}.log"

    def revive(self, now_seconds: float) -> list[tuple[str, int]]:
        """Start again each child that ended; returns their names and exit statuses."""
        ended = []
        for name, child in self._children.items():
            status = child.poll()
            if status is not None and now_seconds - self._started.get(name, 0.0) >= PAUSE_SECONDS:
                ended.append((name, status))
        for name, _ in ended:
            self._start(name)
            self._started[name] = now_seconds
        return ended

    def _start(self, name: str) -> None:
        with self.log(name).open("ab") as output:
            self._children[name] = subprocess.Popen(
                [sys.executable, "-m", "holdfast", *self._commands[name]],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if self._environment is None else dict(self._environment),
            )
