"""A back-out taints the versions that used the removed rows, and states which use that was (R7)."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import delete

from holdfast.contract import col
from holdfast.control.backout.backout import execute_backout, plan_backout
from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.verify import verify
from holdfast.control.reports.status import status
from holdfast.control.training.train import Trained, train
from holdfast.declaration import Model
from holdfast.errors import RefusedError
from holdfast.features import Aggregate
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.catalog import snapshots
from holdfast.store.db import events, schema
from holdfast.tables.backout import KeepVersions, TaintVersions, explain
from holdfast.tables.row_use import RowUse
from holdfast.tables.selection import Cap, Filter, Selection
from tests.control.training.test_label_delay import DELAY_DAYS, MODEL, ROWS, START, micros
from tests.support.queries import write

HOLDOUT_DAYS = 5
Row = tuple[str, float, datetime, bool | None]


class World:
    """Batches of rows whose times overlap, and one training of them all."""

    def __init__(self, directory: Path, batches: dict[str, list[Row]], model: Model) -> None:
        self.store, self.batches, self.model = Store.open(directory / "store"), batches, model
        self.directory, self.now = directory, START + timedelta(days=30)
        for name in batches:
            self.load(name)

    def load(self, name: str) -> None:
        path = self.directory / f"{name}.parquet"
        columns = ("id", "income", "at", "default")
        rows = self.batches[name]
        kinds = {"id": pl.String, "income": pl.Float64, "at": pl.Datetime("us", "UTC"), "default": pl.Boolean}
        pl.DataFrame(
            {c: [row[n] for row in rows] for n, c in enumerate(columns)}, schema=kinds
        ).write_parquet(path)
        ingest(self.store, ROWS, name, path, now_us=1)

    def train(self) -> Trained:
        now_us = micros(self.now)
        taken = write(
            self.store, snapshots.create, self.store.root, ["loans"], contract_hash=MODEL.contract.hash, now_us=now_us
        )  # fmt: skip
        return train(self.store, self.model, taken.snapshot, now_us=now_us)

    def planned(self, batch: str) -> dict[str, RowUse]:
        """What a plan to back `batch` out states of each version."""
        steps = plan_backout(self.store, (ROWS,), BatchId("loans", batch)).steps
        found = {}
        for step in steps:
            if isinstance(step, TaintVersions):
                found |= dict.fromkeys(step.versions, RowUse.TRAINED)
                found |= dict.fromkeys(step.evaluated, RowUse.EVALUATED)
            elif isinstance(step, KeepVersions):
                found |= dict.fromkeys(step.versions, RowUse.UNUSED)
        return found

    def execute(self, batch: str) -> None:
        execute_backout(
            self.store, (ROWS,), BatchId("loans", batch), reason="wrong", actor="ann", now_us=micros(self.now)
        )


def make_batches(seed: int, batches: int = 12) -> dict[str, list[Row]]:
    """Batches within 30 days, some of whose rows have no label; most hold few days, one holds all."""
    rng = random.Random(seed)
    found = {}
    for number in range(batches):
        begin, span = (0, 30) if number == 0 else (rng.uniform(0, 30), rng.choice([0.5, 2, 6]))
        rows = 300 if number == 0 else rng.randint(1, 6)
        found[f"b{number}"] = [
            (
                f"{number}-{row}",
                float(rng.randint(0, 99)),
                START + timedelta(days=min(29.9, begin + rng.uniform(0, span))),
                None if rng.random() < 0.2 else rng.random() < 0.5,
            )
            for row in range(rows)
        ]
    return found


def use_by_hand(
    batches: dict[str, list[Row]], now: datetime, most_income: float, *, with_caps: bool
) -> dict[str, RowUse]:
    """The use of each batch, row by row, from the words of the documentation."""
    due = [
        (name, row)
        for name, rows in batches.items()
        for row in rows
        if row[3] is not None and row[2] + timedelta(days=DELAY_DAYS) <= now
    ]
    newest = max(row[2] for _, row in due)
    midnight = newest.replace(hour=0, minute=0, second=0, microsecond=0)
    split = midnight - timedelta(days=HOLDOUT_DAYS - 1)
    held_out = {name for name, row in due if row[2] >= split}
    before = [(name, row) for name, row in due if row[2] < split - timedelta(days=DELAY_DAYS)]
    trained = {name for name, row in before if with_caps or row[1] <= most_income}
    return {
        name: RowUse.TRAINED if name in trained else RowUse.EVALUATED if name in held_out else RowUse.UNUSED
        for name in batches
    }


@pytest.mark.parametrize("seed", range(6))
def test_what_is_stated_of_a_version_is_what_it_did_with_the_rows(tmp_path: Path, seed: int) -> None:
    filters = (Filter("small", col("income") <= 60),) if seed % 2 else ()
    selection = Selection(filters=filters, caps=(Cap("id", 1),) if seed % 3 == 2 else ())
    batches = make_batches(seed)
    world = World(tmp_path, batches, replace(MODEL, selection=selection))
    trained = world.train()
    expected = use_by_hand(batches, world.now, 60 if filters else 99, with_caps=bool(selection.caps))
    both = (trained.version, trained.heuristic)
    assert {name: world.planned(name) for name in batches} == {
        name: dict.fromkeys(both, use) for name, use in expected.items()
    }
    assert {RowUse.TRAINED, RowUse.UNUSED} <= set(expected.values()), "the case is worth its time"
    unused = [name for name, use in expected.items() if use is RowUse.UNUSED]
    for name in unused:
        world.execute(name)
    again = world.train()
    assert (again.version, again.is_new) == (trained.version, False), "without these rows it is the same"
    assert [each.subject for each in verify(world.store, now_us=micros(world.now)).findings] == []


@pytest.fixture
def three(tmp_path: Path) -> World:
    """A batch that is trained on, one that is held out, and one that is not due."""
    rows = {"trained": range(15), "held-out": range(21, 26), "undue": range(27, 29)}
    return World(
        tmp_path,
        {
            name: [
                (f"{day}-{n}", float(day * 7 % 100), START + timedelta(days=day, hours=n), n % 2 == 0)
                for day in days
                for n in range(4)
            ]
            for name, days in rows.items()
        },
        MODEL,
    )


def test_each_use_has_its_words_in_plan_event_status_and_refusal(three: World) -> None:
    version = three.train().version
    three.execute("undue")
    with three.store.ledger.read() as connection:
        assert taints.why(connection, "version", version) == ""
        taints.refuse(connection, "version", version)
        (event,) = events.newest(connection, kind="batch.backed_out", limit=5)
        assert "8 rows removed, 1 snapshot and 0 versions tainted, 2 versions kept" in event.explanation
    [line] = [
        each
        for each in explain(plan_backout(three.store, (ROWS,), BatchId("loans", "held-out")).steps)
        if each.startswith("taint 2 versions")
    ]
    assert "trained on no removed row, only evaluated on some: v1-" in line
    three.execute("held-out")
    [found] = [
        each
        for each in status(three.store, MODEL.name, now_us=micros(three.now))["versions"]
        if each["version"] == version
    ]
    words = "it was evaluated on, and not trained on, loans/held-out, which was backed out: wrong"
    assert found["taint"] == words
    with three.store.ledger.read() as connection, pytest.raises(RefusedError, match=f"HF406.*{words}"):
        taints.refuse(connection, "version", version)
    three.execute("trained")
    with three.store.ledger.read() as connection:
        assert taints.why(connection, "version", version).startswith("it was made from loans/trained, ")


def test_what_is_not_known_is_held_for_trained(three: World) -> None:
    """Versions of earlier releases, of aggregates over the rows, and a load that came again."""
    known = three.train()
    three.model = replace(
        MODEL,
        aggregates=(
            Aggregate(
                "recent", over="loans", by="id", value="income", known_at="at", window="1d", every="1h"
            ),
        ),
    )
    aggregated = three.train()
    with three.store.ledger.write() as connection:
        connection.execute(
            delete(schema.untrained_loads).where(schema.untrained_loads.c.version == known.heuristic)
        )
    assert three.planned("undue") == {
        known.version: RowUse.UNUSED,
        known.heuristic: RowUse.TRAINED,
        aggregated.version: RowUse.TRAINED,
        aggregated.heuristic: RowUse.TRAINED,
    }
