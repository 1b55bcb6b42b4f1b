"""What callers request, replayed through the prediction log and compared with what the champion was trained on: a slice that no
training row had, and a share of late flights that moved (R50, R51, R53)."""

from __future__ import annotations

import functools
import json
import runpy
import shutil
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sqlalchemy import insert, update

from holdfast import (
    Category,
    Contract,
    Feed,
    GroupMean,
    Integer,
    Label,
    LogisticRegression,
    Model,
    Number,
    Ordinal,
    Passthrough,
    Timestamp,
)
from holdfast.control.collect import collector
from holdfast.control.ingest.ingest import ingest
from holdfast.control.reports import traffic_comparison as comparing
from holdfast.control.reports.metrics import StatusCollector
from holdfast.control.reports.status import StatusReader, status
from holdfast.control.training import snapshots as cutting
from holdfast.control.training.train import train
from holdfast.errors import ConflictError
from holdfast.monitor.traffic_comparison import estimate_label_share
from holdfast.records import Arm
from holdfast.serve.inference.loaded_model import LoadedVersion, load
from holdfast.serve.inference.metrics import Counters, ServerCollector, ServerFacts
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.store.db import events, leases, schema
from holdfast.store.db.leases import Lease
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.serving import servers
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, frame
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry import collected_log, outcomes, traffic_comparison
from tests.support.processes import ROOT
from tests.support.queries import collected, read, write

EXAMPLE = ROOT / "examples" / "flights"
NOW_US = 1_400_000_000_000_000
HOUR_US = 3_600_000_000
COLUMNS = (
    Integer("id"),
    Category("origin", values=("EWR", "JFK", "LGA"), unseen="reject"),
    Number("left_late", unit="min", low=-120, high=3000),
    Number("distance", unit="mi", low=0, high=6000),
    Timestamp("at", tz="UTC"),
)
ROWS = Feed(
    "flights",
    Contract(*COLUMNS, key="id", event_time="at", label=Label("late", delay="1h"), slices=("origin",)),
)
MODEL = Model(
    "late",
    examples=ROWS,
    feeds=(ROWS,),
    contract=ROWS.contract,
    features=(Passthrough("left_late"), Passthrough("distance"), Ordinal("origin")),
    learner=LogisticRegression(),
    heuristic=GroupMean(by=(Ordinal("origin"),)),
    holdout="2d",
)


@functools.cache
def flights(first: date, last: date) -> pl.DataFrame:
    """Real flights of those days at the time when they left, and whether they came a quarter of an hour late."""
    rows = (
        runpy.run_path(str(EXAMPLE / "daily_files.py"))["_read"]("flights")
        .with_row_index("id")
        .drop_nulls(["arr_delay", "dep_delay"])
        .select(
            pl.col("id").cast(pl.Int64),
            "origin",
            left_late=pl.col("dep_delay").cast(pl.Float64),
            distance=pl.col("distance").cast(pl.Float64),
            at=pl.datetime("year", "month", "day", "hour", "minute", time_zone="UTC"),
            late=pl.col("arr_delay") > 15,
        )
        .sort("at", "id")
    )
    return rows.filter(pl.col("at").dt.date().is_between(first, last))


