"""Attempts: living work is told from what a dead loader left, and only what is whole is published."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from holdfast.errors import IntegrityError
from holdfast.feeds import Manifest
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.catalog.batches import Publication, Published, Swept
from holdfast.store.files import data_files, staging
from holdfast.store.maintenance import orphans

FRAME = pl.DataFrame({"id": [1, 2, 3]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def _publication(stage: staging.Stage, batch: str = "d1") -> Publication:
    manifest = Manifest.of(BatchId("flights", batch), 0, "aa", "cc", ("id",))
    facts = stage.write("flights", FRAME, manifest.as_dict())
    stage.seal()
    return Publication(manifest, (facts,), FRAME.height, 0, 1, 2, "d1.csv", "loaded")


def test_a_sweep_leaves_living_work_alone_and_removes_the_dead(store: Store) -> None:
    rows = store.root / data_files.ROWS_DIRECTORY
    with staging.staged(store.root) as stage:
        publication = _publication(stage)
        assert orphans.sweep(store) == []
        assert batches.publish(store, publication, now_us=5) == Published(1)
    with staging.staged(store.root) as stage:
        left = _publication(stage, "d2").files[0].path  # ends without being published
    assert orphans.sweep_dead_attempts(store) == []  # its marker went with it: only the full sweep sees it
    assert orphans.sweep(store) == [left]
    assert [f"rows/{path.name}" for path in rows.iterdir()] == [publication.files[0].path]


def test_a_marker_without_a_process_is_a_dead_attempt(store: Store) -> None:
    with staging.staged(store.root) as stage:
        left = _publication(stage).files[0].path
        marker = store.root / staging.ATTEMPTS_DIRECTORY / stage.attempt
    marker.touch()  # as kill -9 leaves it: there, and locked by nobody
    assert orphans.sweep_dead_attempts(store) == [left]
    assert not marker.exists()


def test_a_file_that_was_swept_cannot_be_published(store: Store) -> None:
    with staging.staged(store.root) as stage:
        publication = _publication(stage)
        (store.root / publication.files[0].path).unlink()
        assert batches.publish(store, publication, now_us=5) == Swept()
        (store.root / publication.files[0].path).write_bytes(b"short")
        with pytest.raises(IntegrityError, match="HF301"):
            batches.publish(store, publication, now_us=5)
    with store.ledger.read() as connection:
        assert batches.loads(connection, BatchId("flights", "d1")) == []
