"""Attempts: living work is reported from what a dead loader left, and only what is whole is published."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from holdfast.errors import IntegrityError
from holdfast.feeds import Manifest
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.files import data_files, staging
from holdfast.store.files.data_files import FileFacts
from holdfast.store.maintenance import orphans
from tests.support.loads import insert_load

FRAME = pl.DataFrame({"id": [1, 2, 3]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def _staged(stage: staging.Stage, batch: str = "d1") -> tuple[Manifest, FileFacts]:
    manifest = Manifest.of(BatchId("flights", batch), 0, "aa", "cc", ("id",))
    facts = stage.write("flights", FRAME, manifest.as_dict())
    stage.sync()
    return manifest, facts


def test_a_sweep_leaves_living_work_alone_and_removes_the_dead(store: Store) -> None:
    rows = store.root / data_files.ROWS_DIRECTORY
    with staging.staged(store.root) as stage:
        manifest, facts = _staged(stage)
        assert orphans.sweep(store) == []
        insert_load(store, manifest, [facts], low_us=1, high_us=2)
    with staging.staged(store.root) as stage:
        left = _staged(stage, "d2")[1].path  # ends without being published
    assert staging.sweep_dead_attempts(store) == []  # its marker went with it: only the full sweep sees it
    assert orphans.sweep(store) == [left]
    assert [f"rows/{path.name}" for path in rows.iterdir()] == [facts.path]


def test_a_marker_without_a_process_is_a_dead_attempt(store: Store) -> None:
    with staging.staged(store.root) as stage:
        left = _staged(stage)[1].path
        marker = store.root / staging.ATTEMPTS_DIRECTORY / stage.attempt
    marker.touch()  # as kill -9 leaves it: there, and locked by no process
    assert staging.sweep_dead_attempts(store) == [left]
    assert not marker.exists()


def test_a_file_that_was_swept_is_not_there(store: Store) -> None:
    with staging.staged(store.root) as stage:
        _, facts = _staged(stage)
        assert staging.all_exist(store.root, [facts])
        (store.root / facts.path).unlink()
        assert not staging.all_exist(store.root, [facts])
        (store.root / facts.path).write_bytes(b"short")
        with pytest.raises(IntegrityError, match="HF301"):
            staging.all_exist(store.root, [facts])
