"""A delivery that breaks an expectation is reported, makes its feed suspect or is refused; nothing learns from a suspect one
(R5, R15, R18, R28, R37, R41, R42).
"""

from __future__ import annotations

import itertools
import json
import runpy
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from holdfast.control.backout.backout import execute_backout
from holdfast.control.ingest import acceptance as accepting
from holdfast.control.ingest import ingest as loading
from holdfast.control.ingest.dry_run import check
from holdfast.control.ingest.feed_status import of_model
from holdfast.control.ingest.ingest import ingest, prepare, publish
from holdfast.control.ingest.outcome import LoadResult
from holdfast.control.ingest.stage import StagedBatch
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.control.maintenance.verify import verify
from holdfast.control.training.train import refuse_suspects, train
from holdfast.errors import HoldfastError, InputError, NotFoundError, RefusedError
from holdfast.feeds import Completeness, Expectations, Feed, Limits, Reference, Volume
from holdfast.feeds.state_machine import State
from holdfast.records import BatchId, Level
from holdfast.store import Store
from holdfast.store.catalog import batches, recent, snapshots
from holdfast.store.db import events
from holdfast.store.feeds import admissions, quarantine, violations
from holdfast.store.files import data_files, staging
from tests.support import loader
from tests.support.processes import ROOT
from tests.support.queries import read, violations_of, write

DAY_US = 86_400_000_000
EXPECTS = Expectations(
    invalid_rows=Limits(warning=5, error=20, critical=0.5),
    rows=Volume(at_least=200),
    interval="1d",
    completeness=Completeness("8h"),
    sequence="id",
    sequence_gaps=Limits(error=1000, critical=100_000),
)
EXAMPLE = ROOT / "examples" / "flights" / "model.py"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def feed() -> Feed:
    found: Feed = replace(loader.FEED, expects=EXPECTS)
    return found


@pytest.fixture
def load(store: Store, feed: Feed, tmp_path: Path) -> Callable[..., LoadResult]:
    def go(source: Path | pl.DataFrame, batch: str, to: Feed | None = None) -> LoadResult:
        if isinstance(source, pl.DataFrame):
            frame, source = source, tmp_path / f"{batch}.parquet"
            frame.write_parquet(source)
        return ingest(store, to or feed, batch, source, now_us=7)

    return go


def _state(store: Store) -> State | None:
    with store.ledger.read() as connection:
        row = admissions.feed_row(connection, "flights")
    return row.state if row else None


def _reported(store: Store, batch: str) -> list[tuple[str, str, Level, int | None]]:
    with store.ledger.read() as connection:
        rows = violations_of(connection, batch)
    return [(row.check_name, row.subject, row.level, row.epoch) for row in reversed(rows)]


def test_a_good_batch_leaves_its_feed_flowing(
    store: Store, load: Callable[..., LoadResult], delivery: Callable[[int], Path]
) -> None:
    assert load(delivery(0), "d0").violations == ()
    assert load(delivery(1), "d1").violations == ()
    assert _state(store) is State.FLOWING
    with store.ledger.read() as connection:
        assert [event.kind for event in events.since(connection, 0)] == ["batch.published"] * 2


