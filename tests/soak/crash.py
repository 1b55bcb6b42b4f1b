"""Kills loaders with SIGKILL, at every named point and at random times, and checks the history of every row.

    python -m tests.soak.crash --kills 1000 --loaders 4 --seed 20131

In each world 1 to `--loaders` processes load the same deliveries at once, in other orders, some twice, some with the same
id and other content. A killed one is followed by others. After every few kills, and when the last delivery is in, the
checker reads all rows: none that was acknowledged is lost, none is there twice, no delivery is there in part, and
`verify` finds nothing. What else changes a store is killed by `crash_commands.py`.
"""

from __future__ import annotations

import itertools
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

from benchmarks.command import Command
from holdfast.control.maintenance.verify import verify
from holdfast.store import Store
from holdfast.store.durability import failpoints
from tests.soak.delivery_history import Delivery, Zygote, check, deliver

KILLS_IN_A_WORLD = 40
NEW_IN_A_ROUND = 3
TWIN_SHARE = 0.3


class Soak:
    """One run: counts, and everything that broke a promise."""

    def __init__(self, seed: int, loaders: int, directory: Path) -> None:
        self.chance = random.Random(seed)
        self.loaders = loaders
        self.directory = directory
        self.zygote = Zygote()
        self.points = itertools.cycle(failpoints.POINTS)
        self.kills = Counter[str]()
        self.acknowledged = 0
        self.rows = 0
        self.worlds = 0
        self.broken: list[str] = []
        self.load_seconds = 0.05

    def world(self, kills: int) -> None:
        """Kill loaders in a new store until `kills` died, then load the rest and check."""
        self.worlds += 1
        home = self.directory / f"world-{self.worlds}"
        home.mkdir()
        sent: list[Delivery] = []
        responses, died, rounds = home / "answers", 0, 0
        while died < kills:
            new = self._deliver(home, rounds)
            sent += new
            died += self._round(home, new + self.chance.choices(sent, k=2), responses)
            rounds += 1
            if rounds % 5 == 0:
                self._check(home, sent, responses)
            if len(self.broken) > 20:
                return
        self._finish(home, sent, responses)
        shutil.rmtree(home)

    def _deliver(self, home: Path, turn: int) -> list[Delivery]:
        numbers = range(turn * NEW_IN_A_ROUND, (turn + 1) * NEW_IN_A_ROUND)
        twins = [number for number in numbers if self.chance.random() < TWIN_SHARE]
        return [deliver(home, number) for number in numbers] + [
            deliver(home, number, twin=True) for number in twins
        ]

    def _task(self, home: Path, responses: Path, jobs: list[Delivery], **more: Any) -> dict[str, Any]:
        root = str(home / "store")
        named = [[each.batch, str(each.path)] for each in jobs]
        return {
            "root": root,
            "acks": str(responses),
            "jobs": named,
            "aggregates": self.worlds % 2 == 0,
            **more,
        }

    def _round(self, home: Path, sent: list[Delivery], responses: Path) -> int:
        running, timestamps = [], []
        for _ in range(self.chance.randint(1, self.loaders)):
            jobs = self.chance.choices(sent, k=self.chance.randint(1, 4))
            at_point = self.chance.random() < 0.5
            point = next(self.points) if at_point else None
            task = self._task(home, responses, jobs, point=point, passes=self.chance.randint(1, 2))
            pid = self.zygote.run(**task)
            running.append((pid, point))
            if not at_point and self.chance.random() < 0.9:
                timestamp = time.monotonic() + self.chance.uniform(0, self.load_seconds * len(jobs))
                timestamps.append((timestamp, pid))
        for timestamp, pid in sorted(timestamps):
            time.sleep(max(0.0, timestamp - time.monotonic()))
            os.kill(pid, signal.SIGKILL)  # not yet waited for, so the id is still its own
        died = 0
        for pid, point in running:
            status = self.zygote.wait(pid)
            if status == -signal.SIGKILL:
                self.kills[point or "at a random time"] += 1
                died += 1
            elif status != 0:
                self.broken.append(f"a loader ended with {status}")
        return died

    def _finish(self, home: Path, sent: list[Delivery], responses: Path) -> None:
        """Everything is delivered once more; now all of it is there."""
        begun = time.monotonic()
        jobs = self.chance.sample(sent, len(sent))
        self.zygote.wait(self.zygote.run(**self._task(home, responses, jobs)))
        self.load_seconds = max(0.02, (time.monotonic() - begun) / len(sent))
        self._check(home, sent, responses)
        reported = {tuple(line.split(" ", 3)[:3]) for line in responses.read_text().splitlines()}
        for batch in {each.batch for each in sent}:
            winners = [line for line in reported if line[0] == "ACK" and line[1] == batch]
            if len(winners) != 1:
                self.broken.append(f"{batch} was acknowledged with {len(winners)} contents")
        self.acknowledged += len({line for line in reported if line[0] == "ACK"})

    def _check(self, home: Path, sent: list[Delivery], responses: Path) -> None:
        store = Store.open(home / "store")
        lines = responses.read_text().splitlines() if responses.exists() else []
        history = check(store, sent, lines)
        if history:
            self.broken.append(f"{home.name}: {history}")
        outcome = verify(store)
        self.broken += [f"{home.name}: verify found {finding}" for finding in outcome.findings]
        self.rows += outcome.rows
        store.ledger.close()

    def outcome(self) -> dict[str, Any]:
        """What is printed."""
        return {
            "kills": self.kills.total(),
            "kills_by_point": dict(sorted(self.kills.items())),
            "worlds": self.worlds,
            "batches_acknowledged": self.acknowledged,
            "rows_checked": self.rows,
            "broken": self.broken,
        }


def soak(kills: int, loaders: int, seed: int, directory: Path) -> dict[str, Any]:
    """Run until `kills` loaders died; what came of it."""
    run = Soak(seed, loaders, directory)
    try:
        while run.kills.total() < kills and not run.broken:
            run.world(min(KILLS_IN_A_WORLD, kills - run.kills.total()))
    finally:
        run.zygote.close()
    return run.outcome()


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.soak.crash", __doc__)
    command.size("--kills", 1000, 40, help="loaders to kill")
    command.option("--loaders", type=int, default=4)
    command.option("--seed", type=int, default=20131)
    options = command.parse(arguments)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-crash-") as directory:
        outcome = soak(options.kills, options.loaders, options.seed, Path(directory))
    outcome |= {
        "seed": options.seed,
        "loaders": options.loaders,
        "seconds": round(time.monotonic() - begun, 1),
    }
    return command.finish(outcome, passed=not outcome["broken"])


if __name__ == "__main__":
    sys.exit(main())
