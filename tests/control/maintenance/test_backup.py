"""A backup shows the store as it was at one time, while loaders go on, and comes back byte for byte (P18)."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.backup import backup, restore
from holdfast.control.maintenance.verify import verify
from holdfast.errors import InputError, IntegrityError
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.files import data_files
from holdfast.store.maintenance import backup as backups
from tests.support import forking, loader

Delivery = Callable[[int], Path]


def _digest(store: Store) -> str:
    with store.ledger.read() as connection:
        return backups.ledger_digest(connection)


@pytest.fixture
def store(tmp_path: Path, delivery: Delivery) -> Store:
    store = Store.open(tmp_path / "store")
    for day in range(3):
        ingest(store, loader.FEED, f"day-{day}", delivery(day), now_us=1, aggregates=[loader.AGGREGATE])
    return store


def _tree(root: Path) -> dict[str, bytes]:
    """Every file of rows, blobs, contracts and tombstones by its path."""
    kept = ("rows", "blobs", "contracts", "tombstones")
    return {
        str(path.relative_to(root)): path.read_bytes()
        for name in kept
        for path in (root / name).rglob("*")
        if path.is_file()
    }


def test_what_comes_back_is_what_was_there(store: Store, tmp_path: Path, delivery: Delivery) -> None:
    before, digest = _tree(store.root), _digest(store)
    first = backup(store, tmp_path / "kept", now_us=10)
    ingest(store, loader.FEED, "day-3", delivery(3), now_us=2)
    second = backup(store, tmp_path / "kept", now_us=20)
    assert first.copied_files == first.files == 7  # 3 of rows, 3 of quarantine, 1 contract
    assert (second.files, second.copied_files) == (9, 2)
    restored = restore(tmp_path / "kept", tmp_path / "back", name=first.name)
    assert (restored.rows, restored.table_version) == (900, first.table_version)
    back = Store.open(tmp_path / "back")
    assert _tree(back.root) == before
    assert _digest(back) == digest
    assert verify(back).findings == ()
    assert ingest(back, loader.FEED, "day-3", delivery(3), now_us=3).state == "loaded"
    assert ingest(back, loader.FEED, "day-2", delivery(2), now_us=3).state == "already_loaded"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_backup_next_to_two_loaders_is_of_one_time(
    seed: int, tmp_path: Path, delivery: Delivery, start_loader: Callable[..., forking.Process]
) -> None:
    """Backups are taken while two processes load: each restores to whole batches, and to those acknowledged before it."""
    days, root = 8, tmp_path / "store"
    paths = [delivery(day) for day in range(days)]
    random.Random(seed).shuffle(paths)
    store = Store.open(root)
    running = [start_loader(root, "-", *paths), start_loader(root, "-", *reversed(paths))]
    taken = []
    while any(process.poll() is None for process in running):
        with store.ledger.read() as connection:
            acknowledged = batches.current_version(connection)
        taken.append((acknowledged, backup(store, tmp_path / "kept", now_us=len(taken))))
    for process in running:
        process.communicate()
    assert len(taken) > 1
    chance = random.Random(seed)
    for acknowledged, each in chance.sample(taken, min(3, len(taken))) + taken[-1:]:
        target = tmp_path / f"back-{each.name}"
        if target.exists():
            continue
        restored = restore(tmp_path / "kept", target, name=each.name)
        assert restored.table_version >= acknowledged
        back = Store.open(target)
        rows = data_files.read_rows(back, restored.table_version, "flights")
        assert rows.height == 299 * restored.table_version
        if rows.height:
            assert rows["id"].is_unique().all()


@pytest.mark.parametrize("damage", ["empty", "half", "bit", "missing", "swapped"])
@pytest.mark.parametrize("kind", ["manifest", "object", "ledger"])
def test_a_damaged_backup_is_never_restored(store: Store, tmp_path: Path, damage: str, kind: str) -> None:
    kept = tmp_path / "kept"
    backup(store, kept, now_us=10)
    name = backup(store, kept, now_us=20).name
    found = backups.read(kept, name)
    match kind:
        case "manifest":
            target, other = (kept / "backups" / f"{each}.json" for each in reversed(backups.names(kept)))
        case "object":
            target, other = (backups.object_path(kept, entry.sha256) for entry in found.files[:2])
        case _:
            target = backups.object_path(kept, found.ledger)
            other = backups.object_path(kept, found.files[0].sha256)
    _damage(target, other, damage)
    with pytest.raises((IntegrityError, InputError)) as raised:
        restore(kept, tmp_path / "back", name=name)
    assert raised.value.code in ("HF301", "HF306")
    assert not (tmp_path / "back").exists()


def _damage(target: Path, other: Path, damage: str) -> None:
    data = target.read_bytes()
    match damage:
        case "empty":
            target.write_bytes(b"")
        case "half":
            target.write_bytes(data[: len(data) // 2])
        case "bit":
            middle = len(data) // 2
            target.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        case "missing":
            target.unlink()
        case _:
            target.write_bytes(other.read_bytes())


def test_a_backup_goes_where_nothing_is(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="HF306"):
        backup(store, store.root / "kept", now_us=1)
    backup(store, tmp_path / "kept", now_us=1)
    with pytest.raises(InputError, match="is not empty"):
        restore(tmp_path / "kept", store.root)
    with pytest.raises(InputError, match="has no backup"):
        restore(tmp_path / "kept", tmp_path / "back", name="2")


def test_no_backup_hides_a_damaged_file(store: Store, tmp_path: Path) -> None:
    victim = sorted((store.root / "rows").iterdir())[0]
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="HF301"):
        backup(store, tmp_path / "kept", now_us=1)
    assert backups.names(tmp_path / "kept") == []
