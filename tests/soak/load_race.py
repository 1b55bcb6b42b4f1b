"""Processes that race for the same batch ids: each id is loaded once, whichever process wins, and none hears anything else.

python -m tests.soak.load_race --processes 4 --batches 40 --seed 20131
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--seed", type=int, default=20131)
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-race-") as directory:
        outcome = race(options.processes, options.batches, options.seed, Path(directory))
    outcome |= {**vars(options), "seconds": round(time.monotonic() - begun, 1)}
    sys.stdout.write(json.dumps(outcome, indent=1) + "\n")
    return 1 if outcome["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
