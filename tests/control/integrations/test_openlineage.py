"""A catalog of OpenLineage is reported over real HTTP: everything, in order, at least once, and nothing waits for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from holdfast.control.executors.executor import LocalExecutor
from holdfast.control.ingest.failed_loads import note_of
from holdfast.control.ingest.ingest import ingest_many
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.control.integrations import exporter, openlineage
from holdfast.control.interrupted_operations import report_interrupted
from holdfast.errors import HoldfastError, UnavailableError
from holdfast.records import BatchId, Level, Violation
from holdfast.store import Store
from holdfast.store.db import event_cursors, events
from holdfast.store.db.failed_operations import Operation
from holdfast.store.feeds import admissions
from holdfast.store.files.staging import ATTEMPTS_DIRECTORY
from tests.support import backout_world
from tests.support.backout_world import NOW_US

pytestmark = pytest.mark.process


class Catalog(ThreadingHTTPServer):
    """Keeps what it is sent; refuses everything while `refuses` is true, and sends callers on to `redirects_to`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.refuses = False
        self.redirects_to = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Catalog

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fits = self.path == "/api/v1/lineage" and self.headers["Content-Type"] == "application/json"
        away = self.server.refuses or self.server.redirects_to
        self.send_response(302 if self.server.redirects_to else 503 if away else 201 if fits else 400)
        if self.server.redirects_to:
            self.send_header("Location", self.server.redirects_to)
        self.end_headers()
        if fits and not away:
            self.server.taken.append(json.loads(body))
            self.server.keys.add(self.headers["Authorization"])

    def log_message(self, *_arguments: object) -> None:
        """Do nothing."""


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    server = Catalog()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def jobs(catalog: Catalog) -> list[str]:
    return [each["job"]["name"] for each in catalog.taken if each["eventType"] == "COMPLETE"]


