"""R20, R21 at the request: what a caller declares of its tensors is converted or refused; declaring nothing costs nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.contract import ColumnFacts, Contract
from holdfast.contract.schema.units import is_loaded, load_definitions
from holdfast.errors import HoldfastError
from holdfast.records import TrafficPlan, sha256_hex
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.data_plane import DataPlane, InferenceCall
from holdfast.serve.inference.loaded_model import load
from holdfast.serve.protocol.metadata import input_spec, model_metadata
from holdfast.store.serving.log_directory import segments
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import PredictionRecord, read
from tests.support.serving_world import CONTRACT, MODEL, packed, row, tensors


def contract(**distance: Any) -> Contract:
    columns = [
        replace(each, **distance) if each.name == "distance" else each for each in CONTRACT.request_columns
    ]
    return Contract(*columns, key="flight_id", event_time="scheduled", label=CONTRACT.label)


def plane_of(tmp_path: Path, champion: Contract, challenger: Contract | None = None) -> DataPlane:
    files = {"old": packed("half", champion)} | ({"new": packed("tenth", challenger)} if challenger else {})
    versions = {name: load(name, sha256_hex(data), data, created_at_us=1) for name, data in files.items()}
    share = 1_000_000 if challenger else 0
    plan = TrafficPlan(
        MODEL, 1, "old", "new" if challenger else None, share, None, None, 1 if challenger else None
    )
    made = DataPlane(MODEL, LogWriter(tmp_path, "s1", MODEL), lambda: 1)
    made.active = ActivePlan.of(plan, versions)
    return made


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    load_definitions()
    made = plane_of(tmp_path, contract(semantic="route_length", window="5min"))
    yield made
    made.log.close()


def ask(plane: DataPlane, distances: list[float | None], **reported: object) -> HoldfastError | str:
    """The version that predicted, or the refusal."""
    body = tensors([row(distance=distance) for distance in distances])
    for tensor in body["inputs"]:
        if tensor["name"] == "distance" and reported:
            tensor["parameters"] = reported
    [outcome] = plane.infer([InferenceCall(json.dumps(body).encode(), None, None, time.perf_counter())])
    return outcome[0].version if isinstance(outcome, tuple) else outcome


def logged(tmp_path: Path) -> list[list[object]]:
    [(_, path)] = segments(tmp_path)
    place = [column.name for column in CONTRACT.request_columns].index("distance")
    records = [record for record in read(path)[0] if isinstance(record, PredictionRecord)]
    return [[inputs[place] for inputs in record.inputs] for record in records]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_tensor_in_another_unit_is_converted_and_logged_in_the_contracts(
    plane: DataPlane, tmp_path: Path, rows: int
) -> None:
    assert ask(plane, [1609.344] * rows, unit="km", semantic="route_length") == "old"
    assert ask(plane, [1000.0] * rows, unit="mi", window="5min") == "old"
    assert ask(plane, [None] * rows, unit="km") == "old"
    assert logged(tmp_path) == [[1000.0] * rows, [1000.0] * rows, [None] * rows]


def test_the_range_is_of_the_converted_value(plane: DataPlane) -> None:
    assert ask(plane, [9000.0], unit="km") == "old"
    refused = ask(plane, [9000.0], unit="mi")
    assert isinstance(refused, HoldfastError)
    assert refused.code == "HF502"


@pytest.mark.parametrize(
    ("reported", "code", "words"),
    [
        (
            {"unit": "USD"},
            "HF502",
            "'distance' is declared in 'USD', which does not convert to the contract's 'mi'",
        ),
        ({"unit": "h"}, "HF502", "is declared in 'h'"),
        (
            {"semantic": "postal_code"},
            "HF502",
            "'distance' is declared as 'postal_code'; the contract has 'route_length'",
        ),
        (
            {"window": "10s"},
            "HF502",
            "'distance' is declared over '10s'; the contract has values over '300s'",
        ),
        ({"window": "often"}, "HF502", "over 'often'"),
        ({"window": 10}, "HF508", "parameter 'window'"),
        ({"unit": 7}, "HF508", "parameter 'unit' is a text of 1 to 64 characters"),
        ({"unit": ""}, "HF508", "parameter 'unit'"),
        ({"semantic": ["a"]}, "HF508", "parameter 'semantic'"),
        ({"unit": "9**9**9**9"}, "HF502", "does not convert"),
    ],
)
def test_what_cannot_cross_is_refused(
    plane: DataPlane, reported: dict[str, object], code: str, words: str
) -> None:
    refused = ask(plane, [100.0], **reported)
    assert isinstance(refused, HoldfastError)
    assert refused.code == code
    assert words in refused.what


def test_every_refusal_for_a_column_is_counted_once(plane: DataPlane) -> None:
    """R24: whole requests that come in another unit, kind or type count as broken contracts, as rows do."""
    ask(plane, [100.0, 200.0], unit="USD")
    ask(plane, [100.0], semantic="postal_code")
    ask(plane, [100.0, -1.0, -2.0])
    ask(plane, [100.0], unit=7)
    for change in ({"datatype": "BOOL"}, {"name": "invented by a caller"}):
        body = tensors([row()])
        body["inputs"][0] |= change
        plane.infer([InferenceCall(json.dumps(body).encode(), None, None, time.perf_counter())])
    assert plane.counters.violations == {
        "distance|unit": 1,
        "distance|semantic": 1,
        "distance|range": 2,
        f"{tensors([row()])['inputs'][0]['name']}|datatype": 1,
        "*|extra": 1,
    }


def test_a_challenger_whose_contract_has_another_unit_sees_its_own(tmp_path: Path) -> None:
    """R22: a version trained on kilometres is not fed the miles that the champion's callers send."""
    made = plane_of(tmp_path, CONTRACT, contract(unit="km", high=9700))
    assert ask(made, [1000.0]) == "new"
    assert ask(made, [1609.344], unit="km") == "new"
    made.log.close()
    assert logged(tmp_path) == [[1609.344], [1609.344]]