def test_nothing_trains_on_a_suspect_batch_until_it_is_accepted(
    store: Store, load: Callable[..., LoadResult], delivery: Callable[[int], Path]
) -> None:
    load(delivery(0), "d0")
    clean = write(store, snapshots.create, store.root, ["flights"], contract_hash="cc", now_us=8).snapshot
    half = pl.read_parquet(delivery(1)).head(150)
    found = load(half, "d1")
    assert [(each.check, each.level) for each in found.violations] == [("rows", Level.ERROR)]
    assert _state(store) is State.SUSPECT
    load(delivery(2), "d2")
    assert _state(store) is State.SUSPECT
    snapshot = write(store, snapshots.create, store.root, ["flights"], contract_hash="cc", now_us=9).snapshot
    model = runpy.run_path(str(EXAMPLE))["model"]
    with pytest.raises(
        RefusedError, match=r"HF208.*1 suspect batch: flights/d1: 150 rows came.*nothing was trained"
    ):
        train(store, model, snapshot, now_us=10)
    refuse_suspects(store, clean)
    with pytest.raises(NotFoundError, match="HF410"):
        accepting.accept(store, BatchId("flights", "d0"), reason="x", actor="ann", now_us=11)
    done = accepting.accept(store, BatchId("flights", "d1"), reason="a strike", actor="ann", now_us=11)
    assert ([row.check_name for row in done.violations], done.suspect) == (["rows"], ())
    assert _state(store) is State.FLOWING
    refuse_suspects(store, snapshot)
    with store.ledger.read() as connection:
        (event,) = events.newest(connection, kind="batch.accepted")
        kinds = [each.kind for each in events.newest(connection, subject="flights")]
    assert (event.actor, event.explanation.startswith("a strike; accepted: 150 rows")) == ("ann", True)
    assert kinds == ["feed.flowing", "feed.suspect"]


def test_a_refusal_is_over_when_it_was_corrected_or_settled(
    store: Store, feed: Feed, delivery: Callable[[int], Path], tmp_path: Path
) -> None:
    """What stays in `feeds` is what a person still has to do, and `accept` knows the same."""

    def deliver(rows: pl.DataFrame, batch: str, at_us: int) -> None:
        rows.write_parquet(tmp_path / f"{batch}.parquet")
        ingest(store, feed, batch, tmp_path / f"{batch}.parquet", now_us=at_us)

    def standing() -> list[tuple[str, str]]:
        (status,) = of_model(store, [feed], now_us=100)
        return [(row.batch, row.check_name) for row in status.open]

    days = [pl.read_parquet(delivery(day)) for day in range(4)]
    spoilt = pl.when(pl.int_range(300) % 2 == 0).then(9e9).otherwise("delay")
    deliver(days[0], "d0", 10)
    with pytest.raises(RefusedError, match="HF207"):
        deliver(days[1].with_columns(delay=spoilt), "d1", 11)
    with pytest.raises(RefusedError, match="HF207"):
        deliver(days[0].reverse(), "again", 12)
    assert standing() == [("again", "duplicates"), ("d1", "invalid_rows")]
    deliver(days[1], "d1", 13)
    assert standing() == []
    with pytest.raises(NotFoundError, match="HF410"):
        accepting.accept(store, BatchId("flights", "d1"), reason="x", actor="ann", now_us=14)
    with pytest.raises(RefusedError, match="HF207"):
        deliver(days[2].with_columns(delay=spoilt), "d2-wrong", 15)
    deliver(days[2], "d2", 16)
    with pytest.raises(RefusedError, match="HF207"):
        deliver(days[3].with_columns(delay=spoilt), "d3", 17)
    with pytest.raises(RefusedError, match="HF207"):
        deliver(days[3].with_columns(delay=9e9 + pl.int_range(300)).vstack(days[3]), "d3", 18)
    assert [batch for batch, _ in standing()] == ["d3", "d2-wrong"]
    assert _state(store) is State.REFUSING
    done = accepting.accept(
        store, BatchId("flights", "d2-wrong"), reason="sent as d2", actor="ann", now_us=19
    )
    assert [row.epoch for row in done.violations] == [None]
    assert _state(store) is State.REFUSING
    accepting.accept(store, BatchId("flights", "d3"), reason="will not come", actor="ann", now_us=20)
    assert (standing(), _state(store)) == ([], State.FLOWING)
    assert [each.batch for each in read(store, recent.loaded, limit=9).rows] == ["d2", "d1", "d0"]


def test_a_load_with_warnings_does_not_report_that_it_met_all(
    store: Store, load: Callable[..., LoadResult], delivery: Callable[[int], Path], feed: Feed
) -> None:
    load(delivery(0), "d0")
    with pytest.raises(RefusedError, match="HF204"):
        load(pl.read_parquet(delivery(1)).with_columns(delay=9e9 + pl.int_range(300)), "d1")
    lenient = replace(feed, expects=Expectations(invalid_rows=Limits(warning=0.001)))
    assert [each.level for each in load(delivery(1), "d1", lenient).violations] == [Level.WARNING]
    (status,) = of_model(store, [feed], now_us=100)
    assert status.state is State.FLOWING
    assert status.reason.startswith("batch d1: nothing but warnings: ")


