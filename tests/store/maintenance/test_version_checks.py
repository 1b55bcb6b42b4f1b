"""A number in the catalog that decides which rows are read cannot change without being found (P3)."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from holdfast.control.maintenance import vacuum
from holdfast.control.maintenance.compact import compact
from holdfast.control.maintenance.verify import verify
from holdfast.errors import HoldfastError
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from tests.support import backout_world as world
from tests.support.queries import write

pytestmark = pytest.mark.sqlite
# What decides which rows a reader gets, at any version and in any snapshot, and how many it expects.
DECIDING = {
    "batches": (
        "batch",
        "epoch",
        "digest",
        "contract_hash",
        "state",
        "rows_received",
        "rows_loaded",
        "rows_quarantined",
        "event_time_min_us",
        "event_time_max_us",
        "table_version",
    ),
    "files": (
        "path",
        "table_name",
        "rows",
        "bytes",
        "sha256",
        "event_time_min_us",
        "event_time_max_us",
        "added_version",
        "removed_version",
    ),
    "file_row_groups": ("path", "row_group", "batch", "epoch", "rows", "removed_version"),
    "snapshots": ("snapshot", "table_version"),
    "snapshot_tables": ("table_name", "rows", "files"),
    "contracts": ("contract_hash", "contract_json"),
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loads, a compaction, a back-out, a reload and snapshots before and after."""
    home = tmp_path_factory.mktemp("timeline")
    store = Store.open(home / "store")
    for hour in range(4):
        world.load(store, home, world.ALONE, hour)
        if hour == 1:
            write(store, snapshots.create, store.root, ["alone"], contract_hash="c", now_us=1)
    compact(store, ["alone"], now_us=2)
    world.take_out(store, world.ALONE, 2)
    world.load(store, home, world.ALONE, 2, variant=1)
    write(store, snapshots.create, store.root, ["alone"], contract_hash="c", now_us=3)
    assert verify(store).findings == ()
    store.ledger.close()
    return home / "store"


@pytest.mark.parametrize(("table", "column"), [(t, c) for t, columns in DECIDING.items() for c in columns])
def test_a_changed_number_is_found(pristine: Path, tmp_path: Path, table: str, column: str) -> None:
    """The lowest bit of it, in every row in turn; foreign keys and checks are off, as they are for a flipped bit."""
    root = Path(shutil.copytree(pristine, tmp_path / "store"))
    with sqlite3.connect(root / "ledger.db") as raw:
        rows = raw.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
    raw.close()
    kept = (root / "ledger.db").read_bytes()
    for place, value in rows:
        if value is None:
            continue
        (root / "ledger.db").write_bytes(kept)
        for suffix in ("-wal", "-shm"):
            (root / f"ledger.db{suffix}").unlink(missing_ok=True)
        flipped = value ^ 1 if isinstance(value, int) else chr(ord(value[0]) ^ 1) + value[1:]
        if (
            table == "files"
            and column.startswith("event_")
            and (flipped > value) == (column == "event_time_max_us")
        ):
            continue  # wider bounds of a compacted file cost a reader a look, and no row
        raw = sqlite3.connect(root / "ledger.db")
        raw.execute("PRAGMA ignore_check_constraints = ON")
        try:
            raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (flipped, place))
            raw.commit()
        except sqlite3.IntegrityError:  # an index contradicts it, and `verify` looks at these
            continue
        finally:
            raw.close()
        assert _is_found(root), (table, column, place, value, flipped)


def _is_found(root: Path) -> bool:
    try:
        store = Store.open(root)
        try:
            return bool(verify(store, quick=False).findings)
        finally:
            store.ledger.close()
    except HoldfastError:
        return True


def test_after_a_vacuum_nothing_is_wrong(pristine: Path, tmp_path: Path) -> None:
    store = Store.open(Path(shutil.copytree(pristine, tmp_path / "store")))
    span = vacuum.KEEP / 1_000_000_000
    later = 1_800_000_000_000_000
    shown = vacuum.plan(store, now_us=later, keep=span, newest=0)
    assert shown.files
    vacuum.vacuum(store, shown, now_us=later, keep=span, newest=0)
    assert verify(store).findings == ()
