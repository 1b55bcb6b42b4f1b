"""A batch is read from PostgreSQL in one time, exactly, and within a time (R1, R17, F10)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast.contract import Category, Contract, Integer, Number, Text, Timestamp
from holdfast.contract.batch.compiler import compile_batch
from holdfast.errors import HoldfastError, InputError, UnavailableError
from holdfast.feeds import content_digest
from holdfast.feeds.postgres_query import BatchQuery, PostgresQuery
from holdfast.store.sources import Rows, open_source, parse

CONTRACT = Contract(
    Integer("id"),
    Number("fare", unit="USD", missing="keep"),
    Category("origin"),
    Text("tag", missing="keep"),
    Timestamp("at", tz="UTC"),
    Timestamp("wall", tz="America/New_York", naive="local", missing="keep"),
    key="id",
    event_time="at",
)
QUERY = "select id, fare, origin, tag, at, wall from trips where day = $1"


@pytest.fixture
def trips(postgres_server: Any) -> Iterator[str]:
    """A database with a table of trips, and its URL."""
    postgres_server.execute("CREATE DATABASE warehouse")
    for statement in (
        "CREATE TYPE airport AS ENUM ('EWR', 'JFK')",
        "CREATE TABLE trips (day date, id int8, fare numeric(20, 4), origin airport, tag uuid, at timestamptz, wall timestamp)",
        """INSERT INTO trips VALUES
           ('2013-01-05', 2, 12.5, 'JFK', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2013-01-05T12:00-05', '2013-01-05 12:00'),
           ('2013-01-05', 1, 12.3400, 'EWR', NULL, '2013-01-05T11:00-05', '2013-03-10 02:30'),
           ('2013-01-05', 3, 9007199254740993, 'EWR', NULL, '2013-01-05T13:00-05', NULL),
           ('2013-01-06', 4, NULL, 'EWR', NULL, '2013-01-06T11:00-05', NULL)""",
    ):
        postgres_server.execute(statement, "warehouse")
    yield postgres_server.url("warehouse")
    postgres_server.execute("DROP DATABASE warehouse WITH (FORCE)")


def _ask(url: str, query: str = QUERY, batch: str = "2013-01-05", seconds: float = 60.0) -> Rows:
    rows = open_source(BatchQuery(url, query, batch), deadline_seconds=seconds)
    assert isinstance(rows, Rows)
    return rows


def test_the_rows_of_a_batch_are_read_exactly(trips: str) -> None:
    verdict = compile_batch(CONTRACT)(parse(_ask(trips), CONTRACT))
    assert verdict.counts == {"fare|not_exact": 1, "wall|gap": 1}
    assert verdict.valid.rows(named=True) == [
        {
            "id": 2,
            "fare": 12.5,
            "origin": "JFK",
            "tag": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "at": datetime(2013, 1, 5, 17, tzinfo=UTC),
            "wall": datetime(2013, 1, 5, 17, tzinfo=UTC),
        }
    ]
    assert verdict.quarantined["fare"].to_list() == ["12.3400", "9007199254740993.0000"]


def test_the_same_rows_have_the_same_digest_however_they_lie(trips: str, postgres_server: Any) -> None:
    first = content_digest(_ask(trips).pieces())
    postgres_server.execute(
        "UPDATE trips SET day = day", "warehouse"
    )  # the rows move, and stay what they are
    postgres_server.execute("VACUUM FULL trips", "warehouse")
    assert content_digest(_ask(trips, QUERY + " order by id desc").pieces()) == first
    postgres_server.execute("UPDATE trips SET fare = 12.51 WHERE id = 2", "warehouse")
    assert content_digest(_ask(trips).pieces()) != first
    assert content_digest(_ask(trips, batch="2013-01-06").pieces()) != first


def test_what_the_ledger_keeps_of_a_query_has_no_secret(trips: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "WAREHOUSE_URL", trips.replace("postgres@", "postgres:s3cr3t@") + "?application_name=s3cr3t"
    )
    declared = PostgresQuery("${env:WAREHOUSE_URL}", QUERY)
    rows = open_source(declared.of("2013-01-05"))
    assert "s3cr3t" not in rows.name
    assert rows.name.startswith("postgresql://127.0.0.1:")
    wrong = BatchQuery(os.environ["WAREHOUSE_URL"].replace("warehouse", "nowhere"), QUERY, "x")
    with pytest.raises(UnavailableError, match=r"HF209.*nowhere") as refused:
        open_source(wrong)
    assert "s3cr3t" not in str(refused.value) + repr(wrong) + repr(declared)


@pytest.mark.parametrize(
    ("query", "code", "why"),
    [
        ("select * from nowhere where day = $1", "HF201", "nowhere"),
        ("select 1; drop table trips", "HF201", "multiple commands"),
        ("delete from trips returning id", "HF201", "read-only"),
        ("select day from trips", "HF202", "day is date"),
        ("select '{}'::jsonb as doc", "HF202", "doc is jsonb"),
        ("select 1 as id, 2 as id", "HF202", "id is there twice"),
        ("select id from trips where id = $1 and day = $2", "HF201", "parameters"),
    ],
)
def test_what_cannot_be_queried_is_refused(trips: str, query: str, code: str, why: str) -> None:
    with pytest.raises(HoldfastError, match=f"{code}.*{why}"):
        _ask(trips, query)


def test_a_larger_response_than_the_limit_is_refused(trips: str) -> None:
    requested = BatchQuery(trips, "select repeat('x', 1000) as t from generate_series(1, 2000)", "d1")
    with pytest.raises(InputError, match=r"HF201.*more than 2 x 1,000,000 bytes of memory"):
        open_source(requested, limit_bytes=1_000_000)


def test_a_stopped_server_is_waited_for_no_longer_than_is_allowed(trips: str, postgres_server: Any) -> None:
    """The backend is stopped in the middle of the query: the kernel goes on acknowledging for it."""
    sleeping = "select 1 as id from pg_sleep(600)"
    began = time.monotonic()
    stopped: list[int] = []

    def stop() -> None:
        while not stopped and time.monotonic() < began + 20:
            found = postgres_server.execute(
                "SELECT pid FROM pg_stat_activity WHERE query LIKE 'EXECUTE holdfast%' AND state = 'active'"
            )
            for (pid,) in found:
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
            time.sleep(0.05)

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        with pytest.raises(UnavailableError, match=r"HF209.*within 6 seconds.*nothing was loaded"):
            _ask(trips, sleeping, seconds=6.0)
        assert time.monotonic() - began < 60
    finally:
        stopper.join()
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert stopped
    assert len(_ask(trips).table) == 3


def test_a_server_that_is_not_there_is_reported(postgres_server: Any) -> None:
    with pytest.raises(UnavailableError, match=r"HF209.*did not answer"):
        _ask("postgresql://postgres@127.0.0.1:1/x", seconds=20)


@pytest.mark.parametrize(
    ("url", "query", "why"),
    [
        ("${env:X}", "select 1", r"needs \$1"),
        ("postgresql://u:secret@db/x", "select $1", "no password"),
        ("postgresql://db/x?password=secret", "select $1", "no password"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(url: str, query: str, why: str) -> None:
    with pytest.raises(InputError, match=f"HF10[69].*{why}"):
        PostgresQuery(url, query)


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAREHOUSE_URL", raising=False)
    with pytest.raises(InputError, match=r"HF103.*WAREHOUSE_URL is not set"):
        open_source(PostgresQuery("WAREHOUSE_URL", QUERY).of("d1"))