def test_a_critical_break_is_refused_before_anything_is_visible(
    store: Store, load: Callable[..., LoadResult], delivery: Callable[[int], Path]
) -> None:
    load(delivery(0), "d0")
    rows = pl.read_parquet(delivery(1))
    for _ in range(3):
        with pytest.raises(
            RefusedError, match=r"HF207.*the budget is 150.*nothing was loaded.*the id is free"
        ):
            load(
                rows.with_columns(delay=pl.when(pl.int_range(300) % 2 == 0).then(9e9).otherwise("delay")),
                "d1",
            )
    assert _reported(store, "d1") == [("invalid_rows", "", Level.CRITICAL, None)]
    assert _state(store) is State.REFUSING
    assert len(list((store.root / "rows").iterdir())) == 2  # the good batch and its quarantine
    assert verify(store).clean
    assert load(delivery(1), "d1").state == "loaded"
    assert _state(store) is State.FLOWING


def test_changed_columns_stop_the_load_and_are_named(
    store: Store, load: Callable[..., LoadResult], delivery: Callable[[int], Path]
) -> None:
    """R41: nothing of it is visible, and the likely new name is reported."""
    rows = pl.read_parquet(delivery(0))
    with pytest.raises(InputError, match=r"HF202.*missing: delay.*it is probably 'dep_delay' now"):
        load(rows.rename({"delay": "dep_delay"}), "d0")
    assert _reported(store, "d0") == [("schema", "delay", Level.CRITICAL, None)]
    assert _state(store) is State.REFUSING
    with store.ledger.read() as connection:
        assert batches.current_version(connection) == 0


def test_the_sender_s_count_must_be_met(
    store: Store, feed: Feed, delivery: Callable[[int], Path], tmp_path: Path
) -> None:
    path = delivery(0)
    control = path.with_name(path.name + ".count")
    for written, code in (("301", "HF207"), ('{"rows": 299}', "HF207"), ("many", "HF201")):
        control.write_text(written)
        with pytest.raises(HoldfastError) as refused:
            ingest(store, feed, "d0", path, now_us=7)
        assert refused.value.code == code
    control.write_text('{"rows": 300}')
    assert ingest(store, feed, "d0", path, now_us=7).rows_received == 300
    again = tmp_path / "again.parquet"
    again.write_bytes(delivery(1).read_bytes())
    with pytest.raises(RefusedError, match=r"HF207.*300 rows came and the sender declared 600"):
        ingest(store, feed, "d1", again, now_us=7, rows_expected=600)


def test_gaps_between_batches_are_found_in_time_and_in_numbers(
    store: Store, load: Callable[..., LoadResult], delivery: Callable[[int], Path]
) -> None:
    load(delivery(0), "d0")
    found = load(delivery(4), "d4").violations
    assert [(each.check, each.subject, each.observed) for each in found] == [
        ("missing_batches", "", 3),
        ("sequence_gaps", "id", 3701),
    ]
    assert found[0].explanation.startswith(
        "about 3 batches are missing: the events before end at 2013-01-01 19:56:00Z"
    )


def test_a_number_is_missing_only_if_no_loaded_batch_below_has_it(
    store: Store, load: Callable[..., LoadResult], feed: Feed, delivery: Callable[[int], Path]
) -> None:
    counting = replace(feed, expects=Expectations(sequence="id", sequence_gaps=Limits(error=702)))
    for day in range(3):
        assert load(delivery(day), f"d{day}", counting).violations == ()
    execute_backout(store, [counting], BatchId("flights", "d0"), reason="wrong", actor="ann", now_us=7)
    corrected = pl.read_parquet(delivery(0)).with_columns(delay=pl.col("delay").clip(0, 5))
    assert load(corrected, "d0", counting).violations == ()
    assert load(delivery(3), "d3", counting).violations == ()


