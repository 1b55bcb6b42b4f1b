"""Processes that race for the same batch ids: each id is loaded once, whichever process wins, and none hears anything else.

python -m tests.soak.load_race --processes 4 --batches 40 --seed 20131
"""

from __future__ import annotations

import random
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
from tests.soak.delivery_history import Zygote, check, deliver


def race(processes: int, count: int, seed: int, home: Path) -> dict[str, Any]:
    """Let `processes` load the same `count` batches at once, in almost the same order; what came of it."""
    chance, responses = random.Random(seed), home / "answers"
    sent = [deliver(home, number) for number in range(count)]
    sent += [deliver(home, number, twin=True) for number in range(0, count, 4)]
    Store.open(home / "store").ledger.close()
    zygote = Zygote()
    try:
        running = []
        for _ in range(processes):
            jobs = sorted(sent, key=lambda each: (each.first // 1000 + chance.uniform(0, 2), each.content))
            named = [[each.batch, str(each.path)] for each in jobs]
            running.append(zygote.run(root=str(home / "store"), acks=str(responses), jobs=named))
        statuses = [zygote.wait(pid) for pid in running]
    finally:
        zygote.close()
    lines = responses.read_text().splitlines()
    store = Store.open(home / "store")
    history = check(store, sent, lines)
    outcome = verify(store)
    reported = Counter(line.split(" ")[0 if line.startswith("HF") else 3] for line in lines)
    broken = [str(history)] if history else []
    broken += [f"a process ended with {status}" for status in statuses if status != 0]
    broken += [str(finding) for finding in outcome.findings]
    if reported["loaded"] != count:
        broken.append(f"{reported['loaded']} loads of {count} batches")
    store.ledger.close()
    return {
        "answers": dict(sorted(reported.items())),
        "rows": outcome.rows,
        "duplicates": len(history.twice),
        "broken": broken,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.soak.load_race", __doc__)
    command.option("--processes", type=int, default=4)
    command.size("--batches", 40, 10, help="ids to race for")
    command.option("--seed", type=int, default=20131)
    options = command.parse(arguments)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-race-") as directory:
        outcome = race(options.processes, options.batches, options.seed, Path(directory))
    outcome |= {"processes": options.processes, "batches": options.batches, "seed": options.seed}
    outcome["seconds"] = round(time.monotonic() - begun, 1)
    return command.finish(outcome, passed=not outcome["broken"])


if __name__ == "__main__":
    sys.exit(main())
