"""How long a round of the control loop needs to collect a prediction and join its label, alone and beside labels that wait.

The waiting labels name places ahead of the log of another server, as those of a sender do that labels predictions in
advance. They are put into the ledger as the control loop puts them, past the bound on their number. Each round collects one
prediction with its label and joins it. Both kinds of rounds are measured in turns in two stores, at the same load.

Run: python -m benchmarks.waiting_labels --waiting 300000
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.command import Command
from holdfast.control.collect import collector
from holdfast.feedback import IdKey
from holdfast.store import Store
from holdfast.store.db import leases
from holdfast.store.db.leases import Lease
from holdfast.store.serving import label_rules, servers
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, frame
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry import labels
from holdfast.store.telemetry.labels import NewLabel

MODEL: Final = "m"
NOW_US: Final = 1_700_000_000_000_000
SECRET: Final = bytes(range(32))
KEY: Final = IdKey(SECRET)
_AT_ONCE: Final = 20_000


class Loop:
    """A store with the log of one server, and its control loop."""

    def __init__(self, root: Path, waiting: int) -> None:
        self.store = Store.open(root / "store")
        self.log = root / "s1"
        self.log.mkdir()
        self.rounds = 0
        with self.store.ledger.write() as connection:
            for name in ("s1", "s2"):
                server = Server(name, MODEL, "http://127.0.0.1:1", root / name, NOW_US)
                servers.announce(connection, server, tagged_from_segment=1)
            label_rules.ensure_secret(connection, SECRET, now_us=NOW_US)
            lease = leases.acquire(connection, "control", holder="b", duration_us=10**12, now_us=NOW_US)
        if not isinstance(lease, Lease):
            raise SystemExit("the lease is held")
        self.lease = lease
        for begin in range(0, waiting, _AT_ONCE):
            places = (f"s2-9-{number}" for number in range(begin, min(begin + _AT_ONCE, waiting)))
            sent = [NewLabel(f"{place}.{KEY.tag(place)}/0", 1.0, "flood", NOW_US) for place in places]
            with self.store.ledger.write() as connection:
                labels.add(connection, sent, {each.prediction_id: NOW_US + 10**12 for each in sent})

    def round(self) -> float:
        """Collect one prediction with its label and join it; return the seconds."""
        self.rounds += 1
        place = f"s1-1-{self.rounds}"
        name = f"{place}.{KEY.tag(place)}"
        prediction = PredictionRecord(
            name, NOW_US, NOW_US, b"u", "champion", "v1", "", None, "ok", 9, [0.5], [["AA"]]
        )
        with (self.log / "00000001.log").open("ab") as segment:
            segment.writelines(map(frame, (prediction, FeedbackRecord(f"{name}/0", 1.0, "crm", NOW_US))))
        begun = time.perf_counter()
        collector.collect(self.store, MODEL, self.lease, now_us=NOW_US)
        joined = collector.join(self.store, MODEL, self.lease, now_us=NOW_US)
        seconds = time.perf_counter() - begun
        if joined != 1:
            raise SystemExit(f"round {self.rounds} joined {joined} labels, not 1")
        return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("benchmarks.waiting_labels", __doc__)
    command.size("--waiting", 300_000, 2_000, help="labels that wait")
    command.size("--rounds", 200, 5, help="rounds of each kind")
    asked = command.parse(arguments)
    with tempfile.TemporaryDirectory(prefix="holdfast-waiting-") as directory:
        kinds = {}
        for name, waiting in (("alone", 0), ("beside", asked.waiting)):
            (root := Path(directory) / name).mkdir()
            kinds[name] = Loop(root, waiting)
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(asked.rounds):
            for name, loop in kinds.items():
                seconds[name].append(loop.round())
        for loop in kinds.values():
            loop.store.ledger.close()
    median_ms = {name: statistics.median(found) * 1000 for name, found in seconds.items()}
    figures: dict[str, object] = {"waiting": asked.waiting, "rounds": asked.rounds}
    figures |= {f"{name}_median_ms": round(found, 2) for name, found in median_ms.items()}
    figures["ratio"] = round(median_ms["beside"] / median_ms["alone"], 2)
    return command.finish(figures)


if __name__ == "__main__":
    sys.exit(main())