def test_what_comes_late_ends_what_was_reported_to_be_missing(
    store: Store, load: Callable[..., LoadResult], feed: Feed, delivery: Callable[[int], Path]
) -> None:
    expects = Expectations(interval="1d", sequence="id", sequence_gaps=Limits(error=702))
    dated = replace(feed, expects=expects)
    load(delivery(0), "d0", dated)
    assert [each.check for each in load(delivery(3), "d3", dated).violations] == [
        "missing_batches",
        "sequence_gaps",
    ]
    load(delivery(1), "d1", dated)
    assert _state(store) is State.SUSPECT, "d2 is missing still"
    assert load(delivery(2), "d2", dated).violations == ()
    assert _state(store) is State.FLOWING
    with store.ledger.read() as connection:
        found = events.newest(connection, kind="violation.withdrawn", subject="flights/d3")
        assert violations.suspect_batches(connection, "flights") == []
        accepted = {row.accepted_by for row in violations_of(connection, "d3")}
    assert [event.explanation.partition(";")[0] for event in found] == [
        "batch d2 came and nothing is missing any more"
    ] * 2
    assert accepted == {"holdfast"}


def test_a_feed_that_refuses_again_after_a_good_batch_is_refusing(
    store: Store, load: Callable[..., LoadResult], delivery: Callable[[int], Path]
) -> None:
    bad = pl.read_parquet(delivery(1)).with_columns(delay=pl.lit(9e9))
    for good in (0, 2):
        with pytest.raises(HoldfastError):
            load(bad, "d1")
        assert _state(store) is State.REFUSING
        load(delivery(good), f"d{good}")
        assert _state(store) is not State.REFUSING
    with pytest.raises(HoldfastError):
        load(bad, "d1")
    with store.ledger.read() as connection:
        assert len(events.newest(connection, kind="batch.refused", subject="flights/d1")) == 1


def test_the_same_rows_in_another_form_are_refused(
    store: Store, load: Callable[..., LoadResult], delivery: Callable[[int], Path]
) -> None:
    load(delivery(0), "d0")
    shuffled = pl.read_parquet(delivery(0)).sample(fraction=1, shuffle=True, seed=3)
    with pytest.raises(RefusedError, match=r"HF207.*299 rows are those of batch d0"):
        load(shuffled, "d1")
    assert _reported(store, "d1") == [("duplicates", "d0", Level.CRITICAL, None)]


def test_values_that_stand_in_no_other_feed_are_quarantined(
    store: Store, load: Callable[..., LoadResult], feed: Feed, delivery: Callable[[int], Path]
) -> None:
    known = replace(feed, name="known", expects=Expectations())
    expects = Expectations(
        references=(Reference("origin", "known", "origin"),), invalid_rows=Limits(error=100)
    )
    referring = replace(feed, expects=expects)
    rows = pl.read_parquet(delivery(0))
    lonely = load(rows.with_columns(id=pl.col("id") + 5000), "alone", referring)
    assert [(each.check, each.subject, each.level) for each in lonely.violations] == [
        ("reference", "origin", Level.ERROR)
    ]
    load(rows.filter(origin="JFK"), "j", known)
    found = load(delivery(1), "d1", referring)
    assert found.reasons == {"delay|range": 1, "origin|reference": 149}
    assert (found.rows_loaded, [each.check for each in found.violations]) == (150, ["invalid_rows"])
    held = quarantine.read(store, "flights", "d1")
    assert held["_batch"].unique().to_list() == ["d1"]
    assert sorted(map(tuple, held["_reasons"].to_list()))[0] == ("delay|range",)
    assert held.filter(pl.col("origin") == "EWR").height == 150
    assert quarantine.read(store, "flights").height == held.height + 1
    with pytest.raises(NotFoundError, match="HF303"):
        quarantine.read(store, "flights", "never")