def test_a_challenger_whose_column_is_something_else_does_not_predict(tmp_path: Path) -> None:
    made = plane_of(tmp_path, contract(semantic="route_length"), contract(semantic="price", unit="USD"))
    assert ask(made, [1000.0]) == "old"
    made.log.close()


def test_the_metadata_reports_the_unit_and_semantic_of_each_input() -> None:
    specs = [input_spec(column) for column in contract(semantic="route_length").request_columns]
    inputs = {each["name"]: each for each in json.loads(model_metadata(MODEL, ["1"], specs, {}))["inputs"]}
    found = {name: each["parameters"] for name, each in inputs.items()}
    distance = {"unit": "mi", "semantic": "route_length", "low": 0.0, "high": 6000.0, "missing": "median"}
    assert {name: found["distance"].get(name) for name in distance} == distance
    seats = {"unit": "1", "low": 1, "high": 900, "missing": "reject"}
    assert {name: found["seats"].get(name) for name in seats} == seats
    assert found["carrier"]["values"] == ["AA", "UA", "B6"]
    assert not found["origin"].keys() & {"unit", "semantic", "low", "high", "values"}


def test_while_the_definitions_are_read_a_caller_is_to_come_again(plane: DataPlane) -> None:
    """A second on the only thread that answers would be an outage that anybody could cause."""
    load_definitions.cache_clear()
    refused = ask(plane, [100.0], unit="ft")
    assert isinstance(refused, HoldfastError)
    assert refused.code == "HF503"
    assert ask(plane, [100.0], unit="mi") == "old"
    while not is_loaded():
        time.sleep(0.05)
    assert ask(plane, [100.0], unit="ft") == "old"


def test_other_parameters_are_none_of_the_borders_business(plane: DataPlane) -> None:
    assert ask(plane, [100.0], content_type="np") == "old"
    assert input_spec(CONTRACT.column("carrier")).facts == ColumnFacts()
