"""Loads that are killed or fail are events, and so is the load that ends that (R2)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.control.daemon import concerns
from holdfast.control.executors.executor import LocalExecutor
from holdfast.control.ingest.failed_loads import (
    FAILED,
    RECOVERED,
)
from holdfast.control.ingest.ingest import ingest, ingest_many
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.control.interrupted_operations import LOAD_INTERRUPTED as INTERRUPTED
from holdfast.control.interrupted_operations import report_interrupted
from holdfast.control.maintenance.compact import compact
from holdfast.control.maintenance.verify import verify
from holdfast.errors import HoldfastError, InputError, UnavailableError
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.events import EventRow
from holdfast.store.db.failed_operations import REPEATED_US
from holdfast.store.files import staging
from holdfast.store.sources import AbsentError
from tests.support import backout_world
from tests.support.backout_world import ALONE, NOW_US, delivery

KILLED = """
import os, signal, sys
from pathlib import Path
from holdfast.control.executors.executor import LocalExecutor
from holdfast.control.ingest.ingest import ingest_many
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.store import Store
from holdfast.store.durability import failpoints
from tests.support.backout_world import ALONE, NOW_US

failpoints.armed = failpoints.kill_at("ingest.staged")
spec = DeliverySpec("h1", Path(sys.argv[2]), None)
list(ingest_many(Store.open(Path(sys.argv[1])), ALONE, [spec], LocalExecutor(), clock_us=lambda: NOW_US))
"""


def found(store: Store) -> list[EventRow]:
    """The events about failures, oldest first."""
    with store.ledger.read() as connection:
        every = [
            each for kind in (INTERRUPTED, FAILED, RECOVERED) for each in events.newest(connection, kind=kind)
        ]
    return sorted(every, key=lambda each: each.event_id)


@pytest.mark.process
@pytest.mark.crash
@pytest.mark.sqlite
def test_a_killed_load_is_an_event_once_and_the_load_that_follows_ends_it(tmp_path: Path) -> None:
    root, path = tmp_path / "store", delivery(tmp_path, ALONE, 1)
    store = Store.open(root)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root), str(path)], check=False, env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    assert found(store) == []
    # What removes its files first forgets no note.
    compact(store, now_us=NOW_US)
    verify(store)
    # No load follows: the control loop finds it.
    concerns()["reporting killed loads and trainings"](store, "m", None, now_us=NOW_US)
    (event,) = found(store)
    assert (event.kind, event.subject) == (INTERRUPTED, "alone/h1")
    report_interrupted(store, now_us=NOW_US)
    assert found(store) == [event]
    assert staging.dead_attempts(store.root) == []
    ingest(store, ALONE, "h1", path, now_us=NOW_US + 1)
    assert [each.kind for each in found(store)] == [INTERRUPTED, RECOVERED]
    assert "after 1 reported failure" in found(store)[-1].explanation


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_a_load_that_fails_again_and_again_is_reported_and_its_end_too(tmp_path: Path, many: bool) -> None:
    store = Store.open(tmp_path / "store")

    def load(path: Path, now_us: int) -> None:
        if many:
            spec = DeliverySpec("h1", path, None)
            list(ingest_many(store, ALONE, [spec], LocalExecutor(), clock_us=lambda: now_us))
        else:
            ingest(store, ALONE, "h1", path, now_us=now_us)

    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    for now_us in (NOW_US, NOW_US + 1, NOW_US + REPEATED_US):
        with pytest.raises(HoldfastError, match="HF201"):
            load(broken, now_us)
    reported = found(store)
    assert [(each.kind, each.subject) for each in reported] == [(FAILED, "alone/h1")] * 2
    assert "HF201" in reported[0].explanation
    load(delivery(tmp_path, ALONE, 1), NOW_US + REPEATED_US + 1)
    assert "after 2 reported failures" in found(store)[-1].explanation
    backout_world.take_out(store, ALONE, 1)
    load(delivery(tmp_path, ALONE, 1), NOW_US + REPEATED_US + 2)
    assert [each.kind for each in found(store)] == [FAILED, FAILED, RECOVERED]  # ended once


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("name", ["mistyped.parquet", "no/*.csv"])
def test_a_source_that_does_not_exist_is_no_load(tmp_path: Path, many: bool, name: str) -> None:
    """A name was mistyped: a fault of the command, and nothing that an operator is alarmed for."""
    store = Store.open(tmp_path / "store")
    source = str(tmp_path / name)

    def load() -> None:
        if many:
            spec = DeliverySpec("h1", source, None)
            list(ingest_many(store, ALONE, [spec], LocalExecutor(), clock_us=lambda: NOW_US))
        else:
            ingest(store, ALONE, "h1", source, now_us=NOW_US)

    with pytest.raises(InputError, match=r"HF201.*does not exist") as refused:
        load()
    assert isinstance(refused.value, AbsentError)
    assert found(store) == []
    with store.ledger.read() as connection:
        assert events.newest(connection) == []


def test_a_delivery_that_is_judged_and_refused_did_not_fail(tmp_path: Path) -> None:
    """A batch without a valid row, and other content under its id."""
    store = Store.open(tmp_path / "store")
    none = tmp_path / "none.csv"
    none.write_text("id,origin,delay,at,left\nx,,,yesterday,\n")
    with pytest.raises(HoldfastError, match="HF204"):
        ingest(store, ALONE, "h9", none, now_us=NOW_US)
    backout_world.load(store, tmp_path, ALONE, 1)
    with pytest.raises(HoldfastError, match="HF203"):
        backout_world.load(store, tmp_path, ALONE, 1, variant=1)
    assert found(store) == []


def test_a_load_that_ended_with_an_error_was_not_killed(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    with pytest.raises(UnavailableError, match="HF307"), staging.staged(store.root, note='{"feed":"alone"}'):
        raise OSError("the disk")
    assert staging.dead_attempts(store.root) == []


def test_a_note_of_something_else_is_no_load(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    markers = store.root / staging.ATTEMPTS_DIRECTORY
    markers.mkdir(parents=True, exist_ok=True)
    for name, note in (
        ("a", "{"),
        ("b", '{"feed": "../x", "batch": "h1", "begun_at_us": 1}'),
        ("c", "[1]"),
        ("d", '{"model": "../x", "begun_at_us": 1}'),
    ):
        (markers / name).write_text(note)
    report_interrupted(store, now_us=NOW_US)
    assert found(store) == []
    assert list(markers.iterdir()) == []
