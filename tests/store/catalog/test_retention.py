"""A vacuum does what it showed, and a killed one is finished by a sweep."""

from __future__ import annotations

import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import insert

from holdfast.control.backout.backout import execute_backout, plan_backout
from holdfast.control.maintenance import vacuum
from holdfast.control.maintenance.compact import compact
from holdfast.control.maintenance.verify import verify
from holdfast.errors import ConflictError, NotFoundError
from holdfast.feeds import Manifest
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.backout import impact
from holdfast.store.catalog import batches, delta, lineage, snapshots
from holdfast.store.db import schema
from holdfast.store.durability import failpoints
from holdfast.store.files import data_files, staging
from holdfast.tables.lineage import Lineage, Node, NodeKind
from tests.support import forking
from tests.support.loads import insert_load
from tests.support.queries import write

DAY = timedelta(days=1)
LATE_US = 100 * 86_400_000_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Four small files, a snapshot of two of them and one of all, and the four compacted."""
    store = Store.open(tmp_path / "store")
    for number in range(4):
        _load(store, f"d{number}", number)
        if number in (1, 3):
            _snapshot(store)
    compact(store, now_us=9)
    return store


def _load(store: Store, batch: str, at: int) -> None:
    frame = pl.DataFrame({"id": [10 * at, 10 * at + 1], "at": [at, at]}).with_columns(
        pl.col("at").cast(pl.Datetime("us", "UTC"))
    )
    manifest = replace(
        Manifest.of(BatchId("flights", batch), 0, batch, "cc", ("id",)),
        rows_loaded=2,
        rows_quarantined=0,
        event_time_min_us=at,
        event_time_max_us=at,
        source="x",
        files=1,
    )
    with staging.staged(store.root) as stage:
        written = stage.write("flights", frame, manifest.as_dict(), event_time="at")
        stage.sync()
        insert_load(store, manifest, [written], low_us=at, high_us=at, now_us=at)


def _snapshot(store: Store) -> str:
    return write(store, snapshots.create, store.root, ["flights"], contract_hash="cc", now_us=5).snapshot


def _names(store: Store) -> list[str]:
    with store.ledger.read() as connection:
        return list(
            connection.execute(schema.snapshots.select().order_by(schema.snapshots.c.table_version)).scalars()
        )


def _version_of(store: Store, snapshot: str) -> None:
    with store.ledger.write() as connection:
        connection.execute(
            insert(schema.versions).values(
                version="v1-0",
                model="m",
                number=1,
                digest="d",
                bytes=1,
                snapshot=snapshot,
                contract_hash="cc",
                features_hash="f",
                learner="l",
                role="candidate",
                state="registered",
                created_at_us=1,
            )
        )


def test_a_pinned_snapshot_is_read_after_a_vacuum(store: Store) -> None:
    first, second = _names(store)
    _version_of(store, first)
    for name in (first, second):
        delta.export_to(store, delta.at(store.root, f"published/{name}/flights"), name, now_us=1)
    shown = vacuum.plan(store, now_us=LATE_US, keep=DAY, newest=0)
    assert shown.pinned == {first: "v1-0 was trained on it"}
    assert (len(shown.files), shown.snapshots) == (2, (second,))
    assert vacuum.plan(store, now_us=10, keep=DAY, newest=0).files == ()
    vacuum.vacuum(store, shown, now_us=LATE_US, keep=DAY, newest=0)
    assert data_files.read_rows(store, first, "flights")["id"].to_list() == [0, 1, 10, 11]
    assert data_files.read_rows(store, 5, "flights").height == 8
    with pytest.raises(
        NotFoundError, match=rf"HF315.*rows of snapshot {second} were removed at 1970-04-11 00:00:00Z"
    ):
        data_files.read_rows(store, second, "flights")
    assert [path.name for path in (store.root / "published").iterdir()] == [first]
    assert len(list((store.root / "rows").iterdir())) == 3
    assert [found for found in verify(store).findings if "v1-0" not in found.subject] == []
    assert vacuum.plan(store, now_us=LATE_US, keep=DAY, newest=0).files == ()


def _line(store: Store) -> list[Lineage]:
    """Everything that came of each load, and what each snapshot was made from."""
    with store.ledger.read() as connection:
        down = [lineage.down(connection, Node.load("flights", f"d{number}", 0)) for number in range(4)]
        return down + [lineage.up(connection, Node(NodeKind.SNAPSHOT, name)) for name in _names(store)]


def test_what_was_made_from_what_is_known_after_a_vacuum(store: Store) -> None:
    """R16: the lineage and a later back-out list the same as before, of loads that are there and of one that is not."""
    first, second = _names(store)
    _version_of(store, second)
    execute_backout(store, [], BatchId("flights", "d0"), reason="wrong", actor="ann", now_us=20)
    compact(store, now_us=21)
    line = _line(store)
    assert line[0].names(NodeKind.SNAPSHOT) == (first, second)
    plans = [plan_backout(store, [], BatchId("flights", f"d{number}")) for number in (1, 2, 3)]
    shown = vacuum.plan(store, now_us=LATE_US, keep=DAY, newest=0)
    assert shown.snapshots == (first, second)
    vacuum.vacuum(store, shown, now_us=LATE_US, keep=DAY, newest=0)
    assert _line(store) == line
    assert [plan_backout(store, [], BatchId("flights", f"d{number}")) for number in (1, 2, 3)] == plans
    done = execute_backout(store, [], BatchId("flights", "d1"), reason="wrong", actor="ann", now_us=LATE_US)
    assert done.plan == plans[0]
    assert [found for found in verify(store).findings if "v1-0" not in found.subject] == []
    with store.ledger.read() as connection:
        assert set(impact.state_of(connection, [Node(NodeKind.SNAPSHOT, first)]).values()) == {"tainted"}
    again = vacuum.plan(store, now_us=2 * LATE_US, keep=DAY, newest=0)
    assert again.snapshots == ()  # they are vacuumed once
    vacuum.vacuum(store, again, now_us=2 * LATE_US, keep=DAY, newest=0)
    assert _line(store) == line


def test_a_plan_that_is_no_longer_true_is_not_executed(store: Store) -> None:
    shown = vacuum.plan(store, now_us=LATE_US, keep=DAY, newest=0)
    _version_of(store, _names(store)[0])
    with pytest.raises(ConflictError, match=r"HF304.*nothing was removed"):
        vacuum.vacuum(store, shown, now_us=LATE_US, keep=DAY, newest=0)
    assert len(list((store.root / "rows").iterdir())) == 5


_KILLED = """
import sys
from datetime import timedelta
from pathlib import Path
from holdfast.control.maintenance import compact, vacuum
from holdfast.store import Store
from holdfast.store.durability import failpoints
store = Store.open(Path(sys.argv[1]))
failpoints.armed = failpoints.kill_at(sys.argv[2])
if sys.argv[2].startswith("compact"):
    compact.compact(store, now_us=9)
