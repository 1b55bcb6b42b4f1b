"""R25, "map", from a delivery to a prediction: whatever writes a town, the model reads one word."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast import (
    Category,
    Contract,
    Feed,
    GroupMean,
    Label,
    LogisticRegression,
    Model,
    Number,
    Ordinal,
    Passthrough,
    Text,
    Timestamp,
)
from holdfast.control.collect.log_summary import slicer_of
from holdfast.control.collect.outcome_slices import slices_of
from holdfast.control.collect.prediction_keys import key_rows
from holdfast.control.ingest import dry_run
from holdfast.control.ingest.ingest import ingest
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.control.reports.traffic_comparison import _texts
from holdfast.control.training.examples import read_examples
from holdfast.control.training.train import train
from holdfast.feedback import Prediction
from holdfast.records import TrafficPlan
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.data_plane import DataPlane, InferenceCall
from holdfast.serve.inference.loaded_model import load
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.serving.log_directory import segments
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import PredictionRecord
from holdfast.store.serving.prediction_log import read as read_log
from tests.support.queries import read, write

DAY_US = 86_400_000_000
START = datetime(2026, 3, 1, tzinfo=UTC)
NOW_US = int((START + timedelta(days=60)).timestamp() * 1e6)
TOWN = Category(
    "town",
    values=("Bergen", "New York", "Oslo"),
    aliases={"NYC": "New York", "new york": "New York", "OSL": "Oslo"},
)
COLUMNS = (Text("id"), TOWN, Number("size", unit="1"), Timestamp("at", tz="UTC"))


def feed_of(town: Category) -> Feed:
    columns = [town if each.name == "town" else each for each in COLUMNS]
    contract = Contract(
        *columns, key=("id", "town"), event_time="at", label=Label("late", delay="1h"), slices="town"
    )
    return Feed("trips", contract)


def rows(day: int, towns: list[str]) -> list[dict[str, Any]]:
    """Late where it is New York, by any name; the rest by chance."""
    draw = np.random.default_rng(day)
    return [
        {
            "id": f"{day}-{number}",
            "town": town,
            "size": float(draw.integers(1, 9)),
            "at": (START + timedelta(days=day, minutes=number)).isoformat(),
            "late": bool(draw.random() < (0.9 if town in ("New York", "NYC", "new york") else 0.1)),
        }
        for number, town in enumerate(towns)
    ]


def write_file(path: Path, found: list[dict[str, Any]]) -> Path:
    frame = pl.DataFrame(found)
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in found))
    else:
        typed = frame.with_columns(
            pl.col("at").str.to_datetime(time_zone="UTC"), pl.col("town").cast(pl.Categorical)
        )
        typed.write_parquet(path)
    return path


WRITTEN = ["NYC", "Oslo", "new york", "OSL", "New York", "Bergen"] * 40
COUNTS = {"town": {"NYC": 40, "OSL": 40, "new york": 40}}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_delivery_of_any_kind_is_loaded_by_its_words_and_counted(tmp_path: Path, suffix: str) -> None:
    store, feed = Store.open(tmp_path / "store"), feed_of(TOWN)
    path = write_file(tmp_path / f"day{suffix}", rows(0, WRITTEN))
    dry = dry_run.check(store, feed, DeliverySpec("day", str(path)), now_us=NOW_US)
    loaded = ingest(store, feed, "day", str(path), now_us=NOW_US)
    assert (dry.aliases, loaded.aliases, loaded.rows_quarantined) == (COUNTS, COUNTS, 0)
    again = ingest(store, feed, "day", str(path), now_us=NOW_US)
    assert (again.state, again.aliases) == ("already_loaded", {})
    store.ledger.close()


def test_a_quarantined_row_keeps_what_came(tmp_path: Path) -> None:
    store, feed = Store.open(tmp_path / "store"), feed_of(replace(TOWN, unseen="reject"))
    found = rows(0, ["NYC", "Paris", "NYC"])
    found[2]["size"] = float("nan")
    path = write_file(tmp_path / "day.csv", found)
    dry = dry_run.check(store, feed, DeliverySpec("day", str(path)), now_us=NOW_US)
    assert dry.quarantined.select("town").to_series().to_list() == ["Paris", "NYC"]
    assert dry.reasons == {"town|unseen": 1, "size|not_finite": 1}
    store.ledger.close()


def _model(feed: Feed) -> Model:
    return Model(
        "late",
        examples=feed,
        feeds=(feed,),
        contract=feed.contract,
        features=(Ordinal("town"), Passthrough("size")),
        learner=LogisticRegression(),
        heuristic=GroupMean(by=(Ordinal("town"),)),
        holdout="1d",
    )


def test_a_model_trained_on_words_predicts_an_alias_as_its_word(tmp_path: Path) -> None:
    store, feed = Store.open(tmp_path / "store"), feed_of(TOWN)
    # The first days were loaded before the aliases were declared: NYC was an unknown word there.
    old = replace(feed, contract=_without_town_in_key(replace(TOWN, aliases={})))
    new = replace(feed, contract=_without_town_in_key(TOWN))
    for day, contract in enumerate((old, old, new, new, new)):
        path = write_file(tmp_path / f"d{day}.csv", rows(day, WRITTEN))
        ingest(store, contract, f"d{day}", str(path), now_us=NOW_US)
    snapshot = write(
        store, snapshots.create, store.root, ["trips"], contract_hash=new.contract.hash, now_us=NOW_US
    ).snapshot
    model = _model(new)
    examples = read_examples(store, model, (), snapshot)
    assert set(examples.frame["town"]) == {"Bergen", "New York", "Oslo"}
    assert examples.frame["town"].value_counts().sort("town")["count"].to_list() == [200, 600, 400]
    row = read(store, versions.get, train(store, model, snapshot, now_us=NOW_US).version)
    version = load(row.version, row.digest, blobs.get(store.root, row.digest), created_at_us=1)
    assert version.words["town"] == ("Bergen", "New York", "Oslo")

    log = LogWriter(tmp_path / "log", "s1", "late")
    plane = DataPlane("late", log, lambda: NOW_US)
    plane.active = ActivePlan.of(
        TrafficPlan("late", 1, row.version, None, 0, None, None, None), {row.version: version}
    )
    predictions_of = {
        town: _predict(plane, town)
        for town in ("New York", "NYC", "new york", "Oslo", "OSL", "Bergen", "Paris")
    }
    assert predictions_of["NYC"] == predictions_of["new york"] == predictions_of["New York"]
    assert predictions_of["OSL"] == predictions_of["Oslo"]
    assert len(set(predictions_of.values())) == 4
    assert plane.counters.unseen_words[row.version, "town"] == 1, "Paris alone"
    log.close()

    # What reads the log reads words: canary slices, quality by slice, keys of labels, and traffic against training.
    [(_, path)] = segments(tmp_path / "log")
    records = [each for each in read_log(path)[0] if isinstance(each, PredictionRecord)]
    inputs = [each.inputs[0] for each in records]
    assert [each[1] for each in inputs] == list(predictions_of), "the log has what came"
    words = ["New York", "New York", "New York", "Oslo", "Oslo", "Bergen", "Paris"]
    slicer = slicer_of(store, ("town",))
    assert [slicer(row.version, each) for each in inputs] == [(f"town={word}",) for word in words]
    logged = [json.dumps(each) for each in inputs]
    predictions = [
        Prediction(f"p{number}/0", "late", row.version, "champion", None, b"", 0.5, 1, 1, each)
        for number, each in enumerate(logged)
    ]
    assert [found["town"] for found in slices_of(store, predictions).values()] == words
    assert _texts(pl.Series(logged), new.contract, ["town"])["town"].to_list() == words
    keyed = feed_of(TOWN).contract
    frame = pl.DataFrame({"prediction": ["p"] * 7, "version": [row.version] * 7, "inputs": logged})
    assert key_rows(store, keyed, frame)["town"].to_list() == words
    store.ledger.close()


def _without_town_in_key(town: Category) -> Contract:
    contract = feed_of(town).contract
    return Contract(
        *contract.request_columns, key="id", event_time="at", label=contract.label, slices=contract.slices
    )


def _predict(plane: DataPlane, town: str) -> float:
    values = {"id": "x", "town": town, "size": 3.0, "at": "2026-05-01T00:00:00Z"}
    kinds = {"size": "FP64"}
    inputs = [
        {"name": name, "shape": [1], "datatype": kinds.get(name, "BYTES"), "data": [value]}
        for name, value in values.items()
    ]
    body = json.dumps({"inputs": inputs}).encode()
    [outcome] = plane.infer([InferenceCall(body, None, None, time.perf_counter())])
    assert isinstance(outcome, tuple), outcome
    return float(outcome[0].probabilities[0])
