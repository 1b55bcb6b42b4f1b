"""The load of a row gives its batch and its source: weights, caps and discards by them, recomputed from the raw files (R54)."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    LogisticRegression,
    Model,
    Number,
    Ordinal,
    Passthrough,
    Quota,
    Selection,
    Source,
    Timestamp,
    Weights,
    col,
)
from holdfast.control.backout.backout import execute_backout
from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.compact import compact
from holdfast.control.maintenance.rebuild_ledger import rebuild
from holdfast.control.training.examples import Examples, choose, read_examples, split_days
from holdfast.control.training.train import train
from holdfast.errors import InputError, RefusedError
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import selections, snapshots
from holdfast.store.files import data_files
from tests.support.profile import examples
from tests.support.project import run_here
from tests.support.queries import read, write

NOW_US = 1_380_000_000_000_000
START = datetime(2013, 9, 1, tzinfo=UTC)
CONTRACT = Contract(
    Integer("id"),
    Category("site", values=("north", "south")),
    Number("size", unit="1", low=0, high=100),
    Timestamp("at", tz="UTC"),
    key="id",
    event_time="at",
    label=Label("bought", delay="1h"),
)
VISITS = Feed("visits", CONTRACT)
NAMED = (Source("acme", "acme-*"), Source("bolt", ("*/bolt/*", "b?lt-*")))


def model(selection: Selection, **more: Any) -> Model:
    return Model(
        "shop",
        examples=VISITS,
        feeds=(VISITS,),
        contract=CONTRACT,
        features=(Passthrough("size"), Ordinal("site")),
        learner=LogisticRegression(),
        heuristic=GroupMean(by=(Ordinal("site"),)),
        holdout="1d",
        selection=selection,
        **more,
    )


@dataclass
class World:
    """A store, and what a person with the raw files knows of it."""

    store: Store
    directory: Path
    live: dict[str, tuple[str, pl.DataFrame]] = field(default_factory=dict)
    """By batch: the name of the file that it was read from, and all its rows."""
    ids: Any = field(default_factory=lambda: count(1))
    files: Any = field(default_factory=count)

    def load(self, batch: str, file: str, rows: int, bad: int = 0, *, day: int = 0) -> None:
        ids = [next(self.ids) for _ in range(rows)]
        frame = pl.DataFrame(
            {
                "id": ids,
                "site": ["north" if number % 3 else "south" for number in ids],
                "size": [500.0 if place < bad else float(number % 90) for place, number in enumerate(ids)],
                "at": [START + timedelta(days=day, seconds=40 * number) for number in ids],
                "bought": [number % 2 == 0 for number in ids],
            }
        )
        place = self.directory / str(next(self.files)) / file
        place.parent.mkdir(parents=True)
        frame.write_parquet(place)
        ingest(self.store, VISITS, batch, place, now_us=NOW_US)
        self.live[batch] = (file, frame)

    def backout(self, batch: str) -> None:
        execute_backout(
            self.store, [VISITS], BatchId("visits", batch), reason="wrong", actor="ann", now_us=NOW_US
        )
        del self.live[batch]

    def snapshot(self) -> str:
        made = write(
            self.store, snapshots.create, self.store.root, ["visits"], contract_hash="c", now_us=NOW_US
        )
        return made.snapshot

    def source(self, batch: str, sources: tuple[Source, ...]) -> str:
        file, _ = self.live[batch]
        for source in sources:
            if any(fnmatchcase(text, pattern) for pattern in source.loads for text in (batch, file)):
                return source.name
        return file

    def rows(self, sources: tuple[Source, ...]) -> pl.DataFrame:
        """Every row of every live file, the invalid ones too, with its batch and source."""
        return pl.concat(
            frame.with_columns(_batch=pl.lit(batch), _source=pl.lit(self.source(batch, sources)))
            for batch, (_, frame) in self.live.items()
        )


def rank(number: int, seed: int) -> bytes:
    return hashlib.blake2b(
        str(number).encode(), digest_size=8, salt=seed.to_bytes(16, "big", signed=True)
    ).digest()


def chosen_by_hand(
    rows: pl.DataFrame, by: str, most: int, factors: dict[str, float], seed: int
) -> dict[int, float]:
    """The weight of each row that a cap keeps, by id: what a person computes of the raw files."""
    valid = [row for row in rows.iter_rows(named=True) if row["size"] <= 100]
    kept: list[dict[str, Any]] = []
    for value in {row[by] for row in valid}:
        kept += sorted((row for row in valid if row[by] == value), key=lambda row: rank(row["id"], seed))[
            :most
        ]
    weights = {row["id"]: factors.get(row["_source"], 1.0) for row in kept}
    mean = sum(weights.values()) / len(weights)
    return {number: weight / mean for number, weight in weights.items()}


def steps() -> st.SearchStrategy[list[tuple[str, int]]]:
    kinds = st.sampled_from(["load", "load", "load", "backout", "reload", "compact"])
    return st.lists(st.tuples(kinds, st.integers(0, 999)), min_size=4, max_size=9)


def carry_out(world: World, wanted: list[tuple[str, int]]) -> None:
    world.load("acme-first", "first.parquet", 20, 2)
    for place, (kind, number) in enumerate(wanted):
        batches = sorted(world.live)
        if kind == "load":
            file = ["a.parquet", "b.parquet", f"c-{place}.parquet"][number % 3]
            prefix = ["acme", "bolt", "blt", "other"][number // 3 % 4]
            world.load(f"{prefix}-{place}", file, 8 + number % 30, number % 4)
        elif kind == "compact":
            compact(world.store, now_us=NOW_US)
        elif len(batches) > 1:
            batch = batches[number % len(batches)]
            world.backout(batch)
            if kind == "reload":  # of the same id, from another file
                world.load(batch, f"again-{place}.parquet", 5 + number % 20, number % 3)


@examples(8)
@given(wanted=steps(), cap=st.integers(3, 25), seed=st.integers(0, 3), named=st.booleans())
def test_weights_and_caps_by_source_equal_a_recomputation_from_the_raw_files(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[tuple[str, int]], cap: int, seed: int, named: bool
) -> None:
    directory = tmp_path_factory.mktemp("sources")
    world = World(Store.open(directory / "store"), directory)
    carry_out(world, wanted)
    world.load("newest", "newest.parquet", 10, day=3)  # held out
    sources = NAMED if named else ()
    factors = {"acme": 3.0, "a.parquet": 2.0, "b.parquet": 0.5, "bolt": 0.0}
    selection = Selection(caps=Cap("_source", cap), weights=Weights("_source", factors), sources=sources)
    snapshot = world.snapshot()
    found = of_snapshot(world.store, model(selection), snapshot, seed)
    rows = world.rows(sources).filter(pl.col("_batch") != "newest")
    assert found == pytest.approx(chosen_by_hand(rows, "_source", cap, factors, seed))
    by_batch = Selection(caps=Cap("_batch", cap), weights=Weights("_source", factors), sources=sources)
    again = of_snapshot(world.store, model(by_batch), snapshot, seed)
    assert again == pytest.approx(chosen_by_hand(rows, "_batch", cap, factors, seed))
    # What comes later changes nothing in the snapshot.
    world.backout("acme-first" if "acme-first" in world.live else sorted(world.live)[0])
    compact(world.store, now_us=NOW_US)
    assert of_snapshot(world.store, model(selection), snapshot, seed) == found


def of_snapshot(store: Store, shop: Model, snapshot: str, seed: int) -> dict[int, float]:
    made = read_examples(store, shop, (), snapshot)
    selected = choose(shop, split_days(shop, made.frame).train, made.rejected, seed)
    assert selected.weights is not None
    return dict(zip(selected.frame["id"].to_list(), selected.weights.tolist(), strict=True))


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(Store.open(tmp_path / "store"), tmp_path)
    world.load("acme-1", "monday.parquet", 120, 12)
    world.load("bolt-1", "monday.parquet", 60, 30)
    world.load("acme-2", "tuesday.parquet", 60)
    world.load("newest", "newest.parquet", 30, day=3)
    return world


def test_a_lost_ledger_that_is_made_again_knows_the_sources(world: World, tmp_path: Path) -> None:
    shop = model(Selection(caps=Cap("_source", 40), weights=Weights("_source", {"acme": 3.0}), sources=NAMED))
    compact(world.store, now_us=NOW_US)
    snapshot = world.snapshot()
    before = of_snapshot(world.store, shop, snapshot, 1)
    world.store.ledger.close()
    for file in tmp_path.joinpath("store").glob("ledger.db*"):
        file.unlink()
    rebuild(tmp_path / "store", now_us=NOW_US)
    again = Store.open(tmp_path / "store")
    assert of_snapshot(again, shop, snapshot, 1) == before


def test_rows_that_were_discarded_count_for_their_source(world: World) -> None:
    """Half of what bolt delivered broke the contract at load; of all sources together it is less than a fifth."""
    taken = world.snapshot()

    def train_with(budget: DiscardBudget) -> Examples:
        shop = model(Selection(discard=budget, sources=NAMED))
        made = read_examples(world.store, shop, (), taken)
        choose(shop, split_days(shop, made.frame).train, made.rejected, 0)
        return made

    made = train_with(DiscardBudget(0.2))
    assert Counter(made.rejected["_source"] if "_source" in made.rejected.columns else []) == Counter()
    with pytest.raises(RefusedError, match=r"30 of 60 rows of _source=bolt \(50\.0 %\)"):
        train_with(DiscardBudget(0.2, by="_source"))
    with pytest.raises(RefusedError, match="12 of 120 rows of _batch=acme-1"):
        train_with(DiscardBudget(0.09, by="_batch"))
    made = train_with(DiscardBudget(0.5, by="_source"))
    assert Counter(made.rejected["_source"]) == {"acme": 12, "bolt": 30}


def test_rejected_rows_keep_the_load_of_their_own_when_the_models_key_is_not_the_feeds(world: World) -> None:
    """Sibling: the columns of a selection were those of the first row with the key, although that row was the rejected one."""
    narrow = Contract(
        *(column for column in CONTRACT.columns if column.name in ("id", "site", "at")),
        Number("size", unit="1", low=0, high=50),
        key="site",
        event_time="at",
        label=Label("bought", delay="1h"),
    )
    selection = Selection(discard=DiscardBudget(1.0), filters=Filter("all", ~col("_batch").is_missing()))
    shop = Model(
        "shop", examples=VISITS, feeds=(VISITS,), contract=narrow, features=(Passthrough("size"),),
        learner=LogisticRegression(), heuristic=GroupMean(by=(Ordinal("site"),)), selection=selection,
    )  # fmt: skip
    made = read_examples(world.store, shop, (), world.snapshot())
    batches = {number: batch for batch, (_, frame) in world.live.items() for number in frame["id"].to_list()}
    for frame in (made.frame, made.rejected):
        assert frame["_batch"].to_list() == [batches[number] for number in frame["id"].to_list()]


def test_shares_and_weights_by_source_are_counted_and_kept(world: World) -> None:
    selection = Selection(
        filters=Filter("no_tuesday", col("_batch") != "acme-2"),
        forbidden=Forbidden("robots", col("_source") == "robot"),
        quotas=Quota("_source", 20, otherwise="warn"),
        weights=Weights("_source", {"bolt": 0.5}),
        sources=(*NAMED, Source("cargo", "cargo-*")),
    )
    golden = GoldenQuery(
        "one", {"id": 1, "site": "north", "size": 5.0, "at": START}, between=(0.0, 1.0), owner="tests"
    )
    snapshot = world.snapshot()
    made = train(world.store, model(selection, golden=(golden,)), snapshot, now_us=NOW_US)
    # acme: 108 of its 168 valid rows are left; bolt: 30, each of half the weight.
    weight = 138 / (108 + 15)
    shown = [(each.value, each.found, each.kept, each.weight) for each in made.slices]
    assert shown == [
        ("acme", 168, 108, pytest.approx(108 * weight)),
        ("bolt", 30, 30, pytest.approx(15 * weight)),
    ]
    assert made.warnings == ("_source=cargo has 0 rows; its quota is 20",)
    (kept,) = read(world.store, selections.of_snapshot, snapshot)
    assert kept.slices == made.slices


def test_commands_show_the_share_of_each_source(world: World, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from holdfast import *\n"
        "contract = Contract(Integer('id'), Category('site', values=('north', 'south')),\n"
        "    Number('size', unit='1', low=0, high=100), Timestamp('at', tz='UTC'), key='id', event_time='at',\n"
        "    label=Label('bought', delay='1h'))\n"
        "visits = Feed('visits', contract)\n"
        "model = Model('shop', examples=visits, feeds=(visits,), contract=contract, features=(Passthrough('size'),),\n"
        "    learner=LogisticRegression(), heuristic=GroupMean(by=(Ordinal('site'),)), holdout='1d',\n"
        "    selection=Selection(caps=Cap('_source', 60), weights=Weights('_source', {'acme': 3.0}),\n"
        "                        sources=Source('acme', 'acme-*')))\n"
    )
    snapshot = world.snapshot()
    environment = {"HOLDFAST_ROOT": str(tmp_path / "store"), "COLUMNS": "160", "PATH": os.environ["PATH"]}

    def run(*arguments: str) -> str:
        done = run_here(arguments, tmp_path, environment)
        assert done.status == 0, done
        return done.stdout

    for arguments in (
        ["snapshot", "create"],
        ["train", "--snapshot", snapshot],
        ["snapshot", "show", snapshot],
    ):
        lines = [line.split() for line in run(*arguments).splitlines() if "_source" in line]
        found = [[word for word in line if word not in "│┃"] for line in lines]
        assert [line[:8] for line in found if line[0] == "_source"] == [
            ["_source", "acme", "168", "84.8%", "60", "66.7%", "85.7%", "█" * 11 + "░" * 19],
            ["_source", "monday.parquet", "30", "15.2%", "30", "33.3%", "14.3%", "█" * 5],
        ]
    document = json.loads(run("train", "--snapshot", snapshot, "--json"))
    assert [(each["value"], each["kept"]) for each in document["slices"]] == [
        ("acme", 60),
        ("monday.parquet", 30),
    ]


def test_reading_rows_gives_metadata_columns_alone_and_next_to_others(world: World) -> None:
    version = 4
    alone = data_files.read_rows(world.store, version, "visits", ["_source"])
    both = data_files.read_rows(world.store, version, "visits", ["id", "_batch", "_source"])
    assert alone["_source"].to_list() == both["_source"].to_list()
    assert both.columns == ["id", "_batch", "_source"]
    assert data_files.read_rows(world.store, version, "visits").columns == list(CONTRACT.names)
    assert np.unique(both["_batch"]).tolist() == ["acme-1", "acme-2", "bolt-1", "newest"]


@pytest.mark.parametrize(
    ("declare", "code"),
    [
        (lambda: Contract(Integer("_source"), Timestamp("at", tz="UTC"), key="_source", event_time="at"), "HF109"),
        (lambda: model(Selection(filters=Filter("big", col("_source") > 3))), "HF107"),
        (lambda: Selection(caps=Cap("_file", 3)), "HF109"),
        (lambda: Selection(sources=(Source("a", "x"), Source("a", "y"))), "HF107"),
        (lambda: Source("a", ()), "HF107"),
        (lambda: Source("a", 3), "HF107"),
        (lambda: Source("a b", "x"), "HF109"),
        (lambda: Selection(sources="acme"), "HF113"),
    ],
)  # fmt: skip
def test_what_no_source_can_be_is_refused(declare: Any, code: str) -> None:
    with pytest.raises(InputError) as refused:
        declare()
    assert refused.value.code == code


def test_the_hash_of_a_selection_without_sources_is_that_of_earlier_releases() -> None:
    selection = Selection(
        filters=(Filter("no_robots", col("source") != "robot"),),
        caps=(Cap("site", 300),),
        quotas=(Quota("site", 100),),
        weights=(Weights("site", {"south": 3.0}),),
        discard=DiscardBudget(0.1, by="site"),
    )
    assert Selection().hash == "eff000e9fef6d09b489538327470422a8c832a2c9ea41c1933259048d84864dc"
    assert "sources" not in selection.to_json()
    named = Selection(weights=Weights("_source", {"acme": 3.0}), sources=Source("acme", "acme-*"))
    assert json.loads(named.to_json())["sources"] == [["acme", ["acme-*"]]]
