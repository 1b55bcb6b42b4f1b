"""The loader is killed with SIGKILL, the delivery comes again and again: every row is there once (R1-R4)."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.verify import verify
from holdfast.features.asof import aggregate_rows
from holdfast.store import Store
from holdfast.store.catalog import batches, online_features
from holdfast.store.db import events
from holdfast.store.durability import failpoints
from holdfast.store.files import data_files
from tests.support import forking, loader

pytestmark = pytest.mark.crash

Delivery = Callable[[int], Path]
Start = Callable[..., forking.Process]


def _assert_exact(store: Store, days: int) -> None:
    """Each good row of `days` days once, in event order; what servers read equal to what all rows give."""
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
        _, values = online_features.since(connection, [loader.AGGREGATE.key], 0)
        reported = events.newest(connection, kind="batch.published")
    rows = data_files.read_rows(store, version, "flights")
    held = data_files.read_rows(store, version, "flights__quarantine")
    expected = [1000 * day + row for day in range(days) for row in range(300) if row != 7]
    assert rows["id"].to_list() == expected
    assert held["id"].to_list() == [str(1000 * day + 7) for day in range(days)]  # the quarantine keeps text
    assert version == days
    assert len(reported) == days
    served = pl.DataFrame([(v.entity, v.known_at_us, v.value) for v in values], orient="row")
    assert sorted(served.rows()) == sorted(aggregate_rows(loader.AGGREGATE, rows).rows())
    assert verify(store).findings == ()
    named = {
        fact.path for table in ("flights", "flights__quarantine") for fact in _files(store, table, version)
    }
    assert {f"rows/{path.name}" for path in (store.root / "rows").iterdir()} == named


def _files(store: Store, table: str, version: int) -> list[data_files.FileFacts]:
    with store.ledger.read() as connection:
        return data_files.entries(connection, table, version)


@pytest.mark.parametrize("point", failpoints.POINTS)
def test_a_kill_at_every_point_then_four_resubmits(
    point: str, tmp_path: Path, delivery: Delivery, start_loader: Start
) -> None:
    path, root = delivery(0), tmp_path / "store"
    killed = start_loader(root, point, path)
    out, _ = killed.communicate(timeout=600)
    assert killed.returncode == -signal.SIGKILL
    assert out == ""
    store = Store.open(root)
    states = [
        ingest(store, loader.FEED, "day-0", path, now_us=1, aggregates=[loader.AGGREGATE]).state
        for _ in range(4)
    ]
    committed = point in ("commit.after_commit", "ingest.before_acknowledge")
    assert states == ["already_loaded" if committed else "loaded"] + ["already_loaded"] * 3
    _assert_exact(store, days=1)


def test_kills_at_random_times(tmp_path: Path, delivery: Delivery, start_loader: Start) -> None:
    """What was acknowledged before a kill is there after it; what was not is loaded by the next run."""
    days, root, seed = 12, tmp_path / "store", 20131
    paths = [delivery(day) for day in range(days)]
    chance = random.Random(seed)
    for _ in range(4):
        running = start_loader(root, "-", *paths)
        first = running.stdout.readline()
        time.sleep(chance.uniform(0, 0.15))
        running.kill()
        rest, _ = running.communicate(timeout=600)
        acknowledged = {line.split()[1] for line in (first + rest).splitlines() if line.startswith("ACK ")}
        store = Store.open(root)
        with store.ledger.read() as connection:
            for batch in acknowledged:
                assert any(load.live for load in batches.loads(connection, batches.BatchId("flights", batch)))
        assert verify(store).findings == ()
        store.ledger.close()
    done = start_loader(root, "-", *paths)
    out, _ = done.communicate(timeout=600)
    assert done.returncode == 0
    assert len(out.splitlines()) == days
    _assert_exact(Store.open(root), days)


def test_four_processes_at_once_next_to_a_sweep(
    tmp_path: Path, delivery: Delivery, start_loader: Start
) -> None:
    """The same four deliveries from four processes, in other orders, while another process verifies all the time."""
    days, root = 4, tmp_path / "store"
    paths = [delivery(day) for day in range(days)]
    store = Store.open(root)
    running = [start_loader(root, "-", *paths[turn:], *paths[:turn]) for turn in range(4)]
    while any(process.poll() is None for process in running):
        assert verify(store).findings == ()
        time.sleep(0.05)
    lines = [line for process in running for line in process.communicate()[0].splitlines()]
    assert [process.returncode for process in running] == [0] * 4
    for day in range(days):
        states = [line.split()[2] for line in lines if line.startswith(f"ACK day-{day} ")]
        assert sorted(states) == ["already_loaded"] * 3 + ["loaded"]
    _assert_exact(store, days)
