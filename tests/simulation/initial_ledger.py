"""The ledger that simulated worlds begin with, on a disk in memory."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy import event, insert

from holdfast.rollout import Canary
from holdfast.store import Store
from holdfast.store.db import ledger, schema

MODEL = "m"
VERSIONS = 7


@dataclass
class Ground:
    """A ledger on a disk in memory that every run of this process begins with anew."""

    home: Path
    store: Store
    empty: sqlite3.Connection

    @classmethod
    @contextmanager
    def lay(cls) -> Iterator[Ground]:
        memory = Path("/dev/shm")
        within = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
        home = Path(tempfile.mkdtemp(prefix="holdfast-simulation-", dir=within))
        store = Store.open(home)
        try:
            _versions(store)
            # The connection that is open stays so: a ledger that no process has open keeps page checksums: it may not change.
            open_for_good = store.ledger.engine.connect()
            event.listen(store.ledger.engine, "connect", _not_synced)
            empty = sqlite3.connect(":memory:")
            with sqlite3.connect(home / "ledger.db") as source:
                source.backup(empty)
            source.close()
            # An actor that stands still in a transaction does so until another is resumed: waiting for it takes for ever.
            with patch.object(ledger, "BUSY_SECONDS", 0.0):
                yield cls(home, store, empty)
            empty.close()
            open_for_good.close()
        finally:
            store.ledger.close()
            shutil.rmtree(home, ignore_errors=True)

    def reset(self) -> None:
        with sqlite3.connect(self.home / "ledger.db") as target:
            self.empty.backup(target)
        target.close()


def _not_synced(connection: sqlite3.Connection, _record: Any) -> None:
    """Only the order of things counts here."""
    connection.execute("PRAGMA synchronous = OFF")


def _versions(store: Store) -> None:
    with store.ledger.write() as connection:
        connection.execute(insert(schema.table_versions).values(committed_at_us=1, reason="test"))
        connection.execute(
            insert(schema.snapshots).values(snapshot="s", table_version=1, contract_hash="c", created_at_us=1)
        )
        for number in range(1, VERSIONS + 1):
            connection.execute(
                insert(schema.versions).values(
                    version=f"v{number}", model=MODEL, number=number, digest=f"{number:064d}", bytes=1, snapshot="s",
                    contract_hash="c", features_hash="f", learner="l", role="heuristic" if number == 1 else "candidate",
                    state="registered" if number == 1 else "qualified", created_at_us=1,
                )
            )  # fmt: skip


def policy(chance: random.Random, *, calm: bool) -> Canary:
    """A policy that may end within minutes; a calm one has patience, whatever the clocks show."""
    drawn = Canary(
        steps=chance.choice([(10, 50, 100), (50, 100), (25,), (20, 100)]),
        units_per_step=chance.choice([5, 20]),
        labels_per_step=0,
        latency_quantile=chance.choice([None, None, None, 0.99]),
        latency_requests=30,
        min_step_duration=timedelta(seconds=chance.choice([0, 0, 0, 10])),
        timeout=timedelta(minutes=chance.choice([1, 30, 300])),
        convergence_timeout=timedelta(minutes=chance.choice([0.5, 10, 300])),
    )
    return replace(drawn, timeout=timedelta(days=9), convergence_timeout=timedelta(days=9)) if calm else drawn
