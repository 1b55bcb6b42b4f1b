"""Run events are what the specification reports, for our own schema of it and for the official client's classes."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import attr
import jsonschema
import pytest
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent

from holdfast.records import canonical_json
from holdfast.tables.openlineage import (
    BackoutFacts,
    Facts,
    FailedLoadFacts,
    FailedTrainingFacts,
    LoadFacts,
    SnapshotFacts,
    TableRows,
    TrainFacts,
    run_events,
)

ROOT = Path(__file__).parents[3]
US = 1_700_000_000_123_456
TABLE = TableRows("weather", 7, 100, 2)
FACTS: list[Facts] = [
    LoadFacts(US, "weather", "2013-01", 1, "/in/weather.csv", "d" * 64, "c" * 64, 3, TABLE, (("at", "Timestamp"),)),
    LoadFacts(US, "weather", "2013-02", 0, "s3://lake/raw/weather/", "d" * 64, "c" * 64, 0, TABLE, ()),
    SnapshotFacts(US, "s7-00000000", (TABLE, TableRows("flights", 7, 5, 1)), True),
    TrainFacts(US, "late", "v3-00000000", "s7-00000000", "LightGBM", "candidate", "d" * 64, False),
    FailedLoadFacts(US, "weather", "2013-03", "HF207: 4 rows, at least 100 are expected"),
    FailedLoadFacts(US, "weather", "2013-04", "the disk is full", "failed", "/in/april.csv", US - 9),
    FailedLoadFacts(US, "weather", "2013-05", "its process ended", "interrupted", "s3://lake/may/", US - 9),
    FailedTrainingFacts(US, "late", "s7-00000000", "HF402 the learner failed", US - 5_000_000),
    SnapshotFacts(US, "s8-00000000", (TABLE,), False, US - 3),
    BackoutFacts(US - 7, US, "weather", "2013-01", 4, "degF", "ann", (TABLE,), ("s7-00000000",), ("v3-00000000",)),
]  # fmt: skip

_URI = {"type": "string", "format": "uri", "pattern": "^(https?://|urn:)"}
_FACET = {
    "type": "object",
    "required": ["_producer", "_schemaURL"],
    "properties": {"_producer": _URI, "_schemaURL": _URI},
}
_COUNT = {"type": "integer", "minimum": 0}


def _facet(required: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["_producer", "_schemaURL", *required],
        "properties": _FACET["properties"] | required,
        "additionalProperties": False,
    }


_DATASET = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {
        "namespace": {"type": "string", "minLength": 1},
        "name": {"type": "string", "minLength": 1},
        "facets": {
            "type": "object",
            "properties": {
                "schema": _facet(
                    {
                        "fields": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {"name": {"type": "string"}, "type": {"type": "string"}},
                            },
                        }
                    }
                ),
                "dataSource": _facet(
                    {"name": {"type": "string"}, "uri": {"type": "string", "format": "uri"}}
                ),
                "version": _facet({"datasetVersion": {"type": "string"}}),
                "lifecycleStateChange": _facet(
                    {
                        "lifecycleStateChange": {
                            "enum": ["ALTER", "CREATE", "DROP", "OVERWRITE", "RENAME", "TRUNCATE"]
                        }
                    }
                ),
            },
            "patternProperties": {"^holdfast_[a-z]+$": _FACET},
            "additionalProperties": False,
        },
        "inputFacets": {
            "type": "object",
            "properties": {
                "dataQualityMetrics": _facet(
                    {"rowCount": _COUNT, "fileCount": _COUNT, "columnMetrics": {"type": "object"}}
                )
            },
            "additionalProperties": False,
        },
        "outputFacets": {
            "type": "object",
            "properties": {
                "outputStatistics": {
                    "type": "object",
                    "required": ["_producer", "_schemaURL"],
                    "properties": _FACET["properties"] | {"rowCount": _COUNT, "fileCount": _COUNT},
                    "additionalProperties": False,
                }
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
RUN_EVENT: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": {
            "type": "string",
            "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$",
        },
        "producer": _URI,
        "schemaURL": _URI,
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {
                "runId": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
                "facets": {"type": "object", "additionalProperties": _FACET},
            },
        },
        "job": {
            "type": "object",
            "required": ["namespace", "name"],
            "properties": {
                "namespace": {"type": "string"},
                "name": {"type": "string"},
                "facets": {"type": "object"},
            },
        },
        "inputs": {"type": "array", "items": _DATASET},
        "outputs": {"type": "array", "items": _DATASET},
    },
    "additionalProperties": False,
}
"""The parts of OpenLineage 2-0-2 that we use, with nothing else accepted."""


@pytest.mark.parametrize("facts", FACTS, ids=lambda each: type(each).__name__)
def test_events_are_valid_and_their_runs_complete(facts: Facts) -> None:
    events = run_events(facts)
    for event in events:
        jsonschema.Draft202012Validator(RUN_EVENT).validate(event)
    failed = isinstance(facts, FailedLoadFacts | FailedTrainingFacts)
    killed = isinstance(facts, FailedLoadFacts) and facts.outcome == "interrupted"
    ended = "ABORT" if killed else "FAIL" if failed else "COMPLETE"
    assert ("errorMessage" in events[1]["run"]["facets"]) == failed
    assert [event["eventType"] for event in events] == ["START", ended]
    start, end = events
    assert start["eventTime"] < end["eventTime"] == "2023-11-14T22:13:20.123456+00:00"
    for side in ("inputs", "outputs"):
        names = [[(each["namespace"], each["name"]) for each in event[side]] for event in events]
        assert names[0] == names[1]
    assert len({event["run"]["runId"] for event in events}) == 1
    assert canonical_json(events) == canonical_json(run_events(facts))  # reported twice it is the same run


@pytest.mark.parametrize("facts", FACTS, ids=lambda each: type(each).__name__)
def test_the_official_client_can_read_them(facts: Facts) -> None:
    """Every event and every standard facet fits the client's class, and names the same schema as it."""
    for event in run_events(facts):
        read = RunEvent(
            eventTime=event["eventTime"],
            producer=event["producer"],
            run=Run(event["run"]["runId"]),
            job=Job(event["job"]["namespace"], event["job"]["name"]),
            inputs=[InputDataset(each["namespace"], each["name"]) for each in event["inputs"]],
            outputs=[OutputDataset(each["namespace"], each["name"]) for each in event["outputs"]],
        )
        assert read.schemaURL == event["schemaURL"]
        for content in (*event["job"]["facets"].values(), *event["run"]["facets"].values()):
            _fits_the_client(content)
        for dataset in (*event["inputs"], *event["outputs"]):
            for place in ("facets", "inputFacets", "outputFacets"):
                for name, content in dataset.get(place, {}).items():
                    if not name.startswith("holdfast_"):
                        _fits_the_client(content)


