"""Many files on an executor (R1, R3): the ledger and the files are those that one process makes, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.contract import Category, Contract, Number, Text, Timestamp
from holdfast.control.executors.executor import Executor, LocalExecutor, open_executor
from holdfast.control.ingest.ingest import ingest, ingest_many
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.errors import ConflictError, InputError, UnavailableError
from holdfast.features import Aggregate
from holdfast.feeds import Expectations, Feed, Reference
from holdfast.store import Store
from holdfast.store.db import schema
from holdfast.store.files import data_files, staging
from holdfast.store.maintenance import orphans
from tests.support import dying_tasks as dying

pytestmark = pytest.mark.process

NOW_US = 1_700_000_000_000_000
FEED = Feed(
    "trips",
    Contract(
        Text("id"), Timestamp("at", tz="UTC"), Category("town"), Number("km", unit="km", low=0, high=500),
        key="id", event_time="at",
    ),
)  # fmt: skip
MEAN = Aggregate("town_km", over="trips", by="town", value="km", known_at="at", window="3h", every="10min")


def deliveries(directory: Path, count: int = 6, rows: int = 300) -> list[DeliverySpec]:
    directory.mkdir(exist_ok=True)
    found = []
    for day in range(count):
        lines = [
            f"{day}-{row},2026-01-{day + 1:02d}T{row % 24:02d}:00:00Z,{'abc'[row % 3]},{row if row % 50 else 999}"
            for row in range(rows)
        ]
        path = directory / f"day{day}.csv"
        path.write_text("\n".join(["id,at,town,km", *lines]) + "\n")
        found.append(DeliverySpec(f"day{day}", path))
    return found


def attempts() -> Iterator[str]:
    return iter(f"{number:032x}" for number in range(1_000))


def load(store: Store, given: list[DeliverySpec], executor: Executor) -> list[str]:
    loads = ingest_many(
        store, FEED, given, executor, clock_us=lambda: NOW_US, aggregates=[MEAN], attempts=attempts()
    )
    return [result.state for result in loads]


def everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, and the digest of every file's bytes."""
    with store.ledger.read() as connection:
        dump = {
            table.name: sorted(map(tuple, connection.execute(table.select())), key=repr)
            for table in schema.METADATA.sorted_tables
        }
    rows = sorted((store.root / data_files.ROWS_DIRECTORY).iterdir())
    return dump | {"rows": [(path.name, path.read_bytes()) for path in rows]}


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What one process makes of the deliveries, one call of `ingest` after the other."""
    store, ids = Store.open(tmp_path / "alone"), attempts()
    for given in deliveries(tmp_path / "in"):
        ingest(store, FEED, given.batch, given.source, now_us=NOW_US, aggregates=[MEAN], attempts=ids)
    return everything(store)


@pytest.fixture(scope="module")
def others() -> Iterator[LocalExecutor]:
    """Two processes, which are started once: each takes longer to import what it needs than to do its part."""
    made = LocalExecutor(2)
    yield made
    made.close()


@pytest.mark.parametrize("in_others", [False, True])
def test_a_load_of_many_files_is_the_load_of_each(
    tmp_path: Path, alone: dict[str, list[tuple[Any, ...]]], others: LocalExecutor, in_others: bool
) -> None:
    store, executor = Store.open(tmp_path / "many"), others if in_others else LocalExecutor()
    given = deliveries(tmp_path / "in")
    assert load(store, given, executor) == ["loaded"] * 6
    assert everything(store) == alone
    assert load(store, given, executor) == ["already_loaded"] * 6
    assert everything(store) == alone


def test_what_comes_before_a_bad_delivery_is_loaded_and_nothing_after_it(tmp_path: Path) -> None:
    store, given = Store.open(tmp_path / "store"), deliveries(tmp_path / "in")
    assert isinstance(given[2].source, Path)
    given[2].source.write_text("id,at\n1,2026-01-01T00:00:00Z\n")
    executor = LocalExecutor(1)
    with pytest.raises(InputError, match="HF202"):
        load(store, given, executor)
    executor.close()
    assert [row[1] for row in everything(store)["batches"]] == ["day0", "day1"]
    staging.sweep_dead_attempts(store)
    assert len(everything(store)["rows"]) == 2 * 2, "of each batch its rows and its quarantine"
    assert orphans.unnamed(store) == []


def test_the_same_content_twice_in_one_load_is_reported_as_if_it_came_later(
    tmp_path: Path, others: LocalExecutor
) -> None:
    store, given = Store.open(tmp_path / "store"), deliveries(tmp_path / "in", count=2)
    assert load(store, [given[0], given[0], given[1]], LocalExecutor()) == [
        "loaded",
        "already_loaded",
        "loaded",
    ]
    other = Store.open(tmp_path / "other")
    assert load(other, [given[0], given[0], given[1]], others) == ["loaded", "already_loaded", "loaded"]
    with pytest.raises(ConflictError, match="HF203"):
        load(other, [DeliverySpec("elsewhere", given[0].source)], others)
    assert orphans.unnamed(other) == []


def test_rows_that_refer_to_those_before_them_are_admitted_by_others_too(
    tmp_path: Path, others: LocalExecutor
) -> None:
    """Each delivery refers to the one before it, and brings some of its rows again: none may look at it too early."""
    contract = Contract(
        Text("id"), Timestamp("at", tz="UTC"), Text("parent", missing="keep"), key="id", event_time="at"
    )
    feed = Feed("calls", contract, expects=Expectations(references=(Reference("parent", "calls", "id"),)))
    given = []
    for day in range(4):
        lines = [f"{day}-{row},2026-01-{day + 1:02d}T{row:02d}:00:00Z,{day - 1}-{row}" for row in range(9)]
        again = [f"{day - 1}-{row},2026-01-{day:02d}T{row:02d}:00:00Z," for row in range(3)] if day else []
        path = tmp_path / f"calls{day}.csv"
        path.write_text(
            "\n".join(
                [
                    "id,at,parent",
                    *(lines if day else [line[: line.rindex(",") + 1] for line in lines]),
                    *again,
                ]
            )
        )
        given.append(DeliverySpec(f"day{day}", path))
    found = []
    for name, executor in (("one", LocalExecutor()), ("many", others)):
        store = Store.open(tmp_path / name)
        loads = ingest_many(store, feed, given, executor, clock_us=lambda: NOW_US, attempts=attempts())
        assert [(each.rows_loaded, each.reasons) for each in loads] == [(9, {}), *[(9, {"id|loaded": 3})] * 3]
        found.append(everything(store))
        assert orphans.unnamed(store) == []
    assert found[0] == found[1]


def test_tasks_of_a_process_that_died_run_again_in_their_place(tmp_path: Path) -> None:
    executor = LocalExecutor(1)
    assert list(executor.map(dying.once, [(str(tmp_path), number) for number in range(5)])) == list(range(5))
    with pytest.raises(UnavailableError, match="HF312"):
        list(executor.map(dying.always, [1, 2]))
    executor.close()


@pytest.mark.process
def test_an_executor_that_is_not_there_is_reported() -> None:
    with pytest.raises(InputError, match=r"HF103.*local, processes, ray"):
        open_executor("spark")
