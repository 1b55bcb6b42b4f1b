"""What comes back when the ledger of a store in use is lost: compacted and backed-out rows, snapshots, versions, profiles (R3,
P3).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from holdfast.control.backout.backout import execute_backout
from holdfast.control.ingest.acceptance import accept, accept_all
from holdfast.control.ingest.feed_status import of_model
from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.compact import compact
from holdfast.control.maintenance.rebuild_ledger import rebuild
from holdfast.control.maintenance.verify import verify
from holdfast.control.training.train import train
from holdfast.errors import NotFoundError, RefusedError
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.catalog import snapshots
from holdfast.store.db import schema
from holdfast.store.files import data_files, parquet
from holdfast.store.models import versions
from holdfast.tables import Snapshot
from tests.control.training import test_snapshots as shop
from tests.support import backout_world
from tests.support.queries import read, write

KEPT = (
    "feed",
    "batch",
    "epoch",
    "profile_json",
    "rows_digest",
    "values_digest",
    "sequence_max",
    "event_time",
)


def _snapshot(store: Store, model: object, now_us: int) -> Snapshot:
    """As `holdfast train` makes it: with the day, because labels come an hour late."""
    return write(
        store,
        snapshots.create,
        store.root,
        ["visits"],
        contract_hash=model.contract.hash,  # type: ignore[attr-defined]  # a Model
        now_us=now_us,
        groups={"visits": None},
        label_delays_us={"visits": 3_600_000_000},
    )


def _lose(store: Store) -> None:
    store.ledger.close()
    for path in store.root.glob("ledger.db*"):
        path.unlink()


def _admissions(store: Store, *more: str) -> list[tuple[object, ...]]:
    table = schema.admissions
    with store.ledger.read() as connection:
        query = select(*(table.c[name] for name in (*KEPT, *more))).order_by(table.c.batch, table.c.epoch)
        return [tuple(row) for row in connection.execute(query)]


def test_snapshots_versions_and_profiles_come_back_and_training_goes_on(tmp_path: Path) -> None:
    """The snapshot of a model whose labels come late is proved with the declaration; nothing trains before a person
    accepted what is not known any more.
    """
    store, model = Store.open(tmp_path / "store"), shop.model(shop.Selection())
    for day in range(4):
        ingest(store, shop.VISITS, f"d{day}", shop.delivery(tmp_path, day), now_us=shop.NOW_US)
    snapshot = _snapshot(store, model, shop.NOW_US)
    made = train(store, model, snapshot.snapshot, now_us=shop.NOW_US)
    rows = data_files.read_rows(store, snapshot.snapshot, "visits")
    looked = _admissions(store, "group_name")
    _lose(store)
    done = rebuild(store.root, now_us=shop.NOW_US + 1, model=model)
    assert (done.snapshots, sorted(done.versions)) == (
        [snapshot.snapshot],
        sorted([made.version, made.heuristic]),
    )
    assert done.not_rebuilt == []
    back = Store.open(store.root)
    assert verify(back).findings == ()
    assert _admissions(back, "group_name") == looked
    assert data_files.read_rows(back, snapshot.snapshot, "visits").equals(rows)
    row = read(back, versions.get, made.version)
    assert (row.state, row.role) == ("registered", "candidate")
    with pytest.raises(RefusedError, match=r"HF208.*re-registered"):
        train(back, model, snapshot.snapshot, now_us=shop.NOW_US + 2, seed=1)
    ingest(back, shop.VISITS, "d4", shop.delivery(tmp_path, 4), now_us=shop.NOW_US + 3)
    newer = _snapshot(back, model, shop.NOW_US + 4)
    with pytest.raises(RefusedError, match="HF208"):
        train(back, model, newer.snapshot, now_us=shop.NOW_US + 4)
    accept(back, BatchId("visits", "d0"), reason="looked at", actor="ann", now_us=shop.NOW_US + 5)
    with pytest.raises(RefusedError, match=r"HF208.*3 suspect batches") as refused:
        train(back, model, newer.snapshot, now_us=shop.NOW_US + 5)
    assert refused.value.next_command == "holdfast accept visits --all --reason WHY"
    done_all = accept_all(back, "visits", reason="looked at", actor="ann", now_us=shop.NOW_US + 5)
    assert (done_all.loads, done_all.suspect) == (3, ())
    assert train(back, model, newer.snapshot, now_us=shop.NOW_US + 6).rows_trained > made.rows_trained
    assert train(back, model, snapshot.snapshot, now_us=shop.NOW_US + 7).version == made.version


def test_taking_one_load_out_reports_nothing_of_the_others(tmp_path: Path) -> None:
    """Each load that was re-registered is suspect until a person accepts it, whatever is backed out."""
    store, model = Store.open(tmp_path / "store"), shop.model(shop.Selection())
    for day in range(4):
        ingest(store, shop.VISITS, f"d{day}", shop.delivery(tmp_path, day), now_us=shop.NOW_US)
    _lose(store)
    rebuild(store.root, now_us=shop.NOW_US + 1, model=model)
    back = Store.open(store.root)
    (before,) = of_model(back, [shop.VISITS], now_us=shop.NOW_US + 2)
    assert (before.state, before.reregistered) == ("suspect", ("d0", "d1", "d2", "d3"))
    batch = BatchId("visits", "d0")
    execute_backout(back, [shop.VISITS], batch, reason="wrong", actor="ann", now_us=shop.NOW_US + 2)
    (after,) = of_model(back, [shop.VISITS], now_us=shop.NOW_US + 3)
    assert (after.state, after.reregistered) == ("suspect", ("d1", "d2", "d3"))
    snapshot = _snapshot(back, model, shop.NOW_US + 3)
    with pytest.raises(RefusedError, match=r"HF208.*3 suspect"):
        train(back, model, snapshot.snapshot, now_us=shop.NOW_US + 3)
    accept_all(back, "visits", reason="looked at", actor="ann", now_us=shop.NOW_US + 4)
    assert of_model(back, [shop.VISITS], now_us=shop.NOW_US + 5)[0].state == "flowing"
    train(back, model, snapshot.snapshot, now_us=shop.NOW_US + 6)


def test_clean_and_tainted_versions_come_back_as_what_they_were(tmp_path: Path) -> None:
    """Trained before a bad batch, on it, and after it was backed out: the one in the middle stays tainted (R16)."""
    store, model = Store.open(tmp_path / "store"), shop.model(shop.Selection())
    made = {}
    for name, days in (("before", range(4)), ("on", range(4, 5)), ("after", range(5, 6))):
        for day in days:
            ingest(store, shop.VISITS, f"d{day}", shop.delivery(tmp_path, day), now_us=shop.NOW_US)
        if name == "after":
            batch = BatchId("visits", "d4")
            execute_backout(store, [shop.VISITS], batch, reason="wrong", actor="ann", now_us=shop.NOW_US)
        made[name] = train(store, model, _snapshot(store, model, shop.NOW_US).snapshot, now_us=shop.NOW_US)
    rows = {name: data_files.read_rows(store, each.snapshot, "visits") for name, each in made.items()}
    _lose(store)
    done = rebuild(store.root, now_us=shop.NOW_US + 1, model=model)
    assert (done.not_rebuilt, done.backed_out) == ([], 1)
    assert set(done.snapshots) == {each.snapshot for each in made.values()}
    back = Store.open(store.root)
    assert verify(back).findings == ()
    for name, each in made.items():
        assert data_files.read_rows(back, each.snapshot, "visits").equals(rows[name])
    with back.ledger.read() as connection:
        bad = {name for name in done.snapshots if taints.tainted(connection, "snapshot", name)}
        dirty = taints.versions_of(connection, model.name)
    assert bad == {made["on"].snapshot}
    digests = {made["on"].version[-8:], made["on"].heuristic[-8:]}
    assert {version[-8:] for version in dirty} == digests
    with pytest.raises(RefusedError, match=r"HF406.*visits/d4, which was backed out: wrong"):
        train(back, model, made["on"].snapshot, now_us=shop.NOW_US + 2)


def test_snapshots_come_back_without_the_declaration(tmp_path: Path) -> None:
    """A snapshot of several feeds that excludes a load of a group, and one with labels that come late."""
    world = backout_world
    store = Store.open(tmp_path / "store")
    made = []
    for hour in range(3):
        for feed in world.FEEDS:
            world.load(store, tmp_path, feed, hour)
        made.append(_of_all(store))
    world.load(store, tmp_path, world.FEEDS[0], 3)
    made.append(_of_all(store))
    rows = {
        (each.snapshot, table.table): _rows(store, each, table.table)
        for each in made
        for table in each.tables
    }
    _lose(store)
    done = rebuild(store.root, now_us=world.NOW_US)
    assert done.not_rebuilt == []
    assert set(done.snapshots) == {each.snapshot for each in made}
    back = Store.open(store.root)
    assert verify(back).findings == ()
    for each in made:
        assert read(back, snapshots.get, each.snapshot) == each
        for table in each.tables:
            assert _rows(back, each, table.table) == rows[each.snapshot, table.table]


def _of_all(store: Store) -> Snapshot:
    world = backout_world
    groups = {feed.name: feed.membership for feed in world.FEEDS}
    tables = [feed.name for feed in world.FEEDS]
    return write(
        store,
        snapshots.create,
        store.root,
        tables,
        contract_hash="c" * 64,
        now_us=world.NOW_US,
        groups=groups,
    )


def _rows(store: Store, snapshot: Snapshot, table: str) -> list[tuple[object, ...]]:
    return sorted(data_files.read_rows(store, snapshot.snapshot, table).rows(), key=repr)


def test_a_snapshot_whose_rows_are_gone_stays_known_with_its_version(tmp_path: Path) -> None:
    store, model = Store.open(tmp_path / "store"), shop.model(shop.Selection())
    for day in range(4):
        ingest(store, shop.VISITS, f"d{day}", shop.delivery(tmp_path, day), now_us=shop.NOW_US)
    made = train(store, model, _snapshot(store, model, shop.NOW_US).snapshot, now_us=shop.NOW_US)
    with store.ledger.read() as connection:
        (lost, *_) = data_files.snapshot_entries(connection, made.snapshot, "visits")
    (store.root / lost.path).unlink()
    _lose(store)
    done = rebuild(store.root, now_us=shop.NOW_US + 1)
    assert (done.snapshots, sorted(done.versions)) == (
        [made.snapshot],
        sorted([made.version, made.heuristic]),
    )
    assert any(f"snapshot {made.snapshot}" in each and "rows are left" in each for each in done.not_rebuilt)
    back = Store.open(store.root)
    assert verify(back).findings == ()
    with pytest.raises(NotFoundError, match="HF315"):
        data_files.read_rows(back, made.snapshot, "visits")


def test_a_version_whose_snapshot_has_no_manifest_is_named_and_moved_aside(tmp_path: Path) -> None:
    store, model = Store.open(tmp_path / "store"), shop.model(shop.Selection())
    for day in range(4):
        ingest(store, shop.VISITS, f"d{day}", shop.delivery(tmp_path, day), now_us=shop.NOW_US)
    made = train(store, model, _snapshot(store, model, shop.NOW_US).snapshot, now_us=shop.NOW_US)
    path = snapshots.manifest_path(store.root, made.snapshot)
    path.write_bytes(path.read_bytes().replace(b'"epoch', b'"epocs').replace(b"visits", b"visitz"))
    _lose(store)
    done = rebuild(store.root, now_us=shop.NOW_US + 1)
    assert (done.snapshots, done.versions) == ([], [])
    assert sum("its snapshot has no manifest" in each for each in done.not_rebuilt) == 2
    assert any(f"manifest {path.name} is damaged" in each for each in done.not_rebuilt)
    assert verify(Store.open(store.root)).findings == ()


def test_compacted_and_backed_out_rows_come_back_as_they_were(tmp_path: Path) -> None:
    """Loads in compacted files, one of them backed out afterwards and loaded again, then compacted with another."""
    world = backout_world
    store = Store.open(tmp_path / "store")
    for hour in range(4):
        world.load(store, tmp_path, world.ALONE, hour)
    assert sum(each.rows_rewritten for each in compact(store, ["alone"], now_us=5)) == 4 * world.ROWS
    world.take_out(store, world.ALONE, 1)
    world.load(store, tmp_path, world.ALONE, 1, variant=1)
    world.load(store, tmp_path, world.ALONE, 4)
    assert any(each.rows_rewritten for each in compact(store, ["alone"], now_us=6))
    world.take_out(store, world.ALONE, 2)
    rows, looked = world.readable(store), _admissions(store)
    _lose(store)
    done = rebuild(store.root, now_us=world.NOW_US)
    assert (done.batches, done.backed_out, done.not_rebuilt) == (4, 2, [])
    back = Store.open(store.root)
    assert world.readable(back) == rows
    assert verify(back).findings == ()
    live = {("h0", 0), ("h1", 1), ("h3", 0), ("h4", 0)}
    assert _admissions(back) == [row for row in looked if row[1:3] in live]
    assert world.load(back, tmp_path, world.ALONE, 2, variant=1).epoch == 1
    assert world.load(back, tmp_path, world.ALONE, 3).state == "already_loaded"
    assert verify(back).findings == ()


def test_the_newest_compaction_is_taken_where_an_older_one_is_still_there(tmp_path: Path) -> None:
    """Two compacted files overlap, and the single files of the newest load are gone: no acknowledged row may be lost."""
    world = backout_world
    store = Store.open(tmp_path / "store")
    for hour in range(3):
        world.load(store, tmp_path, world.ALONE, hour)
    compact(store, ["alone"], now_us=5)
    world.take_out(store, world.ALONE, 1)
    world.load(store, tmp_path, world.ALONE, 3)
    world.load(store, tmp_path, world.ALONE, 4)
    assert any(each.rows_rewritten for each in compact(store, ["alone"], now_us=6))
    with store.ledger.read() as connection:
        named = schema.files
        query = select(named.c.path).where(
            named.c.removed_version.is_not(None), named.c.table_name == "alone"
        )
        replaced = set(connection.execute(query).scalars())
    rows = world.readable(store)
    _lose(store)
    for path in replaced:  # a vacuum that was killed had removed all of them but the older compacted file
        if "parts" not in parquet.manifest(store.root / path):
            (store.root / path).unlink()
    done = rebuild(store.root, now_us=world.NOW_US)
    assert done.not_rebuilt == []
    back = Store.open(store.root)
    assert world.readable(back) == rows
    assert verify(back).findings == ()
