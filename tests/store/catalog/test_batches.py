"""Rows of loads: what a delivery is to those that are there, and what servers follow."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from holdfast.errors import ConflictError
from holdfast.feeds import AlreadyLoaded, Manifest, Publish
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches, online_features
from holdfast.store.catalog.online_features import OnlineValue
from holdfast.store.files import staging
from tests.support.loads import insert_load

pytestmark = pytest.mark.usefixtures("each_ledger")

FRAME = pl.DataFrame({"id": [1, 2]})
BATCH = BatchId("flights", "d1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def _load(store: Store, batch: BatchId, digest: str, *online: OnlineValue) -> int:
    manifest = Manifest.of(batch, 0, digest, "cc")
    with staging.staged(store.root) as stage:
        facts = stage.write(batch.feed, FRAME, manifest.as_dict())
        stage.sync()
        return insert_load(store, manifest, [facts], low_us=1, high_us=2, online=online)


def test_a_delivery_is_new_or_loaded_or_a_contradiction(store: Store) -> None:
    assert _load(store, BATCH, "aa") == 1
    other = BatchId("flights", "d2")
    with store.ledger.read() as connection:
        known = batches.decide_load(connection, BATCH, "aa")
        assert isinstance(known, AlreadyLoaded)
        assert known.load.table_version == 1
        with pytest.raises(ConflictError, match="HF203"):
            batches.decide_load(connection, BATCH, "bb")
        with pytest.raises(ConflictError, match=r"HF203.*as batch flights/d1"):
            batches.decide_load(connection, other, "aa")
        assert batches.decide_load(connection, other, "bb") == Publish(0)
        assert batches.decide_load(connection, BatchId("weather", "d2"), "aa") == Publish(0)
        assert [load.digest for load in batches.loads(connection, BATCH)] == ["aa"]


def test_a_feed_has_changed_by_its_own_loads_alone(store: Store) -> None:
    _load(store, BATCH, "aa")
    _load(store, BatchId("weather", "d2"), "bb")
    with store.ledger.read() as connection:
        assert batches.has_feed_changed(connection, "flights", 0)
        assert not batches.has_feed_changed(connection, "flights", 1)
        assert batches.has_feed_changed(connection, "weather", 1)


def test_a_server_follows_by_table_version(store: Store) -> None:
    _load(store, BATCH, "aa", OnlineValue("a", "EWR", 10, 1.0), OnlineValue("a", "EWR", 20, 2.0))
    second = OnlineValue("a", "EWR", 20, 3.0), OnlineValue("b", "X", 5, 9.0)
    _load(store, BatchId("flights", "d2"), "bb", *second)
    with store.ledger.read() as connection:
        assert online_features.since(connection, ["a"], 0) == (
            2,
            [OnlineValue("a", "EWR", 10, 1.0), OnlineValue("a", "EWR", 20, 3.0)],
        )
        assert online_features.since(connection, ["a", "b"], 1) == (
            2,
            [OnlineValue("b", "X", 5, 9.0), OnlineValue("a", "EWR", 20, 3.0)],
        )
        assert online_features.since(connection, ["a"], 2) == (2, [])
