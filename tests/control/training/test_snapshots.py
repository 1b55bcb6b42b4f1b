"""A selection from the declaration to the ledger and into the model, and the commands around snapshots."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from holdfast import (
    Cap,
    Category,
    Contract,
    DiscardBudget,
    Feed,
    Filter,
    Forbidden,
    GoldenQuery,
    GroupMean,
    Integer,
    Label,
    LightGBM,
    LogisticRegression,
    Model,
    Number,
    Ordinal,
    Passthrough,
    Quota,
    Selection,
    Timestamp,
    Weights,
    col,
)
from holdfast.cli import app as commands
from holdfast.control.ingest.ingest import ingest
from holdfast.control.training import snapshots as cutting
from holdfast.control.training.train import train
from holdfast.errors import InputError, RefusedError
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.train.artifact import read_metadata
from tests.support.queries import read, write

NOW_US = 1_380_000_000_000_000
COLUMNS = (
    Integer("id"),
    Category("site", values=("north", "south"), unseen="reject"),
    Number("size", unit="1", low=0, high=100),
    Timestamp("at", tz="UTC"),
)
VISITS = Feed(
    "visits",
    Contract(*COLUMNS, Category("source"), key="id", event_time="at", label=Label("bought", delay="1h")),
)


def model(selection: Selection, learner: object = None) -> Model:
    return Model(
        "shop",
        examples=VISITS,
        feeds=(VISITS,),
        contract=Contract(
            *COLUMNS, key="id", event_time="at", label=Label("bought", delay="1h"), slices=("site",)
        ),
        features=(Passthrough("size"), Ordinal("site")),
        learner=learner or LogisticRegression(),  # type: ignore[arg-type]  # a learner or nothing
        heuristic=GroupMean(by=(Ordinal("site"),)),
        holdout="1d",
        selection=selection,
    )


def delivery(directory: Path, day: int, shift: float = 0.0) -> Path:
    draw = np.random.default_rng(day)
    rows = 240
    size = draw.uniform(0, 90, rows) + shift
    robot = np.arange(rows) % 6 == 5
    frame = pl.DataFrame(
        {
            "id": np.arange(rows) + 1000 * day,
            "site": np.where(np.arange(rows) % 4 == 0, "south", "north").tolist(),
            "size": size,
            "at": [
                datetime(2013, 9, 1, tzinfo=UTC) + timedelta(days=day, minutes=6 * n) for n in range(rows)
            ],
            "source": np.where(robot, "robot", "web").tolist(),
            "bought": np.where(robot, True, draw.random(rows) < size / 100),
        }
    )
    path = directory / f"{day}.parquet"
    frame.write_parquet(path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store")
    for day in range(4):
        ingest(store, VISITS, f"d{day}", delivery(tmp_path, day), now_us=NOW_US)
    return store


def pinned(store: Store) -> str:
    return write(store, snapshots.create, store.root, ["visits"], contract_hash="c", now_us=NOW_US).snapshot


CHOSEN = Selection(
    filters=(Filter("no_robots", col("source") != "robot"),),
    caps=(Cap("site", 300),),
    quotas=(Quota("site", 100),),
    weights=(Weights("site", {"south": 3.0}),),
)


def test_training_trains_on_what_was_selected_and_reports_it(store):
    """R29-R31, R39: a column that only the feed has may decide what is trained on, and never reaches the model."""
    snapshot = pinned(store)
    shop = model(CHOSEN)
    made = train(store, shop, snapshot, now_us=NOW_US, seed=5)
    # The hour before the held-out day is in neither: ten rows, one or two of them a robot's.
    assert made.left_out == {"filter:no_robots": 118, "cap:site": 114}
    assert made.rows_trained == 710 - 118 - 114
    assert made.rows_held_out == 240
    row = read(store, versions.get, made.version)
    about = read_metadata(blobs.get(store.root, row.digest))
    assert about.selection_json == CHOSEN.to_json()
    assert about.rows == made.rows_trained
    _, (kept,) = read(store, cutting.show, snapshot)
    assert (kept.seed, kept.rows_total, kept.rows_selected, kept.counts) == (5, 710, 478, made.left_out)
    assert [(each.value, each.found, each.kept) for each in kept.slices] == [
        ("north", 532, 300),
        ("south", 178, 178),
    ]


def test_the_same_snapshot_selection_and_seed_make_the_same_version(store):
    snapshot = pinned(store)
    first = train(store, model(CHOSEN), snapshot, now_us=NOW_US, seed=5)
    assert train(store, model(CHOSEN), snapshot, now_us=NOW_US + 1, seed=5).version == first.version
    assert train(store, model(CHOSEN), snapshot, now_us=NOW_US, seed=6).version != first.version
    assert len(read(store, cutting.show, snapshot)[1]) == 2


@pytest.mark.parametrize("learner", [LogisticRegression(), LightGBM(trees=5, min_rows_per_leaf=20)])
def test_weights_are_given_to_the_learners(store, learner):
    snapshot = pinned(store)
    plain = train(store, model(Selection(), learner), snapshot, now_us=NOW_US)
    heavy = model(Selection(weights=(Weights("source", {"robot": 50.0}),)), learner)
    weighted = train(store, heavy, snapshot, now_us=NOW_US)
    assert weighted.version != plain.version
    assert weighted.heuristic != plain.heuristic


def test_a_forbidden_row_and_a_missed_quota_register_nothing(store):
    snapshot = pinned(store)
    with pytest.raises(RefusedError, match="which is forbidden"):
        train(
            store,
            model(Selection(forbidden=(Forbidden("robots", col("source") == "robot"),))),
            snapshot,
            now_us=NOW_US,
        )
    with pytest.raises(InputError, match="its quota is 500"):
        train(store, model(Selection(quotas=(Quota("site", 500),))), snapshot, now_us=NOW_US)
    assert read(store, cutting.show, snapshot)[1] == []


def test_the_discard_budget_counts_what_the_contract_quarantined_at_load(store, tmp_path):
    """R28: two of five rows of one site broke the contract of the feed when they were loaded, and were gone in silence.

    Repeats of loaded rows, held-out rows and unknown sites are no loss of a slice.
    """
    rows = pl.read_parquet(delivery(tmp_path, 8)).with_columns(pl.col("at") - timedelta(days=9))
    is_lost = (pl.col("site") == "south") & (pl.int_range(240) % 20 < 8)
    bad = rows.with_columns(pl.when(is_lost).then(999.0).otherwise("size").alias("size"))
    path = tmp_path / "bad.csv"
    bad.with_columns(pl.col("at").dt.to_string("%Y-%m-%dT%H:%M:%SZ")).write_csv(path)
    ingest(store, VISITS, "bad", path, now_us=NOW_US)
    repeats = bad.tail(200)
    unknown = rows.head(3).with_columns(pl.col("id") + 500, site=pl.lit("nowhere"))
    held_out = pl.read_parquet(tmp_path / "3.parquet").with_columns(pl.col("id") + 500, size=pl.lit(999.0))
    valid = rows.head(1).with_columns(pl.col("id") + 900)
    path = tmp_path / "again.parquet"
    pl.concat([repeats, unknown, held_out, valid]).write_parquet(path)
    ingest(store, VISITS, "again", path, now_us=NOW_US)
    taken = write(store, snapshots.create, store.root, ["visits"], contract_hash="c", now_us=NOW_US)
    lost, unknown_sites, valid_rows = bad.filter(is_lost).height, 3, 710 + 240 - 24 + 1
    assert lost == 24

    def found(*budgets: DiscardBudget) -> int:
        return cutting.preview(store, model(Selection(discard=budgets)), taken).found

    assert found(DiscardBudget(0.03), DiscardBudget(0.11, by="site")) == valid_rows
    with pytest.raises(RefusedError, match=r"24 of 239 rows of site=south \(10\.0 %\)") as refused:
        found(DiscardBudget(0.09, by="site"))
    assert refused.value.code == "HF405"
    with pytest.raises(
        RefusedError, match=f"{lost + unknown_sites} of {valid_rows + lost + unknown_sites} rows"
    ):
        found(DiscardBudget(0.01))


@pytest.mark.parametrize("at", [datetime(2013, 9, 1, tzinfo=UTC), "2013-09-01T00:00:00Z"])
def test_a_golden_query_that_is_forbidden_is_a_fault_of_the_declaration(at):
    """`train` refused it, or ended in HF901 by the time as text, after `check` had accepted it."""
    row = {"id": 1, "site": "north", "size": 99, "at": at}
    golden = (GoldenQuery("too large to learn from", row, between=(0.0, 1.0), owner="tests"),)
    kept = model(
        Selection(
            forbidden=(Forbidden("huge", col("size") > 99), Forbidden("robots", col("source") == "robot"))
        )
    )
    assert replace(kept, golden=golden).golden == golden
    for rule in (col("size") > 95, col("at") < "2013-09-02T00:00:00Z"):
        shop = model(Selection(forbidden=Forbidden("huge", rule)))
        with pytest.raises(
            InputError, match=r"HF107.*'too large to learn from' is 'huge', which the selection forbids"
        ):
            replace(shop, golden=golden)


def test_two_snapshots_differ_by_what_was_loaded_between(store, tmp_path):
    """R36."""
    before = pinned(store)
    ingest(store, VISITS, "d4", delivery(tmp_path, 4, shift=10.0), now_us=NOW_US)
    ingest(store, VISITS, "d5", delivery(tmp_path, 5, shift=10.0), now_us=NOW_US)
    (change,) = read(store, cutting.diff, before, pinned(store))
    assert (change.rows_before, change.rows_after, change.loads_added) == (960, 1440, 2)
    moved = {column.column: column.effect for column in change.columns}
    assert moved["size"] == pytest.approx(10 / 3 / 26, abs=0.08)
    (same,) = read(store, cutting.diff, before, before)
    assert all(column.stability == 0.0 for column in same.columns)


def test_a_column_whose_bounds_changed_is_named_and_the_others_are_compared(store, tmp_path):
    before = pinned(store)
    wider = tuple(replace(each, high=200) if each.name == "size" else each for each in COLUMNS)
    label = Label("bought", delay="1h")
    visits = Feed("visits", Contract(*wider, Category("source"), key="id", event_time="at", label=label))
    ingest(store, visits, "d4", delivery(tmp_path, 4), now_us=NOW_US)
    (change,) = read(store, cutting.diff, before, pinned(store))
    assert [column for column, _ in change.not_compared] == ["size"]
    assert {"site", "source", "at", "bought"} <= {each.column for each in change.columns}
    assert change.label_after is not None


MODEL_FILE = """
from holdfast import *