else:
    shown = vacuum.plan(store, now_us=int(sys.argv[3]), keep=timedelta(days=1), newest=0)
    vacuum.vacuum(store, shown, now_us=int(sys.argv[3]), keep=timedelta(days=1), newest=0)
"""


@pytest.mark.process
@pytest.mark.crash
@pytest.mark.parametrize("point", failpoints.COMPACT_POINTS)
def test_a_kill_at_every_point_then_the_same_again(store: Store, point: str) -> None:
    _load(store, "d8", 8)
    _load(store, "d9", 9)
    with store.ledger.read() as connection:
        before = data_files.read_rows(store, batches.current_version(connection), "flights")
    killed = forking.start(_KILLED, store.root, point, LATE_US)
    killed.communicate(timeout=600)
    assert killed.returncode == -signal.SIGKILL
    compact(store, now_us=9)
    shown = vacuum.plan(store, now_us=LATE_US, keep=DAY, newest=0)
    vacuum.vacuum(store, shown, now_us=LATE_US, keep=DAY, newest=0)
    assert verify(store).findings == ()
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
        named = {fact.path for fact in data_files.entries(connection, "flights", version)}
    assert data_files.read_rows(store, version, "flights").equals(before)
    assert {f"rows/{path.name}" for path in (store.root / "rows").iterdir()} == named
