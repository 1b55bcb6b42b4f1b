"""The file of affected predictions, and the cost that is kept with a back-out (R10)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from holdfast.control.backout.affected_predictions import COLUMNS, write_affected
from holdfast.control.backout.backout import execute_backout
from holdfast.control.maintenance import vacuum
from holdfast.errors import ConflictError
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.backout import backouts
from holdfast.store.files import staging
from holdfast.store.telemetry import collected_log, replaced_files
from holdfast.store.telemetry.collected_log import PREDICTIONS, Position
from holdfast.tables.backout import AffectedPredictions, BackoutPlan, ListPredictions, total_impact
from tests.support import backout_world, serving_world

FIRST_US, LAST_US = 1_700_000_000_000_000, 1_700_000_060_000_000


def collect(
    store: Store, segment: int, rows: list[tuple[str, int, str]], inputs: Sequence[object] = (1,)
) -> Path:
    """Store predictions (id, time, version) as the control loop does; return the file."""
    frame = pl.DataFrame(
        {
            "prediction": [name for name, _, _ in rows],
            "at_us": [at_us for _, at_us, _ in rows],
            "version": [version for _, _, version in rows],
            "probability": [0.5] * len(rows),
            "inputs": [json.dumps(list(inputs))] * len(rows),
        }
    )
    missing = {name: kind for name, kind in PREDICTIONS.schema.items() if name not in frame.columns}
    frame = frame.with_columns(pl.lit(None, dtype=kind).alias(name) for name, kind in missing.items())
    with staging.staged(store.root, f"{segment:032x}") as stage:
        file = collected_log.write(
            stage,
            PREDICTIONS,
            frame.select(PREDICTIONS.schema.names()),
            model="m",
            server="s1",
            segment=segment,
            numbers=(1, len(rows)),
        )
        stage.sync()
        with store.ledger.write() as connection:
            position = Position("s1", segment, 0)
            collected_log.advance(connection, position, 9, predictions=len(rows), feedback=0)
            collected_log.register(connection, PREDICTIONS, file)
    return store.root / file.path


def affected(cause: str, version: str) -> AffectedPredictions:
    """What a plan lists of one version."""
    return AffectedPredictions("m", version, cause, 1, 1, FIRST_US, LAST_US)


def test_every_affected_prediction_is_in_the_file_and_no_other(tmp_path: Path) -> None:
    """Of a tainted version all; of a clean one those within the time in which it could read the values."""
    store = Store.open(tmp_path / "store")
    collect(store, 1, [("s1-1-1/0", FIRST_US, "bad"), ("s1-1-2/0", FIRST_US, "other")])
    late = [("s1-2-1/0", LAST_US + 9, "bad"), ("s1-2-2/0", LAST_US, "clean"), ("s1-2-3/0", FIRST_US, "clean")]
    collect(store, 2, late)
    steps = (ListPredictions((affected("version", "bad"), affected("online", "clean"))),)
    file = tmp_path / "affected.csv"
    written = write_affected(store, BackoutPlan("alone", "h1", steps), file)
    rows = pl.read_csv(file)
    assert rows.columns == list(COLUMNS)
    assert rows.select("prediction_id", "version", "cause").rows() == [
        ("s1-1-1/0", "bad", "version"),
        ("s1-2-1/0", "bad", "version"),
        ("s1-2-3/0", "clean", "online"),
    ]
    assert rows["predicted_at"][0] == "2023-11-14T22:13:20.000000Z"
    assert (written.rows, written.damaged) == (3, ())


def test_each_prediction_has_the_key_by_which_its_caller_knows_it(tmp_path: Path) -> None:
    world = serving_world.World(tmp_path / "store")
    version = world.version("half")
    given = serving_world.row(flight_id="F77")
    inputs = [given[column.name] for column in serving_world.CONTRACT.request_columns]
    collect(world.store, 1, [("s1-1-1/0", FIRST_US, version), ("s1-1-2/0", FIRST_US, "unknown")], inputs)
    steps = (ListPredictions((affected("version", version), affected("version", "unknown"))),)
    file = tmp_path / "affected.csv"
    plan = BackoutPlan("alone", "h1", steps)
    write_affected(world.store, plan, file, model="m", contract=serving_world.CONTRACT)
    rows = pl.read_csv(file)
    assert rows.columns == [*COLUMNS, *serving_world.CONTRACT.key]
    assert sorted(rows.select("prediction_id", *serving_world.CONTRACT.key).rows()) == [
        ("s1-1-1/0", "F77"),
        ("s1-1-2/0", None),  # of a version whose file is gone
    ]
    write_affected(world.store, plan, file, model="another", contract=serving_world.CONTRACT)
    assert pl.read_csv(file)["flight_id"].null_count() == 2


def test_a_damaged_file_is_named_and_the_others_are_written(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    collect(store, 1, [("s1-1-1/0", FIRST_US, "bad")])
    broken = collect(store, 2, [("s1-2-1/0", FIRST_US, "bad")])
    broken.write_bytes(b"no Parquet")
    steps = (ListPredictions((affected("version", "bad"),)),)
    written = write_affected(store, BackoutPlan("alone", "h1", steps), tmp_path / "affected.csv")
    assert (written.rows, written.damaged) == (1, (str(broken.relative_to(store.root)),))


def test_files_that_are_replaced_while_it_reads_are_read_and_expired_ones_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No prediction is missing without a word: the control loop merges files at any time."""
    store = Store.open(tmp_path / "store")
    for segment in (1, 2):
        path = collect(store, segment, [(f"s1-{segment}-1/0", FIRST_US, "bad")])
    steps = (ListPredictions((affected("version", "bad"),)),)
    plan, file = BackoutPlan("alone", "h1", steps), tmp_path / "affected.csv"
    really = collected_log.read_file

    def meanwhile(*arguments: Any) -> Any:
        frame = really(*arguments)
        if path.exists():
            replaced_files.set_aside(store.root, [str(path.relative_to(store.root))], now_us=LAST_US)
        return frame

    monkeypatch.setattr(collected_log, "read_file", meanwhile)
    assert write_affected(store, plan, file).rows == 2
    before = file.read_bytes()

    def expired(*arguments: Any) -> Any:
        frame = really(*arguments)
        vacuum.expire(store, vacuum.plan_expiry(store, now_us=10**17) | {"replaced": []}, now_us=10**17)
        for each in store.root.glob("replaced/*"):
            each.unlink()
        return frame

    monkeypatch.setattr(collected_log, "read_file", expired)
    with pytest.raises(ConflictError, match=r"HF304.*was deleted by another process"):
        write_affected(store, plan, file)
    assert file.read_bytes() == before
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize("stated", ["with the request", "afterwards"])
def test_the_cost_is_kept_with_the_execute(tmp_path: Path, stated: str) -> None:
    store = Store.open(tmp_path / "store")
    backout_world.load(store, tmp_path, backout_world.ALONE, 1)

    def execute(cost: float | None) -> BackoutPlan:
        done = execute_backout(
            store,
            backout_world.FEEDS,
            BatchId("alone", "h1"),
            reason="why",
            actor="ann",
            now_us=backout_world.NOW_US,
            cost_per_prediction=cost,
        )
        return done.plan

    if stated == "afterwards":
        assert execute(None).cost_per_prediction is None
    execute(2.5)
    with store.ledger.read() as connection:
        row = backouts.newest_of(connection, "alone", "h1")
    assert row is not None
    assert row.plan.cost_per_prediction == 2.5
    assert execute(None).cost_per_prediction == 2.5  # a second request states no other cost
    assert BackoutPlan.from_json(row.plan.to_json()) == row.plan
    priced = replace(row.plan, steps=(ListPredictions((affected("version", "bad"),)),))
    assert total_impact(priced).cost == 2.5