columns = (Integer("id"), Category("site", values=("north", "south"), unseen="reject"),
           Number("size", unit="1", low=0, high=100), Timestamp("at", tz="UTC"))
visits = Feed("visits", Contract(*columns, Category("source"), key="id", event_time="at", label=Label("bought", delay="1h")))
model = Model(
    "shop", examples=visits, feeds=(visits,),
    contract=Contract(*columns, key="id", event_time="at", label=Label("bought", delay="1h"), slices=("site",)),
    features=(Passthrough("size"), Ordinal("site")), learner=LogisticRegression(), heuristic=GroupMean(by=(Ordinal("site"),)),
    holdout="1d",
    selection=Selection(filters=(Filter("no_robots", col("source") != "robot"),), caps=(Cap("site", 300),)),
)
"""


def test_the_commands_make_show_and_compare_snapshots(tmp_path, monkeypatch, capsys):
    (tmp_path / "model.py").write_text(MODEL_FILE)

    def run(*arguments: str) -> dict[str, object]:
        monkeypatch.setattr("sys.argv", ["holdfast", *arguments, "--project", str(tmp_path), "--json"])
        with pytest.raises(SystemExit) as left:
            commands.main()
        assert left.value.code == 0
        found = json.loads(capsys.readouterr().out)
        assert isinstance(found, dict)
        return found

    for day in range(3):
        run("ingest", "visits", str(delivery(tmp_path, day)), "--batch", f"d{day}")
    made = run("snapshot", "create")
    assert made["rows_total"] == 470  # the hour before the held-out day is in neither
    assert made["left_out"] == {"cap:site": 0, "filter:no_robots": 78}
    shown = run("snapshot", "show", str(made["snapshot"]))
    assert len(shown["selections"]) == 1  # type: ignore[arg-type]  # plain JSON
    run("ingest", "visits", str(delivery(tmp_path, 3, shift=10.0)), "--batch", "d3")
    other = run("snapshot", "create")
    reported = run("snapshot", "diff", str(made["snapshot"]), str(other["snapshot"]))
    assert reported["tables"][0]["loads_added"] == 1  # type: ignore[index]  # plain JSON
    monkeypatch.setattr(
        "sys.argv", ["holdfast", "snapshot", "show", str(made["snapshot"]), "--project", str(tmp_path)]
    )
    with pytest.raises(SystemExit):
        commands.main()
    assert "█" in capsys.readouterr().out


def test_training_refuses_a_contract_that_ingest_refuses(store, tmp_path):
    """Another unit for rows that are loaded: what `ingest` will not load, `train` does not read under the new name."""
    stated = replace(
        VISITS,
        contract=Contract(
            *(
                Number("size", unit="cm", low=0, high=100) if each.name == "size" else each
                for each in COLUMNS
            ),
            Category("source"),
            key="id",
            event_time="at",
            label=VISITS.contract.label,
        ),
    )
    base = model(Selection())
    columns = (
        Number("size", unit="cm", low=0, high=100) if each.name == "size" else each for each in COLUMNS
    )
    contract = Contract(*columns, key="id", event_time="at", label=base.contract.label, slices=("site",))
    shop = replace(base, examples=stated, feeds=(stated,), contract=contract)
    with pytest.raises(RefusedError, match=r"HF210.*size: unit changed") as by_ingest:
        ingest(store, stated, "d9", delivery(tmp_path, 9), now_us=NOW_US)
    with pytest.raises(RefusedError, match=r"HF210.*size: unit changed") as by_training:
        train(store, shop, pinned(store), now_us=NOW_US)
    assert by_training.value.next_command == by_ingest.value.next_command
    assert by_ingest.value.next_command.startswith(
        "revert size in the declaration, or give what changed a column"
    )