def test_loads_and_backouts_are_reported_once_the_catalog_listens(tmp_path: Path, catalog: Catalog) -> None:
    store = Store.open(tmp_path / "store")
    world = backout_world
    world.load(store, tmp_path, world.ALONE, 0)
    world.load(store, tmp_path, world.ALONE, 1)
    catalog.refuses = True
    with pytest.raises(UnavailableError, match=r"HF601.*did not accept"):
        openlineage.export(store, catalog.url)
    assert catalog.taken == []
    catalog.refuses = False
    openlineage.export(store, catalog.url)
    assert jobs(catalog) == ["load.alone", "load.alone"]
    assert openlineage.export(store, catalog.url) == 0
    world.take_out(store, world.ALONE, 1)
    openlineage.export(store, f"{catalog.url}/api/v1/lineage")
    assert jobs(catalog) == ["load.alone", "load.alone", "back-out.alone"]
    loaded, gone = catalog.taken[3], catalog.taken[-1]
    assert [each["name"] for each in catalog.taken[2]["inputs"]] == [
        each["name"] for each in loaded["inputs"]
    ]
    assert {field["name"] for field in loaded["outputs"][0]["facets"]["schema"]["fields"]} >= {"id", "delay"}
    assert loaded["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 11
    assert gone["outputs"][0]["facets"]["holdfast_backout"]["reason"] == "the clock was wrong"
    assert gone["inputs"][0]["inputFacets"]["dataQualityMetrics"]["rowCount"] == 11
    assert gone["outputs"][0]["facets"]["version"]["datasetVersion"] == "3"
    with store.ledger.read() as connection:
        newest = events.newest(connection, limit=1)[0].event_id
        assert event_cursors.position(connection, openlineage.CURSOR) == newest


def test_a_refused_load_fails_in_the_namespace_of_the_settings(tmp_path: Path, catalog: Catalog) -> None:
    store = Store.open(tmp_path / "store")
    refused = Violation("volume", "rows", Level.CRITICAL, "4 rows, at least 100 are expected", 4.0, 100.0)
    with store.ledger.write() as connection:
        admissions.refuse(connection, BatchId("alone", "h1"), [refused], contract_hash="c", now_us=5_000_000)
    openlineage.export(store, catalog.url, namespace="acme", api_key="k")
    start, fail = catalog.taken
    assert (start["eventType"], fail["eventType"]) == ("START", "FAIL")
    assert start["run"]["runId"] == fail["run"]["runId"]
    assert "at least 100 are expected" in fail["run"]["facets"]["errorMessage"]["message"]
    assert (fail["job"]["namespace"], fail["job"]["name"]) == ("acme", "load.alone")
    assert catalog.keys == {"Bearer k"}


def test_loads_start_when_they_began_and_failed_ones_name_their_source(
    tmp_path: Path, catalog: Catalog
) -> None:
    """A load, a refused one, one that failed and one that was killed, each with the times of a clock that goes on."""
    store = Store.open(tmp_path / "store")
    seconds = iter(range(100))

    def clock_us() -> int:
        return NOW_US + next(seconds) * 1_000_000

    def load(batch: str, path: Path) -> None:
        spec = DeliverySpec(batch, path, None)
        list(ingest_many(store, backout_world.ALONE, [spec], LocalExecutor(), clock_us=clock_us))

    load("h1", backout_world.delivery(tmp_path, backout_world.ALONE, 1))
    none = tmp_path / "none.csv"
    none.write_text("id,origin,delay,at,left\nx,,,yesterday,\n")
    with pytest.raises(HoldfastError, match="HF204"):
        load("h2", none)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(HoldfastError, match="HF201"):
        load("h3", broken)
    marker = store.root / ATTEMPTS_DIRECTORY / "dead"
    marker.write_text(note_of(backout_world.ALONE, "h4", Operation(NOW_US - 1_000_000, "killed.csv")))
    report_interrupted(store, now_us=clock_us())
    openlineage.export(store, catalog.url)
    ended = [
        (start["eventTime"] < end["eventTime"], end["eventType"], [each["name"] for each in start["inputs"]])
        for start, end in batched(catalog.taken)
    ]
    assert ended == [
        (True, "COMPLETE", ["alone-1-0.parquet"]),
        (True, "FAIL", ["none.csv"]),
        (True, "FAIL", ["broken.parquet"]),
        (True, "ABORT", ["killed.csv"]),
    ]
    spent = [
        datetime.fromisoformat(end["eventTime"]) - datetime.fromisoformat(start["eventTime"])
        for start, end in batched(catalog.taken)
    ]
    assert min(spent) >= timedelta(seconds=1)  # no start was made up


def batched(taken: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return list(zip(taken[::2], taken[1::2], strict=True))


def test_exported_again_it_is_the_same_run(tmp_path: Path, catalog: Catalog) -> None:
    """At least once: an exporter that was killed after it sent sends again, and the catalog sees the run that it has."""
    store = Store.open(tmp_path / "store")
    backout_world.load(store, tmp_path, backout_world.ALONE, 0)
    openlineage.export(store, catalog.url)
    with store.ledger.write() as connection:
        connection.exec_driver_sql("DELETE FROM event_cursors")
    openlineage.export(store, catalog.url)
    assert catalog.taken[0] == catalog.taken[2]
    assert catalog.taken[1] == catalog.taken[3]


def test_the_announcer_goes_on_when_the_catalog_comes_back(
    tmp_path: Path, catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.open(tmp_path / "store")
    backout_world.load(store, tmp_path, backout_world.ALONE, 0)
    catalog.refuses = True
    rounds = iter(range(12))

    def wait(_seconds: float) -> bool:
        number = next(rounds)
        catalog.refuses = number < 4
        return number == 11

    exporter.run({"catalog": lambda: openlineage.export(store, catalog.url)}, wait=wait, pause_seconds=0.0)
    assert jobs(catalog) == ["load.alone"]
    assert len([record for record in caplog.records if "did not accept" in record.message]) == 1


def test_nothing_but_the_declared_catalog_is_called(tmp_path: Path, catalog: Catalog) -> None:
    """A redirect is an answer like any other: what is not taken where it was sent is reported again."""
    store = Store.open(tmp_path / "store")
    backout_world.load(store, tmp_path, backout_world.ALONE, 0)
    called: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            called.append(self.path)
            self.send_response(200)
            self.end_headers()

    elsewhere = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=elsewhere.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        catalog.redirects_to = f"http://127.0.0.1:{elsewhere.server_port}/"
        with pytest.raises(UnavailableError, match=r"HF601.*did not accept.*status 302"):
            openlineage.export(store, catalog.url)
    finally:
        elsewhere.shutdown()
        thread.join()
        elsewhere.server_close()
    assert (called, catalog.taken) == ([], [])
    catalog.redirects_to = ""
    openlineage.export(store, catalog.url)
    assert jobs(catalog) == ["load.alone"]
