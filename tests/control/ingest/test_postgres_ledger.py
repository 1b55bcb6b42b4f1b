"""A ledger on PostgreSQL keeps what the one on SQLite keeps, with many processes, crashes and a server that is stopped
(R3, P4, F10). More of each: tests/soak/postgres_ledger.py.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.verify import verify
from holdfast.errors import UnavailableError
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.db import events, failed_operations, postgres
from holdfast.store.db.failed_operations import Operation
from holdfast.store.durability import failpoints
from holdfast.store.files import data_files
from tests.support import forking, loader

PROCESSES = 3
BATCHES = 6
KILLS = 3
ROWS = 6


@pytest.fixture
def ledger(postgres_ledgers: Any, tmp_path: Path) -> str:
    return str(postgres_ledgers.url(tmp_path / "ledger"))


def _deliveries(directory: Path, count: int) -> list[Path]:
    """Small deliveries of different rows, each to be loaded as a batch named after it."""
    directory.mkdir(exist_ok=True)
    paths = []
    for number in range(count):
        path = directory / f"b{number:03}.csv"
        rows = "".join(
            f"{1000 * number + row},EWR,4.5,2013-01-01T{number % 24:02}:{row:02}:00-05:00,2013-01-02T10:20:00Z\n"
            for row in range(ROWS)
        )
        path.write_text("id,origin,delay,at,left\n" + rows)
        paths.append(path)
    return paths


LOADER = "import sys; from tests.support import postgres_loader; postgres_loader.main(*sys.argv[1:])"


def _start(root: Path, url: str, paths: list[Path]) -> forking.Process:
    return forking.start(LOADER, root, url, *paths)


def _assert_all_once(root: Path, url: str, count: int) -> None:
    store = Store.open(root, url)
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
        reported = [
            event for event in events.newest(connection, limit=10_000) if event.kind == "batch.published"
        ]
        assert all(len(batches.loads(connection, BatchId("flights", f"b{n:03}"))) == 1 for n in range(count))
    rows = data_files.read_rows(store, version, "flights")
    assert sorted(rows["id"].to_list()) == [1000 * n + row for n in range(count) for row in range(ROWS)]
    assert len(reported) == count
    assert verify(store, now_us=9).findings == ()
    store.ledger.close()


@pytest.mark.process
def test_racing_loaders_load_each_batch_once(ledger: str, tmp_path: Path) -> None:
    """Each of the processes loads every batch, in an order of its own."""
    paths = _deliveries(tmp_path / "in", BATCHES)
    root = tmp_path / "store"
    running = []
    for seed in range(PROCESSES):
        random.Random(seed).shuffle(paths)
        running.append(_start(root, ledger, paths))
    reported = Counter(
        line.split()[2] for loader in running for line in loader.communicate(timeout=300)[0].splitlines()
    )
    assert [loader.returncode for loader in running] == [0] * PROCESSES
    assert reported == {"loaded": BATCHES, "already_loaded": (PROCESSES - 1) * BATCHES}
    _assert_all_once(root, ledger, BATCHES)


@pytest.mark.process
@pytest.mark.crash
def test_what_was_acknowledged_outlives_a_server_that_is_killed(own_postgres: Any, tmp_path: Path) -> None:
    server = own_postgres
    server.execute("CREATE DATABASE ledger")
    url = server.url("ledger", "postgresql+psycopg")
    root = tmp_path / "store"
    Store.open(root, url).ledger.close()
    paths = _deliveries(tmp_path / "in", 30)
    seeded = random.Random(7)
    with _start(root, url, paths) as loader:
        reported = [loader.stdout.readline()]  # it is at work now
        for _ in range(KILLS):
            time.sleep(seeded.uniform(0.05, 0.4))
            server.kill()
            server.restart()
        reported += loader.stdout.readlines()
    assert loader.returncode == 0
    assert [line.split()[1] for line in reported if line.startswith("ACK")] == [path.stem for path in paths]
    _assert_all_once(root, url, len(paths))


def _stop(server: Any, *more: int) -> list[int]:
    """SIGSTOP every process that serves a ledger, and those of `more`: their kernel goes on acknowledging for them."""
    found = server.execute("SELECT pid FROM pg_stat_activity WHERE datname LIKE 'ledger%'")
    stopped = [*(int(pid) for (pid,) in found), *more]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    return stopped


def _go_on(stopped: list[int]) -> None:
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)


def test_a_server_that_is_stopped_is_not_waited_for_without_end(
    postgres_server: Any, ledger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "RESPONSE_SECONDS", 2.0)
    first, second = _deliveries(tmp_path / "in", 2)
    store = Store.open(tmp_path / "store", ledger)
    with store.ledger.read() as connection:
        assert batches.current_version(connection) == 0
    stopped = _stop(postgres_server, postgres_server.postmaster)
    began = time.monotonic()
    try:
        with pytest.raises(UnavailableError, match=r"HF302.*the ledger did not respond.*nothing was changed"):
            ingest(store, loader.FEED, "b000", first, now_us=7)
        assert time.monotonic() - began < 60
    finally:
        _go_on(stopped)
    assert ingest(store, loader.FEED, "b000", first, now_us=7).state == "loaded"
    # One connection that is stopped is given up, and another one made.
    stopped = _stop(postgres_server)
    try:
        assert ingest(store, loader.FEED, "b001", second, now_us=7).state == "loaded"
    finally:
        _go_on(stopped)


def test_a_commit_that_hangs_is_unknown_and_comes_out_whole(
    postgres_server: Any, ledger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The COMMIT is on its way to a process that is stopped: it may still happen, and its files must stay."""
    monkeypatch.setattr(postgres, "RESPONSE_SECONDS", 2.0)
    (path,) = _deliveries(tmp_path / "in", 1)
    root = tmp_path / "store"
    store = Store.open(root, ledger)
    stopped: list[int] = []

    def hook(point: str) -> None:
        if point == "commit.before_commit":
            failpoints.armed = None
            stopped.extend(_stop(postgres_server))

    failpoints.armed = hook
    try:
        with pytest.raises(UnavailableError, match=r"HF205.*b000.*completely or not at all"):
            ingest(store, loader.FEED, "b000", path, now_us=7)
    finally:
        failpoints.armed = None
        _go_on(stopped)
    assert ingest(store, loader.FEED, "b000", path, now_us=7).state in ("already_loaded", "loaded")
    _assert_all_once(root, ledger, 1)


