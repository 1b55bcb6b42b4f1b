"""Kills every command that changes a store besides loading, at its points and at random times, and runs it again.

    python -m tests.soak.crash_commands --kills 200 --seed 20132

Compactions, vacuums, back-outs with their traffic, collections of answers and labels, and decisions of rollouts. After each
kill, and after some a second one on the way of the next run, the same command runs to its end: then rows, ledger and files
are those of a store in which it ran undisturbed, no row is there twice, and `verify` finds nothing.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import Command as CommandLine
from holdfast.control.maintenance.verify import verify
from holdfast.store import Store
from tests.soak.commands import COMMANDS, Command, end_state
from tests.soak.delivery_history import Zygote

AGAIN_SHARE = 0.25
AT_RANDOM_SHARE = 0.3


class Soak:
    """One run: counts, and everything that was not as it should be."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.chance = random.Random(seed)
        self.directory = directory
        self.zygote = Zygote()
        self.kills = Counter[str]()
        self.unharmed = 0
        self.broken: list[str] = []
        self._pristine: dict[str, tuple[Path, dict[str, Any], float]] = {}

    def one(self, command: Command, point: str | None) -> None:
        """Kill `command` at `point`, or at a random time, in a new copy of its store, and run it again."""
        pristine, expected, seconds = self._of(command)
        root = self.directory / "copy"
        shutil.copytree(pristine, root)
        self._kill(command, root, point, seconds)
        if self.chance.random() < AGAIN_SHARE:
            self._kill(command, root, None, seconds)
        status = self.zygote.wait(self.zygote.run(root=str(root), command=command.name))
        where = f"{command.name} killed at {point or 'a random time'}"
        if status != 0:
            self.broken.append(f"{where}: the next one ended with {status}")
        self._check(root, expected, where)
        shutil.rmtree(root)

    def _of(self, command: Command) -> tuple[Path, dict[str, Any], float]:
        if command.name not in self._pristine:
            home = self.directory / command.name.replace(":", "").replace(" ", "-")
            home.mkdir()
            command.build(home)
            undisturbed = home / "undisturbed"
            shutil.copytree(home / "store", undisturbed)
            begun = time.monotonic()
            self.zygote.wait(self.zygote.run(root=str(undisturbed), command=command.name))
            seconds = time.monotonic() - begun
            store = Store.open(undisturbed)
            expected = end_state(store)
            before = self._state(home / "store")
            if expected == before:
                self.broken.append(f"{command.name} has nothing to do in its store")
            store.ledger.close()
            self._pristine[command.name] = (home / "store", expected, seconds)
        return self._pristine[command.name]

    def _state(self, root: Path) -> dict[str, Any]:
        store = Store.open(root)
        try:
            return end_state(store)
        finally:
            store.ledger.close()

    def _kill(self, command: Command, root: Path, point: str | None, seconds: float) -> None:
        passes = self.chance.choice((1, 1, 1, 2))
        pid = self.zygote.run(root=str(root), command=command.name, point=point, passes=passes)
        if point is None:
            time.sleep(self.chance.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)  # not yet waited for, so the id is still its own
        status = self.zygote.wait(pid)
        if status == -signal.SIGKILL:
            self.kills[f"{command.name}: {point or 'at a random time'}"] += 1
        elif status == 0:
            self.unharmed += 1  # it passed the point less often, or was done already
        else:
            self.broken.append(f"{command.name} ended with {status} before it was killed")

    def _check(self, root: Path, expected: dict[str, Any], where: str) -> None:
        store = Store.open(root)
        try:
            outcome = verify(store)
            self.broken += [f"{where}: verify found {finding}" for finding in outcome.findings]
            found = end_state(store)
            for name in sorted(expected.keys() | found.keys()):
                if expected.get(name) != found.get(name):
                    self.broken.append(
                        f"{where}: {name} is {found.get(name)}, not {expected.get(name)}"[:900]
                    )
            for table, rows in found["rows"].items():
                if len(set(rows)) != len(rows):
                    self.broken.append(f"{where}: {table} holds a row twice")
        finally:
            store.ledger.close()

    def outcome(self) -> dict[str, Any]:
        """What is printed."""
        return {
            "kills": self.kills.total(),
            "kills_by_point": dict(sorted(self.kills.items())),
            "ran_unharmed": self.unharmed,
            "broken": self.broken,
        }


def soak(kills: int, seed: int, directory: Path) -> dict[str, Any]:
    """Run until `kills` commands died; what came of it."""
    run = Soak(seed, directory)
    turns = [(command, point) for command in COMMANDS for point in command.points]
    run.chance.shuffle(turns)
    turn = 0
    try:
        while run.kills.total() < kills and len(run.broken) < 10:
            command, point = turns[turn % len(turns)]
            turn += 1
            run.one(command, None if run.chance.random() < AT_RANDOM_SHARE else point)
    finally:
        run.zygote.close()
    return run.outcome()


def main(arguments: Sequence[str] | None = None) -> int:
    command_line = CommandLine("tests.soak.crash_commands", __doc__)
    command_line.size("--kills", 200, 8, help="commands to kill")
    command_line.option("--seed", type=int, default=20132)
    options = command_line.parse(arguments)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-crash-") as directory:
        outcome = soak(options.kills, options.seed, Path(directory))
    outcome |= {"seed": options.seed, "seconds": round(time.monotonic() - begun, 1)}
    return command_line.finish(outcome, passed=not outcome["broken"])


if __name__ == "__main__":
    sys.exit(main())
