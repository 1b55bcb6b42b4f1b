"""What comes back when the ledger of a store in use is lost: compacted and backed-out rows, snapshots, versions, profiles (R3,
P3).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import select

from holdfast.control.accept import accept
from holdfast.control.compact import compact
from holdfast.control.ingest import ingest
from holdfast.control.recover import recover
from holdfast.control.train import train
from holdfast.control.verify import verify
from holdfast.errors import RefusedError
from holdfast.records import BatchId
from holdfast.store import Store, files, parquet, schema, snapshots, versions
from holdfast.tables import Snapshot

KEPT = ("feed", "batch", "epoch", "profile", "rows_digest", "values_digest", "sequence_high")


def _module(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shop() -> ModuleType:
    return _module("test_snapshots")


def _cut(store: Store, model: object, now_us: int) -> Snapshot:
    """As `holdfast train` cuts it: with the day, because labels come an hour late."""
    return snapshots.create(
        store,
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


def _admissions(store: Store) -> list[tuple[object, ...]]:
    table = schema.admissions
    with store.ledger.read() as connection:
        query = select(*(table.c[name] for name in KEPT)).order_by(table.c.batch, table.c.epoch)
        return [tuple(row) for row in connection.execute(query)]


def test_snapshots_versions_and_profiles_come_back_and_training_goes_on(
    shop: ModuleType, tmp_path: Path
) -> None:
    """The snapshot of a model whose labels come late is proved with the declaration; nothing trains before a person
    accepted what is not known any more.
    """
    store, model = Store.open(tmp_path / "store"), shop.model(shop.Selection())
    for day in range(4):
        ingest(store, shop.VISITS, f"d{day}", shop.delivery(tmp_path, day), now_us=shop.NOW_US)
    cut = _cut(store, model, shop.NOW_US)
    made = train(store, model, cut.snapshot, now_us=shop.NOW_US)
    rows = files.read_rows(store, cut.snapshot, "visits")
    looked = _admissions(store)
    _lose(store)
    done = recover(store.root, now_us=shop.NOW_US + 1, model=model)
    assert (done.snapshots, sorted(done.versions)) == ([cut.snapshot], sorted([made.version, made.heuristic]))
    assert done.unproved == []
    back = Store.open(store.root)
    assert verify(back).findings == ()
    assert _admissions(back) == looked
    assert files.read_rows(back, cut.snapshot, "visits").equals(rows)
    row = versions.get(back, made.version)
    assert (row.state, row.role) == ("registered", "candidate")
    with pytest.raises(RefusedError, match=r"HF208.*made known again"):
        train(back, model, cut.snapshot, now_us=shop.NOW_US + 2, seed=1)
    ingest(back, shop.VISITS, "d4", shop.delivery(tmp_path, 4), now_us=shop.NOW_US + 3)
    newer = _cut(back, model, shop.NOW_US + 4)
    with pytest.raises(RefusedError, match="HF208"):
        train(back, model, newer.snapshot, now_us=shop.NOW_US + 4)
    accept(back, BatchId("visits", "d0"), reason="looked at", actor="ann", now_us=shop.NOW_US + 5)
    assert train(back, model, newer.snapshot, now_us=shop.NOW_US + 6).rows_trained > made.rows_trained
    assert train(back, model, cut.snapshot, now_us=shop.NOW_US + 7).version == made.version


def test_compacted_and_backed_out_rows_come_back_as_they_were(
    backout_world: ModuleType, tmp_path: Path
) -> None:
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
    done = recover(store.root, now_us=world.NOW_US)
    assert (done.batches, done.backed_out, done.unproved) == (4, 2, [])
    back = Store.open(store.root)
    assert world.readable(back) == rows
    assert verify(back).findings == ()
    live = {("h0", 0), ("h1", 1), ("h3", 0), ("h4", 0)}
    assert _admissions(back) == [row for row in looked if row[1:3] in live]
    assert world.load(back, tmp_path, world.ALONE, 2, variant=1).epoch == 1
    assert world.load(back, tmp_path, world.ALONE, 3).state == "already_loaded"
    assert verify(back).findings == ()


def test_the_newest_compaction_is_taken_where_an_older_one_is_still_there(
    backout_world: ModuleType, tmp_path: Path
) -> None:
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
    done = recover(store.root, now_us=world.NOW_US)
    assert done.unproved == []
    back = Store.open(store.root)
    assert world.readable(back) == rows
    assert verify(back).findings == ()