def test_a_writer_that_was_stopped_in_its_transaction_leaves_versions_in_order(
    ledger: str, tmp_path: Path
) -> None:
    """A reader that has seen a version has seen every one before it: numbers are committed in their order."""
    store = Store.open(tmp_path / "store", ledger)
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with store.ledger.write() as connection:
            events.append(connection, at_us=1, kind="a.b", subject="slow", explanation="first")
            begun.set()
            go_on.wait(30)

    def quick() -> None:
        with store.ledger.write() as connection:
            events.append(connection, at_us=2, kind="a.b", subject="quick", explanation="second")

    threads = [threading.Thread(target=slow), threading.Thread(target=quick)]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    time.sleep(0.3)
    with store.ledger.read() as connection:
        assert events.since(connection, 0) == []
    go_on.set()
    for thread in threads:
        thread.join(30)
    with store.ledger.read() as connection:
        assert [event.subject for event in events.since(connection, 0)] == ["slow", "quick"]


def test_a_read_sees_one_state(ledger: str, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", ledger)
    with store.ledger.read() as connection:
        assert events.since(connection, 0) == []
        with store.ledger.write() as other:
            events.append(other, at_us=1, kind="a.b", subject="c", explanation="d")
        assert events.since(connection, 0) == []
    with store.ledger.read() as connection:
        assert len(events.since(connection, 0)) == 1


def test_text_with_nul_is_kept(ledger: str, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", ledger)
    with store.ledger.write() as connection:
        event = events.append(connection, at_us=1, kind="a.b", subject="a", explanation="b")
        failed_operations.put(connection, event, Operation(1, "\ue000\0\U0001f6eb"))
    with store.ledger.read() as connection:
        assert failed_operations.find(connection, event) == Operation(1, "\ue000\0\U0001f6eb")
