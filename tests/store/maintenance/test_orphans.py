"""A sweep removes what dead processes left, of every kind, and nothing that a living one still works on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.store import Store
from holdfast.store.catalog.delta import PUBLISHED_DIRECTORY
from holdfast.store.durability import file_locks, fsync
from holdfast.store.files import blobs, data_files, staging
from holdfast.store.maintenance import orphans


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process holds the lock of `path`, as its living maker would."""
    hold = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


def _draft(store: Store) -> Path:
    draft = store.root / PUBLISHED_DIRECTORY / "s1-0" / "0123.draft"
    draft.mkdir(parents=True)
    (draft / "rows.parquet").write_bytes(b"x")
    return draft


def test_the_lock_is_held_until_the_files_are_gone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking, letting go and removing later would give a new holder of the marker time to begin in between."""
    marker = store.root / staging.ATTEMPTS_DIRECTORY / "0123"
    left = store.root / data_files.ROWS_DIRECTORY / "0123-00000.parquet"
    for path in (marker, left):
        path.parent.mkdir()
        path.touch()
    unlink, seen = Path.unlink, []

    def observed(path: Path, missing_ok: bool = False) -> None:
        with file_locks.seized(marker) as free:
            seen.append((path.name, free))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", observed)
    assert staging.sweep_dead_attempts(store) == ["rows/0123-00000.parquet"]
    assert seen == [("0123-00000.parquet", False), ("0123", False)]


def test_a_marker_that_is_held_keeps_its_files(store: Store) -> None:
    with staging.staged(store.root) as stage:
        left = store.root / data_files.ROWS_DIRECTORY / f"{stage.attempt}-00000.parquet"
        left.touch()
        assert orphans.sweep(store) == []
    assert orphans.sweep(store) == [f"rows/{left.name}"]


@pytest.mark.process
def test_drafts_of_tables_are_swept_when_no_process_holds_them(store: Store) -> None:
    draft = _draft(store)
    with held(draft):
        assert orphans.sweep(store) == []
    assert orphans.sweep(store) == ["published/s1-0/0123.draft"]
    assert not draft.exists()


@pytest.mark.process
def test_blobs_of_no_version_are_swept_when_no_process_writes_any(store: Store) -> None:
    digest = blobs.put(store.root, b"model")
    path = blobs.path_of(store.root, digest)
    unfinished = path.with_name(f"0123{fsync.UNFINISHED}")
    unfinished.write_bytes(b"mod")
    with blobs.registering(store.root):
        assert orphans.sweep(store) == []
        with blobs.registering(store.root), blobs.without_writers(store.root) as alone:
            assert not alone
    with held(store.root / blobs.BLOBS_DIRECTORY):
        assert orphans.sweep(store) == []
    assert sorted(orphans.sweep(store)) == sorted(
        str(each.relative_to(store.root)) for each in (path, unfinished)
    )
    assert os.listdir(path.parent) == []
