"""R25, "map", at the request: an alias is read as its word, the log keeps what came, and keys are those of the words."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holdfast.contract import Category, Contract
from holdfast.features.aggregate import entity_key
from holdfast.records import TrafficPlan, sha256_hex
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.data_plane import DataPlane, InferenceCall
from holdfast.serve.inference.loaded_model import load
from holdfast.serve.protocol.metadata import input_spec, model_metadata
from holdfast.store.serving.log_directory import segments
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import PredictionRecord, read
from tests.support.serving_world import CONTRACT, MODEL, RECENT, packed, row, tensors

ALIASES = {"carrier": {"United": "UA"}, "origin": {"Newark": "EWR", "newark": "EWR"}}
KNOWN_US = int(datetime(2013, 3, 2, 12, tzinfo=UTC).timestamp() * 1e6)


def contract(aliases: Mapping[str, Mapping[str, str]], key: tuple[str, ...] = ("flight_id",)) -> Contract:
    columns = [
        replace(each, aliases=aliases.get(each.name, {})) if isinstance(each, Category) else each
        for each in CONTRACT.request_columns
    ]
    return Contract(*columns, key=key, event_time="scheduled", label=CONTRACT.label)


@pytest.fixture
def plane_of(tmp_path: Path) -> Iterator[Callable[..., DataPlane]]:
    log = LogWriter(tmp_path, "s1", MODEL)

    def make(champion: Contract, challenger: Contract | None = None) -> DataPlane:
        files = {"old": packed("delay", champion)}
        files |= {} if challenger is None else {"new": packed("delay", challenger)}
        versions = {name: load(name, sha256_hex(data), data, created_at_us=1) for name, data in files.items()}
        new, share = ("new", 1_000_000) if challenger else (None, 0)
        plane = DataPlane(MODEL, log, lambda: 1)
        plane.active = ActivePlan.of(
            TrafficPlan(MODEL, 1, "old", new, share, None, None, new and 1), versions
        )
        entity = entity_key("EWR")
        assert entity is not None
        plane.table.add(RECENT.key, entity, KNOWN_US, 40.0)
        return plane

    yield make
    log.close()


def predict(plane: DataPlane, body: bytes, header: bytes | None = None) -> tuple[str, list[float]] | str:
    [outcome] = plane.infer([InferenceCall(body, header, None, time.perf_counter())])
    if isinstance(outcome, tuple):
        return outcome[0].version, [round(float(each), 6) for each in outcome[0].probabilities]
    return outcome.code


def as_json(*rows: dict[str, Any]) -> tuple[bytes, None]:
    return json.dumps(tensors(list(rows))).encode(), None


def as_binary(*rows: dict[str, Any]) -> tuple[bytes, bytes]:
    """The words in the binary extension, the rest as JSON."""
    body, parts = tensors(list(rows)), []
    for each in body["inputs"]:
        if each["datatype"] == "BYTES":
            words = [word.encode() for word in each.pop("data")]
            part = b"".join(struct.pack("<I", len(word)) + word for word in words)
            each["parameters"] = {"binary_data_size": len(part)}
            parts.append(part)
    header = json.dumps(body).encode()
    return header + b"".join(parts), str(len(header)).encode()


def logged(tmp_path: Path, column: str) -> list[list[object]]:
    [(_, path)] = segments(tmp_path)
    place = [each.name for each in CONTRACT.request_columns].index(column)
    records = [record for record in read(path)[0] if isinstance(record, PredictionRecord)]
    return [[inputs[place] for inputs in record.inputs] for record in records]


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("write", [as_json, as_binary])
def test_an_alias_is_predicted_as_its_word_and_logged_as_it_came(
    plane_of: Callable[..., DataPlane],
    tmp_path: Path,
    write: Callable[..., tuple[bytes, bytes | None]],
    rows: int,
) -> None:
    plane = plane_of(contract(ALIASES))
    word = predict(plane, *write(*[row()] * rows))
    assert word == ("old", [0.4] * rows), "the aggregate of Newark"
    for origin in ("Newark", "newark"):
        assert predict(plane, *write(*[row(origin=origin, carrier="United")] * rows)) == word
    assert logged(tmp_path, "origin") == [["EWR"] * rows, ["Newark"] * rows, ["newark"] * rows]
    assert logged(tmp_path, "carrier") == [["UA"] * rows, ["United"] * rows, ["United"] * rows]
    assert predict(plane, *write(*[row(carrier="united")] * rows)) == "HF502"
    assert plane.counters.unseen_words["old", "carrier"] == 0


def test_a_version_of_another_contract_reads_the_words_of_the_champions(
    plane_of: Callable[..., DataPlane], tmp_path: Path
) -> None:
    """As with units: a request is one to the champion, whichever version answers it."""
    plane = plane_of(contract(ALIASES), contract({"origin": {"newark": "EWR"}}))
    assert predict(plane, *as_json(row(origin="Newark", carrier="United"))) == ("new", [0.4])
    assert predict(plane, *as_json(row(origin="newark"))) == ("new", [0.4])
    # In the words of the contract that answered, and as it came where that knows the alias.
    assert logged(tmp_path, "origin") == [["EWR"], ["newark"]]
    assert logged(tmp_path, "carrier") == [["UA"], ["UA"]]


def test_the_key_of_a_label_is_that_of_the_words(plane_of: Callable[..., DataPlane]) -> None:
    plane = plane_of(contract(ALIASES, key=("flight_id", "origin")))
    assert plane.active is not None
    keys = [
        plane.active.schema.read_key({"flight_id": "UA1", "origin": origin}) for origin in ("EWR", "Newark")
    ]
    assert keys[0] == keys[1] == {"flight_id": "UA1", "origin": "EWR"}


def test_the_metadata_names_the_aliases() -> None:
    specs = [input_spec(column) for column in contract(ALIASES).request_columns]
    inputs = {each["name"]: each for each in json.loads(model_metadata(MODEL, [], specs, {}))["inputs"]}
    assert inputs["carrier"]["parameters"]["aliases"] == {"United": "UA"}
    assert "aliases" not in inputs["flight_id"]["parameters"]
