"""Deliveries whose every row has an id of its own, loaders that are killed, and the checker of their history.

The checker knows nothing of how a load works. It holds what senders were reported against the rows that can be read:
acknowledged and not there is lost, there more than once is twice, a part of a delivery is torn.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.files import data_files

ROWS = 24
BAD_ROW = 5


@dataclass(frozen=True)
class Delivery:
    """A file with rows `first` to `first + ROWS - 1`, one of which breaks the contract."""

    batch: str
    content: str
    path: Path
    first: int

    @property
    def ids(self) -> set[int]:
        return set(range(self.first, self.first + ROWS))

    @property
    def bad(self) -> int:
        return self.first + BAD_ROW


def deliver(directory: Path, number: int, *, twin: bool = False) -> Delivery:
    """Delivery `number`; its twin has the same batch id and other rows."""
    content = f"b{number}-{'twin' if twin else 'first'}"
    first = 1000 * number + (500 if twin else 0)
    path = directory / f"{content}.parquet"
    start = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=number)
    pl.DataFrame(
        {
            "id": list(range(first, first + ROWS)),
            "origin": [("EWR", "JFK")[row % 2] for row in range(ROWS)],
            "delay": [9e9 if row == BAD_ROW else float(row) for row in range(ROWS)],
            "at": [start + timedelta(minutes=row) for row in range(ROWS)],
        }
    ).write_parquet(path)
    return Delivery(f"b{number}", content, path, first)


@dataclass
class History:
    """What went wrong with rows, in words; empty lists are what is promised."""

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.twice or self.torn or self.wrong)


def check(store: Store, deliveries: Iterable[Delivery], responses: Iterable[str]) -> History:
    """Hold the answers that senders got against the rows that can be read now."""
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
    read = {
        table: Counter(int(each) for each in _ids(store, version, table))
        for table in ("flights", "flights__quarantine")
    }
    good, bad = read["flights"], read["flights__quarantine"]
    reported = [line.split(" ", 3) for line in responses]
    acknowledged = {(line[1], line[2]) for line in reported if line[0] == "ACK"}
    loaded = Counter((line[1], line[2]) for line in reported if line[0] == "ACK" and line[3] == "loaded")
    found = History()
    found.twice += [
        f"row {row} is there {n} times" for table in read.values() for row, n in table.items() if n > 1
    ]
    found.twice += [f"{key} was loaded {n} times" for key, n in loaded.items() if n > 1]
    found.wrong += [" ".join(line) for line in reported if line[0] not in ("ACK", "HF203")]
    known: set[int] = set()
    there_of: Counter[str] = Counter()
    for each in deliveries:
        known |= each.ids
        there = {row for row in each.ids if row in good or row in bad}
        if there and there != each.ids:
            found.torn.append(f"{each.content} has {len(there)} of {ROWS} rows")
        if each.ids & bad.keys() - {each.bad} or each.bad in good:
            found.wrong.append(f"{each.content} has rows in the wrong table")
        if (each.batch, each.content) in acknowledged and there != each.ids:
            found.lost.append(f"{each.content} was acknowledged, {len(there)} of {ROWS} rows are there")
        there_of[each.batch] += bool(there)
    found.wrong += [f"batch {batch} has two contents" for batch, n in there_of.items() if n > 1]
    found.wrong += [f"row {row} was never sent" for row in (good.keys() | bad.keys()) - known]
    return found


def _ids(store: Store, version: int, table: str) -> list[str]:
    frame = data_files.read_rows(store, version, table, ["id"])
    return frame["id"].cast(pl.String).to_list() if frame.width else []


class Zygote:
    """The warm interpreter from which loaders are forked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.soak.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, **task: Any) -> int:
        """Start a loader; its process id."""
        return int(self._ask({"run": task})["pid"])

    def wait(self, pid: int) -> int | None:
        """Its exit status, negative for the signal that ended it; None for one that hung."""
        status = self._ask({"wait": pid})["status"]
        return None if status is None else int(status)

    def close(self) -> None:
        """End the interpreter."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, requested: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(requested) + "\n")
        self._process.stdin.flush()
        response: dict[str, Any] = json.loads(self._process.stdout.readline())
        return response