def test_a_check_reports_what_a_load_would_do_and_does_nothing(
    store: Store, load: Callable[..., LoadResult], feed: Feed, delivery: Callable[[int], Path], tmp_path: Path
) -> None:
    load(delivery(0), "d0")
    before = sorted(path.name for path in (store.root / "rows").iterdir())
    path = tmp_path / "half.parquet"
    pl.read_parquet(delivery(1)).head(150).write_parquet(path)
    found = check(store, feed, DeliverySpec("d1", path), now_us=7)
    assert (found.rows, found.valid, found.level, found.refusal) == (150, 149, Level.ERROR, None)
    assert check(store, feed, DeliverySpec("d0", delivery(0)), now_us=7).already_loaded
    refused = check(store, feed, DeliverySpec("d2", delivery(2), 1), now_us=7)
    assert (refused.refusal and refused.refusal.code, _reported(store, "d2")) == ("HF207", [])
    assert sorted(path.name for path in (store.root / "rows").iterdir()) == before
    assert (_state(store), _reported(store, "d1")) == (State.FLOWING, [])
    assert load(path, "d1").violations == found.violations


def test_prepared_elsewhere_and_published_here_is_the_same_bit_for_bit(
    feed: Feed, delivery: Callable[[int], Path], tmp_path: Path
) -> None:
    """Two stores, one loaded as a whole and one in two halves: with the same ids of attempts the ledgers are equal."""
    contents = []
    for turn in range(2):
        store = Store.open(tmp_path / f"store-{turn}")
        ids = (f"{number:032x}" for number in itertools.count())
        for day in range(3):
            if turn:
                with staging.staged(store.root, next(ids)) as stage:
                    staged = prepare(store, feed, DeliverySpec(f"d{day}", delivery(day)), stage)
                    assert isinstance(staged, StagedBatch)
                    result = publish(store, feed, staged.without_rows(), begun_at_us=7, clock_us=lambda: 7)
                assert isinstance(result, LoadResult)
                assert result.state == "loaded"
            else:
                ingest(store, feed, f"d{day}", delivery(day), now_us=7, attempts=ids)
        with store.ledger.engine.connect() as connection:
            tables = (
                "batches",
                "files",
                "file_row_groups",
                "admissions",
                "violations",
                "feeds",
                "events",
                "contracts",
            )
            contents.append([connection.exec_driver_sql(f"SELECT * FROM {name}").all() for name in tables])
        assert verify(store).clean
    assert contents[0] == contents[1]


def test_the_status_of_a_feed_reports_what_is_overdue_and_wrong(
    store: Store, load: Callable[..., LoadResult], feed: Feed, delivery: Callable[[int], Path]
) -> None:
    load(delivery(0), "d0")
    load(pl.read_parquet(delivery(1)).head(150), "d1")
    (status,) = of_model(store, [feed], now_us=7 + 8 * DAY_US)
    assert (status.state, status.suspect, status.counts) == (
        State.SUSPECT,
        ("d1",),
        {"warning": 0, "error": 1, "critical": 0},
    )
    assert status.overdue_us is not None
    assert 6 * DAY_US < status.overdue_us < 8 * DAY_US
    assert json.dumps(status.reason).startswith('"batch d1: 150 rows came')


def test_an_event_time_after_its_load_hides_no_overdue_batch(
    store: Store, feed: Feed, delivery: Callable[[int], Path], tmp_path: Path
) -> None:
    """One row of 2035 made a feed never overdue, and was its newest event for ten years."""
    plain = replace(feed, expects=Expectations(interval="1d"))
    rows = pl.read_parquet(delivery(0))
    last = rows["at"].max()
    assert isinstance(last, datetime)
    newest_us = int(last.timestamp() * 1e6)
    ingest(store, plain, "d0", delivery(0), now_us=newest_us + 5)
    one = rows.tail(1).with_columns(pl.col("id") + 10_000_000, pl.lit(last.replace(year=2035)).alias("at"))
    one.cast(rows.schema).write_parquet(tmp_path / "ahead.parquet")
    loaded_at_us = newest_us + DAY_US
    ingest(store, plain, "d1", tmp_path / "ahead.parquet", now_us=loaded_at_us)
    (fresh,) = of_model(store, [plain], now_us=loaded_at_us + DAY_US)
    assert fresh.overdue_us is None
    (late,) = of_model(store, [plain], now_us=loaded_at_us + 3 * DAY_US)
    assert late.overdue_us == 2 * DAY_US - plain.expects.grace_us
    assert late.totals is not None
    assert late.totals.newest_event_us == newest_us
    assert late.totals.event_time_ahead_us == int(last.replace(year=2035).timestamp() * 1e6)


