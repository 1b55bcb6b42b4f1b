"""One transaction publishes a load; when its answer is lost, the ledger is asked what is true (R3, D3)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from holdfast.errors import ConflictError, IntegrityError, UnavailableError
from holdfast.feeds import AlreadyLoaded, Manifest
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches, online_features
from holdfast.store.catalog.batches import Overtaken, Publication, Published
from holdfast.store.catalog.online_features import Definition, OnlineValue
from holdfast.store.db import events
from holdfast.store.durability import failpoints
from holdfast.store.files import staging

pytestmark = pytest.mark.usefixtures("each_ledger")

FRAME = pl.DataFrame({"id": [1, 2]})
BATCH = BatchId("flights", "d1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm(None)


def _publish(store: Store, batch: BatchId = BATCH, digest: str = "", **more: object) -> batches.Outcome:
    digest = digest or ("aa" if batch == BATCH else f"{batch}")
    manifest = Manifest.of(batch, 0, digest, "cc")
    with staging.staged(store.root) as stage:
        facts = (stage.write(batch.feed, FRAME, manifest.as_dict()),)
        stage.seal()
        publication = Publication(manifest, facts, 2, 0, 1, 2, "d1.csv", "2 rows loaded", **more)  # type: ignore[arg-type] # the test's own shorthand
        return batches.publish(store, publication, now_us=5)


def _lose(point: str, store: Store, *, for_good: bool = False) -> None:
    """Make the network fail at `point`; `for_good` takes the ledger away as well."""

    def hook(name: str) -> None:
        if name == point:
            failpoints.arm(None)
            if for_good:
                store.ledger.close()
                (store.root / "ledger.db").rename(store.root / "gone.db")
                (store.root / "ledger.db").mkdir()
            raise ConnectionResetError("the answer was lost")

    failpoints.arm(hook)


def test_an_answer_that_was_lost_after_the_commit_is_found_out(store: Store) -> None:
    _lose("publish.after_commit", store)
    assert _publish(store) == Published(1)
    assert isinstance(_publish(store), AlreadyLoaded)


def test_a_failure_before_the_commit_left_nothing(store: Store) -> None:
    _lose("publish.before_commit", store)
    with pytest.raises(UnavailableError, match=r"HF302.*nothing was loaded"):
        _publish(store)
    with store.ledger.read() as connection:
        assert batches.loads(connection, BATCH) == []
        assert events.newest(connection) == []
        assert batches.current_version(connection) == 0
    assert isinstance(_publish(store), Published)  # PostgreSQL gives no number twice, even if nobody saw it


@pytest.mark.sqlite
def test_an_answer_that_cannot_be_found_out_is_unknown(store: Store) -> None:
    _lose("publish.after_commit", store, for_good=True)
    with pytest.raises(UnavailableError, match=r"HF205.*completely or not at all.*same command again"):
        _publish(store)
    (store.root / "ledger.db").rmdir()
    (store.root / "gone.db").rename(store.root / "ledger.db")
    assert isinstance(_publish(Store.open(store.root)), AlreadyLoaded)


def test_the_same_id_with_other_content_is_refused(store: Store) -> None:
    _publish(store)
    with pytest.raises(ConflictError, match="HF203"):
        _publish(store, digest="bb")
    with pytest.raises(ConflictError, match=r"HF203.*as batch flights/d1"):
        _publish(store, BatchId("flights", "d2"), digest="aa")
    assert _publish(store, BatchId("weather", "d2"), digest="aa") == Published(2)
    with store.ledger.read() as connection:
        assert [load.digest for load in batches.loads(connection, BATCH)] == ["aa"]


def test_what_was_computed_from_older_rows_is_not_published(store: Store) -> None:
    value = (OnlineValue("delay_3h", "EWR", 7, 1.5),)
    assert _publish(store, online=value, basis=0) == Published(1)
    assert _publish(store, BatchId("flights", "d2"), online=value, basis=0) == Overtaken()
    assert _publish(store, BatchId("weather", "d2"), basis=0) == Published(2)  # another feed does not matter
    assert _publish(store, BatchId("flights", "d2"), online=value, basis=1) == Published(3)


def test_what_the_ledger_refuses_is_told_and_not_taken_for_a_race(store: Store) -> None:
    nameless = Definition("delay_3h", None, "{}")  # type: ignore[arg-type] # the wrong value is the point
    with pytest.raises(
        IntegrityError, match=r"(?is)HF309.*refuses batch flights/d1.*NOT.NULL.*nothing was loaded"
    ):
        _publish(store, definitions=(nameless,), basis=0)
    assert isinstance(_publish(store), Published)


def test_a_server_follows_by_table_version(store: Store) -> None:
    _publish(store, online=(OnlineValue("a", "EWR", 10, 1.0), OnlineValue("a", "EWR", 20, 2.0)))
    _publish(
        store,
        BatchId("flights", "d2"),
        online=(OnlineValue("a", "EWR", 20, 3.0), OnlineValue("b", "X", 5, 9.0)),
    )
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
