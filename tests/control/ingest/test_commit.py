"""One transaction commits a load; when its answer is lost, the ledger is requested what is true (R3, D3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.control.ingest.admit import AdmittedBatch, admit
from holdfast.control.ingest.commit import commit
from holdfast.control.ingest.ingest import ingest, prepare
from holdfast.control.ingest.outcome import LoadResult, Retry, RetryReason
from holdfast.control.ingest.stage import StagedBatch
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.errors import ConflictError, IntegrityError, UnavailableError
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import Expectations
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.catalog.online_features import Definition
from holdfast.store.db import events
from holdfast.store.durability import failpoints
from holdfast.store.files import staging
from tests.support import loader

pytestmark = pytest.mark.usefixtures("each_ledger")

FEED = replace(loader.FEED, expects=Expectations(duplicate_keys=None))
BATCH = BatchId("flights", "d1")
HEADER = "id,origin,delay,at,left\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.armed = None


def delivery(store: Store, first: int) -> Path:
    """Two rows whose ids begin at `first`."""
    path = store.root.parent / f"{first}.csv"
    rows = (
        f"{number},EWR,4.5,2013-01-01T05:{number:02}:00-05:00,2013-01-01T10:20:00Z\n"
        for number in (first, first + 1)
    )
    path.write_text(HEADER + "".join(rows))
    return path


def load(store: Store, batch: str = "d1", first: int = 1) -> LoadResult:
    return ingest(store, FEED, batch, delivery(store, first), now_us=5)


def admitted(
    store: Store, place: staging.Stage, first: int, batch: str = "d1", *aggregates: Aggregate
) -> AdmittedBatch:
    """A delivery that is admitted and not yet committed."""
    staged = prepare(store, FEED, DeliverySpec(batch, delivery(store, first)), place)
    assert isinstance(staged, StagedBatch)
    found = admit(store, FEED, staged, aggregates, now_us=5)
    assert isinstance(found, AdmittedBatch)
    return found


def _lose(point: str, store: Store, *, for_good: bool = False) -> None:
    """Make the network fail at `point`; `for_good` takes the ledger away as well."""

    def hook(name: str) -> None:
        if name == point:
            failpoints.armed = None
            if for_good:
                store.ledger.close()
                (store.root / "ledger.db").rename(store.root / "gone.db")
                (store.root / "ledger.db").mkdir()
            raise ConnectionResetError("the answer was lost")

    failpoints.armed = hook


def test_a_response_that_was_lost_after_the_commit_is_found_out(store: Store) -> None:
    _lose("commit.after_commit", store)
    found = load(store)
    assert (found.state, found.table_version, found.rows_loaded) == ("loaded", 1, 2)
    assert load(store).state == "already_loaded"


def test_a_failure_before_the_commit_left_nothing(store: Store) -> None:
    _lose("commit.before_commit", store)
    with pytest.raises(UnavailableError, match=r"HF302.*nothing was loaded"):
        load(store)
    with store.ledger.read() as connection:
        assert batches.loads(connection, BATCH) == []
        assert [each.kind for each in events.newest(connection)] == ["load.failed"]
        assert batches.current_version(connection) == 0
    assert load(store).state == "loaded"  # PostgreSQL gives no number twice, even if no transaction kept it


@pytest.mark.sqlite
def test_a_response_that_cannot_be_found_out_is_unknown(store: Store) -> None:
    _lose("commit.after_commit", store, for_good=True)
    with pytest.raises(UnavailableError, match=r"HF205.*completely or not at all.*same command again"):
        load(store)
    (store.root / "ledger.db").rmdir()
    (store.root / "gone.db").rename(store.root / "ledger.db")
    assert load(Store.open(store.root)).state == "already_loaded"


def test_the_same_id_with_other_content_is_refused_in_the_transaction(store: Store) -> None:
    with staging.staged(store.root) as one, staging.staged(store.root) as other:
        same_id, same_content = admitted(store, one, 3), admitted(store, other, 1, "d2")
        load(store)
        with pytest.raises(ConflictError, match="HF203"):
            commit(store, same_id, now_us=5)
        with pytest.raises(ConflictError, match=r"HF203.*as batch flights/d1"):
            commit(store, same_content, now_us=5)
    with store.ledger.read() as connection:
        assert len(batches.loads(connection, BATCH)) == 1
        assert batches.current_version(connection) == 1


def test_the_same_content_is_committed_once(store: Store) -> None:
    with staging.staged(store.root) as one, staging.staged(store.root) as other:
        first, second = admitted(store, one, 1), admitted(store, other, 1)
        assert commit(store, first, now_us=5) != commit(store, second, now_us=5)
        found = commit(store, second, now_us=5)
    assert isinstance(found, LoadResult)
    assert (found.state, found.table_version) == ("already_loaded", 1)


def test_what_was_computed_from_older_rows_is_not_committed(store: Store) -> None:
    with staging.staged(store.root) as place:
        batch = admitted(store, place, 3, "d2", loader.AGGREGATE)
        assert batch.basis == 0
        load(store)
        assert commit(store, batch, now_us=5) == Retry(RetryReason.OVERTAKEN)
        again = admit(store, FEED, batch.staged, [loader.AGGREGATE], now_us=5)
        assert isinstance(again, AdmittedBatch)
        assert again.basis == 1
        found = commit(store, again, now_us=5)
    assert isinstance(found, LoadResult)
    assert found.table_version == 2


def test_what_depends_on_no_other_batch_is_committed_after_one(store: Store) -> None:
    with staging.staged(store.root) as place:
        batch = admitted(store, place, 3, "d2")
        assert batch.basis is None
        load(store)
        assert isinstance(commit(store, batch, now_us=5), LoadResult)


def test_what_the_ledger_refuses_is_reported_and_not_taken_for_a_race(store: Store) -> None:
    nameless = Definition("delay_3h", None, "{}")  # type: ignore[arg-type] # the wrong value is the point
    with staging.staged(store.root) as place:
        batch = admitted(store, place, 1)
        broken = replace(batch, online=replace(batch.online, definitions=(nameless,)))
        with pytest.raises(
            IntegrityError, match=r"(?is)HF309.*refuses batch flights/d1.*NOT.NULL.*nothing was loaded"
        ):
            commit(store, broken, now_us=5)
        assert isinstance(commit(store, batch, now_us=5), LoadResult)


def test_files_that_were_swept_are_not_committed(store: Store) -> None:
    with staging.staged(store.root) as place:
        batch = admitted(store, place, 1)
        path = store.root / batch.staged.files[0].path
        path.unlink()
        assert commit(store, batch, now_us=5) == Retry(RetryReason.SWEPT)
        path.write_bytes(b"short")
        with pytest.raises(IntegrityError, match="HF301"):
            commit(store, batch, now_us=5)
    with store.ledger.read() as connection:
        assert batches.loads(connection, BATCH) == []