def test_rows_that_are_loaded_already_do_not_count_twice(
    store: Store, load: Callable[..., LoadResult], feed: Feed, delivery: Callable[[int], Path], tmp_path: Path
) -> None:
    """A sender sends a file again with a few rows more, under another id."""
    plain = replace(feed, expects=Expectations(invalid_rows=Limits(error=20)))
    rows = pl.read_parquet(delivery(0))
    load(rows.head(280), "run-1", plain)
    found = load(rows, "run-1-retry", plain)
    assert (found.rows_loaded, found.rows_quarantined) == (20, 280)
    assert found.reasons == {"delay|range": 1, "id|loaded": 279}
    assert [(each.check, each.subject, each.level) for each in found.violations] == [
        ("duplicate_keys", "id", Level.WARNING)
    ]
    version = found.table_version
    assert data_files.read_rows(store, version, "flights")["id"].n_unique() == 299
    assert data_files.read_rows(store, version, "flights").height == 299
    assert quarantine.read(store, "flights", "run-1-retry")["_reasons"].to_list().count(["id|loaded"]) == 279
    with pytest.raises(
        RefusedError, match=r"HF207.*its 298 rows are those of batches run-1, run-1-retry, by their id"
    ):
        load(rows.tail(299), "run-1-again", plain)
    changed = rows.tail(299).with_columns(origin=pl.lit("LGA"))
    with pytest.raises(RefusedError, match=r"by their id; 298 of them have other values"):
        load(changed, "run-1-other", plain)
    execute_backout(store, [plain], BatchId("flights", "run-1"), reason="wrong", actor="ann", now_us=7)
    assert load(rows.head(280), "run-1-anew", plain).rows_loaded == 279
    assert verify(store).clean
    twice = replace(feed, expects=Expectations(duplicate_keys=None))
    assert load(rows.tail(100), "update", twice).rows_loaded == 100


def test_a_load_that_is_overtaken_by_its_own_rows_sees_them(
    store: Store,
    load: Callable[..., LoadResult],
    feed: Feed,
    delivery: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two loads of the same rows, in other bytes and under other ids: the second one comes in between the look and the
    transaction of the first. With and without a look at keys, and with a part of the rows."""
    rows = pl.read_parquet(delivery(0))
    committing = loading.commit
    for number, (expects, other) in enumerate(
        [
            (Expectations(), rows.reverse()),
            (Expectations(duplicate_keys=None), rows.reverse()),
            (Expectations(), rows.head(100)),
        ]
    ):
        plain = replace(feed, name=f"flights{number}", expects=expects)
        inner: list[str] = []

        def between(
            *given: Any, _inner: list[str] = inner, _to: Feed = plain, _rows: Any = other, **named: Any
        ) -> Any:
            if not _inner:
                _inner.append("begun")
                _inner.append(load(_rows, "second", _to).state)
            return committing(*given, **named)

        monkeypatch.setattr(loading, "commit", between)
        if other.height == rows.height:
            with pytest.raises(RefusedError, match=r"HF207.*299 rows are those of batch second"):
                load(rows, "first", plain)
        else:
            assert load(rows, "first", plain).reasons == {"delay|range": 1, "id|loaded": 99}
        monkeypatch.setattr(loading, "commit", committing)
        assert inner == ["begun", "loaded"]
        with store.ledger.read() as connection:
            version = batches.current_version(connection)
        loaded = data_files.read_rows(store, version, plain.name)
        assert (loaded.height, loaded["id"].n_unique()) == (299, 299)
    assert verify(store).clean