@dataclass
class Line:
    """A champion that was trained on April without LaGuardia, and the log of a server that answers with it."""

    store: Store
    version: LoadedVersion
    snapshot: str
    directory: Path
    lease: Lease
    segment: int = 0

    def response(self, rows: pl.DataFrame, *, labelled: int = 0) -> None:
        """Log the champion's answers to `rows`, and what became of the first `labelled` of them; collect both."""
        self.segment += 1
        given = rows.drop("late").to_dicts()
        scores = self.version.run([{**row, "at": int(row["at"].timestamp() * 1e6)} for row in given])
        at_us = NOW_US + self.segment * HOUR_US
        records: list[PredictionRecord | FeedbackRecord] = [
            PredictionRecord(
                f"s1-{self.segment}-{number}", at_us + number, at_us, b"u", Arm.CHAMPION, self.version.name, "", None, "ok",
                900, [float(score)], [[row["id"], row["origin"], row["left_late"], row["distance"], row["at"].isoformat()]],
            )
            for number, (row, score) in enumerate(zip(given, scores, strict=True), start=1)
        ]  # fmt: skip
        records += [
            FeedbackRecord(f"s1-{self.segment}-{number}/0", float(late), "arrivals", at_us)
            for number, late in enumerate(rows["late"].head(labelled), start=1)
        ]
        (self.directory / f"{self.segment:08d}.log").write_bytes(b"".join(map(frame, records)))
        while collector.collect(self.store, "late", self.lease, now_us=at_us):
            pass
        while collector.join(self.store, "late", self.lease, now_us=at_us):
            pass

    def compare(self, minutes: int = 1) -> traffic_comparison.TrafficComparison | None:
        now_us = NOW_US + self.segment * HOUR_US + minutes * 60_000_000
        return comparing.compare(self.store, "late", self.lease, now_us=now_us)

    def reported(self, kind: str) -> list[events.EventRow]:
        with self.store.ledger.read() as connection:
            return events.newest(connection, kind=kind)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store with April and a champion that was trained on it, and its name."""
    directory = tmp_path_factory.mktemp("trained")
    store = Store.open(directory / "store")
    path = directory / "april.parquet"
    flights(date(2013, 4, 1), date(2013, 4, 12)).filter(pl.col("origin") != "LGA").write_parquet(path)
    ingest(store, ROWS, "april", path, now_us=NOW_US)
    snapshot = write(
        store, snapshots.create, store.root, ["flights"], contract_hash=ROWS.contract.hash, now_us=NOW_US
    ).snapshot
    row = read(store, versions.get, train(store, MODEL, snapshot, now_us=NOW_US).version)
    with store.ledger.write() as connection:
        connection.execute(
            insert(schema.traffic_plans).values(
                plan_id=1,
                model="late",
                champion=row.version,
                share_ppm=0,
                shadow_ppm=0,
                committed_at_us=NOW_US,
            )
        )
    store.ledger.close()
    return store.root, row.version


@pytest.fixture
def line(trained: tuple[Path, str], tmp_path: Path) -> Line:
    root, name = trained
    store = Store.open(shutil.copytree(root, tmp_path / "store"))
    row = read(store, versions.get, name)
    directory = tmp_path / "log"
    directory.mkdir()
    with store.ledger.write() as connection:
        servers.announce(connection, Server("s1", "late", "http://127.0.0.1:1", directory, NOW_US))
    with store.ledger.write() as connection:
        lease = leases.acquire(
            connection, "control-late", holder="test", duration_us=60_000_000, now_us=NOW_US
        )
    assert isinstance(lease, Lease)
    version = load(row.version, row.digest, blobs.get(store.root, row.digest), created_at_us=NOW_US)
    return Line(store, version, row.snapshot, directory, lease)


def drawn(rows: pl.DataFrame, share: float, count: int, seed: int) -> pl.DataFrame:
    """`count` of `rows`, a `share` of them late: what the rows of each class look like stays as it is."""
    draw = np.random.default_rng(seed)
    late, punctual = rows.filter("late"), rows.filter(~pl.col("late"))
    many = round(share * count)
    parts = [
        late[draw.integers(0, late.height, many).tolist()],
        punctual[draw.integers(0, punctual.height, count - many).tolist()],
    ]
    return pl.concat(parts).sample(fraction=1.0, shuffle=True, seed=seed)


def test_a_slice_that_no_training_row_had_is_reported_once_and_shown(line: Line) -> None:
    """R51, R53: an airport that appears in the requests."""
    rows = flights(date(2013, 4, 13), date(2013, 4, 13))
    known = rows.filter(pl.col("origin") != "LGA")
    line.response(known)
    found = line.compare()
    assert found is not None
    assert found.predictions == known.height
    assert found.uncovered == ()
    line.response(rows)
    assert line.compare(-59) is None, "half a minute has not passed"
    found = line.compare()
    assert found is not None
    (uncovered,) = found.uncovered
    laguardia = rows.filter(pl.col("origin") == "LGA").height
    assert (uncovered.column, uncovered.value, uncovered.rows, uncovered.trained) == (
        "origin",
        "LGA",
        laguardia,
        0,
    )
    assert uncovered.share == laguardia / (known.height + rows.height)
    line.compare(2)
    (event,) = line.reported("slice.uncovered")
    assert event.subject == f"{line.version.name}/origin=LGA"
    assert "its predictions there are a guess" in event.explanation
    document = status(line.store, "late", now_us=NOW_US)
    shown = {
        each["value"]: each["covered"]
        for each in json.loads(json.dumps(document))["traffic_comparison"]["slices"]
    }
    assert shown == {"EWR": True, "JFK": True, "LGA": False}


def test_a_word_without_a_code_is_reported_where_the_column_is_no_slice(line: Line) -> None:
    """R25: only slices were compared."""
    feed = Feed("flights", Contract(*COLUMNS, key="id", event_time="at", label=Label("late", delay="1h")))
    snapshot = write(
        line.store,
        snapshots.create,
        line.store.root,
        ["flights"],
        contract_hash=feed.contract.hash,
        now_us=NOW_US,
    ).snapshot
    open_words = replace(
        MODEL, examples=feed, feeds=(feed,), contract=feed.contract, features=(Ordinal("origin", at_least=2),)
    )
    row = read(line.store, versions.get, train(line.store, open_words, snapshot, now_us=NOW_US).version)
    with line.store.ledger.write() as connection:
        connection.execute(update(schema.traffic_plans).values(champion=row.version))
    data = blobs.get(line.store.root, row.digest)
    line.version = load(row.version, row.digest, data, created_at_us=NOW_US)
    assert line.version.words == {"origin": ("EWR", "JFK")}
    line.response(flights(date(2013, 4, 13), date(2013, 4, 13)))
    found = line.compare()
    assert found is not None
    assert [(each.column, each.value, each.is_word) for each in found.uncovered] == [("origin", "LGA", True)]
    (event,) = line.reported("slice.uncovered")
    assert "has no code for that word" in event.explanation


def test_the_share_of_late_flights_in_december_is_found_from_scores_made_for_april(line: Line) -> None:
    """R50: December had more late flights than April. That share is planted into real flights of April, others than those
    whose labels came, and found within 0.03."""
    april, december = (flights(date(2013, month, 13), date(2013, month, 25)) for month in (4, 12))
    planted = float(december["late"].to_numpy().mean())
    mixed = april.sample(fraction=1.0, shuffle=True, seed=2)
    line.response(mixed.head(2_000), labelled=1_500)
    line.compare()
    line.response(drawn(mixed.slice(2_000), planted, comparing.MAX_PREDICTIONS, seed=3), labelled=300)
    found = line.compare()
    assert found is not None
    assert found.label is not None
    label = found.label
    assert found.predictions == comparing.MAX_PREDICTIONS
    assert label.trained < planted - 0.05
    assert abs(label.estimate.estimate - planted) <= 0.03
    assert label.check is not None
    assert abs(label.check - planted) <= 0.03
    assert label.seen is not None
    assert label.seen.low <= planted <= label.seen.high
    assert (label.seen_rows, label.calibrated_on, label.shifted) == (300, 1_500, True)
    assert "assumed: only the share of the classes moved" in label.explanation
    (event,) = line.reported("label.shifted")
    assert event.subject == line.version.name
    with line.store.ledger.read() as connection:
        assert traffic_comparison.last(connection, "late") == found


def test_real_labels_end_a_shift_that_only_the_estimate_showed(line: Line) -> None:
    shares = np.random.default_rng(7)
    calm = estimate_label_share(
        np.full(400, 0.3), 0.3, (np.array([]), np.array([])), (np.arange(400) % 10 < 3).astype(float)
    )
    scores, known = shares.beta(2, 2, 2_000), shares.beta(2, 2, 2_000)
    came = (shares.random(2_000) < known).astype(float)
    risen = estimate_label_share(np.sqrt(scores), 0.5, (known, came), [])
    assert calm is not None
    assert risen is not None
    name = line.version.name
    for number, label in enumerate((risen, risen, calm, calm, risen)):
        found = traffic_comparison.TrafficComparison(name, 400, 1, 2, NOW_US, (), label)
        comparing._report(line.store, "late", found, NOW_US + number)
    with line.store.ledger.read() as connection:
        reported = [event.kind for event in events.since(connection, 0) if event.subject == name]
    assert reported[-2:] == ["label.shifted", "label.shift_ended"]
    assert reported.count("label.shifted") == 1


def test_without_labels_the_share_is_a_guess_that_reports_it_and_alarms_no_person(line: Line) -> None:
    rows = flights(date(2013, 4, 13), date(2013, 4, 25))
    line.response(drawn(rows, 0.6, 2_000, seed=4))
    found = line.compare()
    assert found is not None
    assert found.label is not None
    assert found.label.estimate.estimate > found.label.trained + 0.1
    assert (found.label.check, found.label.seen, found.label.calibrated_on, found.label.shifted) == (
        None,
        None,
        0,
        False,
    )
    assert "which alone shows no shift: no older prediction has a label to correct" in found.label.explanation
    assert line.reported("label.shifted") == []


def test_what_was_found_is_among_the_metrics_and_next_to_a_comparison_of_snapshots(line: Line) -> None:
    line.response(flights(date(2013, 4, 13), date(2013, 4, 13)), labelled=100)
    found = line.compare()
    assert found is not None
    facts = ServerFacts("late", 1.0, {}, comparison=found)
    page = ServerCollector(facts, Counters()).encode(b"")[0].decode()
    of = f'model="late",version="{line.version.name}"'
    assert f'holdfast_unseen_slice_values{{column="origin",{of}}} 1.0' in page
    assert f'holdfast_unseen_slice_share_ratio{{column="origin",{of}}} 0.2' in page
    for kind in ("trained", "estimated", "seen"):
        assert (
            f'holdfast_positive_label_ratio{{model="late",of="{kind}",version="{line.version.name}"}} 0.'
            in page
        )
    assert "LGA" not in page, "what clients send is no label of a metric"
    assert cutting.last_traffic_comparison(line.store, "late") == found
    assert cutting.last_traffic_comparison(line.store, "another") is None


def test_a_loop_that_lost_its_lease_writes_nothing(line: Line) -> None:
    line.response(flights(date(2013, 4, 13), date(2013, 4, 13)))
    with line.store.ledger.write() as connection:
        leases.acquire(connection, "control-late", holder="test", duration_us=60_000_000, now_us=NOW_US)
    with pytest.raises(ConflictError, match="HF304"):
        line.compare()
    assert cutting.last_traffic_comparison(line.store, "late") is None
    assert line.reported("slice.uncovered") == []


def test_a_file_that_cannot_be_read_is_reported_and_the_others_count(line: Line) -> None:
    rows = flights(date(2013, 4, 13), date(2013, 4, 13))
    line.response(rows.head(100))
    line.response(rows.tail(200))
    with line.store.ledger.read() as connection:
        (first, _) = collected(connection, collected_log.PREDICTIONS)
    (line.store.root / first.path).write_bytes(b"PAR1")
    found = line.compare()
    assert found is not None
    assert found.predictions == 200
    (event,) = line.reported("predictions.damaged")
    assert event.subject == f"file/{first.path}"


def test_quality_by_slice_is_that_of_the_logged_rows_and_their_labels(line: Line) -> None:
    """R143: a contract names the columns by which quality is reported, and it was reported by none."""
    rows = drawn(flights(date(2013, 4, 13), date(2013, 4, 15)), 0.3, 400, seed=8)
    line.response(rows, labelled=300)
    now_us = NOW_US + line.segment * HOUR_US
    reader = StatusReader(line.store, "late")
    found = reader.read(now_us=now_us)
    scores = line.version.run(
        [{**row, "at": int(row["at"].timestamp() * 1e6)} for row in rows.drop("late").to_dicts()]
    )
    raw = rows.with_columns(score=pl.Series([float(each) for each in scores])).head(300)
    named = raw.with_columns(value=pl.col("origin").replace("LGA", "(unseen)"))  # no training row was of LGA
    assert [(each.column, each.value) for each in found.slices if each.value == "(unseen)"] == [
        ("origin", "(unseen)")
    ]
    assert {each.value: each.quality.rows for each in found.slices} == dict(
        named["value"].value_counts().iter_rows()
    )
    for each in found.slices:
        inside = named.filter(pl.col("value") == each.value)
        late, punctual = (
            inside.filter(pl.col("late") == label)["score"].to_numpy() for label in (True, False)
        )
        pairs = late[:, None] - punctual[None, :]
        assert each.is_conclusive
        assert each.quality.auc is not None
        assert each.quality.auc.estimate == pytest.approx(
            ((pairs > 0) + 0.5 * (pairs == 0)).mean(), abs=1e-12
        )
    metrics = {
        (sample.labels["value"], sample.labels["version"]): sample.value
        for family in StatusCollector("late", lambda: found).collect()
        for sample in family.samples
        if sample.name == "holdfast_slice_labelled_predictions"
    }
    assert metrics == {(each.value, line.version.name): each.quality.rows for each in found.slices}
    with line.store.ledger.write() as connection:
        outcomes.withdraw(connection, [f"s1-{line.segment}-{number}/0" for number in range(1, 301)])
        events.append(
            connection, at_us=now_us, kind=outcomes.CORRECTED, subject="late", explanation="all withdrawn"
        )
    assert reader.read(now_us=now_us).slices == ()