def _fits_the_client(content: dict[str, Any]) -> None:
    name = content["_schemaURL"].rpartition("/")[2]
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("Facet")).lower()
    module = importlib.import_module(f"openlineage.client.generated.{words}")
    kind = getattr(module, name)
    assert kind._get_schema() == content["_schemaURL"]
    own = {key: value for key, value in content.items() if not key.startswith("_")}
    assert own.keys() <= {field.name for field in attr.fields(kind)}
    kind(**own)


def test_custom_facets_fit_the_schema_in_the_reference() -> None:
    """Each names its definition in it, and every definition is of a facet that is sent."""
    document = json.loads((ROOT / "docs/reference/openlineage-facets.json").read_text())
    sent = set()
    for event in (each for facts in FACTS for each in run_events(facts)):
        for dataset in (*event["inputs"], *event["outputs"]):
            for name, content in dataset["facets"].items():
                if name.startswith("holdfast_"):
                    base, _, path = content["_schemaURL"].partition("#/$defs/")
                    assert base == document["$id"]
                    rule = document["$defs"][path] | {"additionalProperties": False}
                    jsonschema.Draft202012Validator(rule).validate(content)
                    sent.add(path)
    assert sent == document["$defs"].keys()


def test_a_refused_load_fails_with_its_reason() -> None:
    refused = next(facts for facts in FACTS if isinstance(facts, FailedLoadFacts))
    (_, failed) = run_events(refused, namespace="acme")
    assert failed["run"]["facets"]["errorMessage"]["message"] == refused.reason
    assert (failed["job"]["namespace"], failed["job"]["name"]) == ("acme", "load.weather")
    assert failed["outputs"] == [{"namespace": "acme", "name": "weather", "facets": {}}]


def test_different_operations_are_different_runs() -> None:
    runs = [run_events(facts)[0]["run"]["runId"] for facts in FACTS]
    assert len(set(runs)) == len(FACTS)


def test_a_run_starts_when_it_began_and_an_older_one_just_before_its_end() -> None:
    """The ledgers of earlier releases have no begin: there the start keeps its place before the end, no more."""
    known = FailedTrainingFacts(US, "late", "s7-00000000", "HF402", US - 5_000_000)
    unknown = FailedTrainingFacts(US, "late", "s7-00000000", "HF402")
    backwards = FailedTrainingFacts(US, "late", "s7-00000000", "HF402", US + 7)  # the clock was set back
    starts = [run_events(facts)[0]["eventTime"] for facts in (known, unknown, backwards)]
    assert [start[17:26] for start in starts] == ["15.123456", "20.123455", "20.123455"]
    assert {run_events(facts)[1]["eventTime"][17:26] for facts in (known, unknown)} == {"20.123456"}


def test_a_failed_load_names_its_source() -> None:
    facts = FailedLoadFacts(US, "weather", "2013-04", "the disk is full", "failed", "s3://lake/april.csv")
    for event in run_events(facts):
        assert [(each["namespace"], each["name"]) for each in event["inputs"]] == [("s3://lake", "april.csv")]
