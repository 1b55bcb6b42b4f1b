"""Recorded requests against a candidate, off line (R133, R134): what the log holds is requested again, and judged in pairs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from holdfast.contract import Contract, Integer, Number
from holdfast.control.collect import collector
from holdfast.control.evaluation.replay import is_due, replay
from holdfast.control.runtimes import runtime
from holdfast.qualify import Gates
from holdfast.records import TrafficPlan, Verdict, sha256_hex
from holdfast.rollout import Canary, Shadow
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.data_plane import DataPlane, InferenceCall
from holdfast.serve.inference.loaded_model import load
from holdfast.store.db import leases, schema
from holdfast.store.db.leases import Lease
from holdfast.store.models import gate_results
from holdfast.store.serving import servers
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import FeedbackRecord, frame
from holdfast.store.serving.servers import Server
from tests.support.queries import read
from tests.support.serving_world import CONTRACT, MODEL, START, World, packed, row, tensors

pytestmark = pytest.mark.process

NOW = 1_800_000_000_000_000


class Recording:
    """A model whose champion answers, and a loop that brings home what it logged."""

    def __init__(self, world: World, champion: str = "half", **policy: Any) -> None:
        self.world = world
        self.store = world.store
        self.model: Any = SimpleNamespace(name=MODEL, rollout=Canary(**policy), gates=Gates())
        directory = world.root / "log" / "s1"
        self.log = LogWriter(directory, "s1", MODEL)
        with self.store.ledger.write() as connection:
            servers.announce(connection, Server("s1", MODEL, "http://127.0.0.1:1", directory, NOW))
        world.version(champion)
        data = packed(champion)
        version = load(world.names[champion], sha256_hex(data), data, created_at_us=1)
        self.plane = DataPlane(MODEL, self.log, lambda: NOW)
        self.plane.active = ActivePlan.of(
            TrafficPlan(MODEL, 1, version.name, None, 0, None, None, None), {version.name: version}
        )
        with self.store.ledger.write() as connection:
            found = leases.acquire(connection, f"control-{MODEL}", holder="t", duration_us=9, now_us=NOW)
        assert isinstance(found, Lease)
        self.lease = found

    def ask(self, *requests: list[dict[str, Any]], label: float | None = None) -> None:
        for number, rows in enumerate(requests):
            body = {**tensors(rows), "parameters": {"unit": f"u{number}"}}
            [outcome] = self.plane.infer(
                [InferenceCall(json.dumps(body).encode(), None, None, time.perf_counter())]
            )
            assert isinstance(outcome, tuple), outcome
            if label is not None:
                self.log.write([frame(FeedbackRecord(f"{outcome[0].prediction}/0", label, "t", NOW))])

    def collect(self) -> None:
        collector.collect(self.store, MODEL, self.lease, now_us=NOW)
        collector.join(self.store, MODEL, self.lease, now_us=NOW)

    def replay(self, kind: str, contract: Contract = CONTRACT, **options: Any) -> Any:
        version = self.world.version(kind, contract)
        return replay(self.store, self.model, version, now_us=NOW, **options)


@pytest.fixture
def recording(world: World) -> Iterator[Recording]:
    made = Recording(world, replay_requests=30, slices=("carrier",))
    yield made
    made.log.close()


def requested(many: int, **changes: Any) -> list[list[dict[str, Any]]]:
    return [
        [row(carrier=("AA", "UA", "B6")[number % 3], flight_id=f"F{number}", **changes)]
        for number in range(many)
    ]


def test_a_version_that_predicts_alike_passes_and_the_verdict_is_kept(recording: Recording) -> None:
    recording.ask(*requested(40))
    recording.collect()
    assert is_due(recording.store, recording.model, recording.world.version("nan"))
    found = recording.replay("nan")  # 0.75 where the champion reports 0.5: the same decision
    assert (found.verdict, found.requests, found.rows) == (Verdict.PASS, 30, 30)
    assert not is_due(recording.store, recording.model, recording.world.names["nan"])
    with recording.store.ledger.read() as connection:
        kept = gate_results.newest_replay(connection, recording.world.names["nan"])
        events = list(connection.execute(select(schema.events.c.kind)).scalars())
    assert kept is not None
    assert (kept.verdict, kept.observed) == (Verdict.PASS, 30.0)
    assert events.count("version.replayed") == 1
    assert (
        read(recording.store, gate_results.newest, recording.world.names["nan"]) == []
    )  # qualification is another matter


def test_too_little_recorded_is_inconclusive(recording: Recording) -> None:
    recording.ask(*requested(12))
    recording.collect()
    found = recording.replay("nan")
    assert (found.verdict, found.explanation) == (
        Verdict.INCONCLUSIVE,
        "12 of 30 recorded requests are there",
    )


def test_what_decides_otherwise_is_shown_by_slice_and_by_row(recording: Recording) -> None:
    recording.model.rollout = Canary(
        replay_requests=30, slices=("carrier",), shadow=Shadow(disagreement=0.05)
    )
    recording.ask(*requested(80))
    recording.collect()
    found = recording.replay("tenth", requests=80)
    assert found.verdict is Verdict.FAIL
    assert "80 of 80 units were decided differently" in found.explanation
    assert {each["name"] for each in found.slices} == {"carrier=AA", "carrier=UA", "carrier=B6"}
    assert found.slices[0]["shift"] == pytest.approx(-0.4)
    assert len(found.worst) == 5
    assert (found.worst[0].ours, found.worst[0].theirs) == (pytest.approx(0.1), 0.5)
    assert found.worst[0].inputs["origin"] == "EWR"
    assert datetime.fromisoformat(found.worst[0].inputs["scheduled"]).tzinfo is not None, "a time as a time"


def test_rows_that_a_version_cannot_predict_are_its_failures(recording: Recording) -> None:
    recording.ask(*requested(20), *requested(20, distance=5500.0))
    recording.collect()
    for kind, result in (("nan", "not_finite"), ("broken", "exception_Fail")):
        found = recording.replay(kind, requests=40)
        [(failure, many)] = found.failed.items()
        assert (failure.startswith(result.partition("_Fail")[0]), many) == (True, 20)
        assert found.verdict is Verdict.FAIL, kind
        assert "20 of" in found.explanation


def test_a_changed_contract_shows_which_recorded_requests_it_would_refuse(recording: Recording) -> None:
    """R133: a caller's request that the new contract refuses is found before the new version serves."""
    narrow = Contract(
        *(Number("distance", unit="mi", low=0, high=1000) if each.name == "distance" else each
          for each in CONTRACT.request_columns),
        key="flight_id", event_time="scheduled", label=CONTRACT.label,
    )  # fmt: skip
    recording.ask(*requested(30), [row(distance=2000.0)], [row(), row(distance=3000.0)])
    recording.collect()
    found = recording.replay("above", narrow, requests=100)
    assert found.verdict is Verdict.FAIL
    assert (found.refused_requests, found.refused) == (2, {"distance|range": 2})
    assert all(each.startswith("s1-1-") for each in found.refused_examples["distance|range"])
    assert "refuses 2 of 32 requests" in found.explanation


def test_numbers_cross_into_the_units_of_the_new_contract(recording: Recording) -> None:
    metric = Contract(
        *(Number("distance", unit="km", low=0, high=8000) if each.name == "distance" else each
          for each in CONTRACT.request_columns),
        key="flight_id", event_time="scheduled", label=CONTRACT.label,
    )  # fmt: skip
    recording.ask(*requested(30), [row(distance=4000.0)])
    recording.collect()
    # 4,000 miles are 6,437 km: beyond 5,000, where this version gives no number.
    found = recording.replay("nan", metric, requests=31)
    assert (found.failed, found.refused) == ({"not_finite": 1}, {})


def test_aggregates_are_as_they_were_known_at_the_event(world: World) -> None:
    recording = Recording(world, champion="delay", replay_requests=2)
    at = START - timedelta(minutes=10)
    world.online(2, ("EWR", at, 30.0), ("EWR", START + timedelta(minutes=10), 90.0))
    recording.plane.table.add("unused", "EWR", 1, 1.0)
    recording.ask([row(scheduled="2013-03-01T07:00:00-05:00")], [row(scheduled="2013-03-01T07:30:00-05:00")])
    recording.collect()
    found = recording.replay("delay")
    assert not found.unknown_aggregates
    # The champion of this test knew nothing (0.25); what it would have known is 0.3, and half an hour later 0.9.
    assert sorted(worst.ours for worst in found.worst) == [pytest.approx(0.3), pytest.approx(0.9)]
    recording.log.close()


def test_labels_that_are_known_are_scored_in_pairs(recording: Recording) -> None:
    recording.ask(*requested(60), label=0.0)
    recording.collect()
    found = recording.replay("nan", requests=60)
    assert found.labelled == 60
    assert found.verdict is Verdict.FAIL
    assert "mean score 0.4375 of 60 units, champion 0.7500" in found.explanation


def test_only_the_newest_requests_within_the_span_are_replayed(recording: Recording) -> None:
    recording.ask(*requested(40))
    recording.collect()
    steps: list[tuple[int, int]] = []
    found = recording.replay("nan", requests=7, progress=lambda done, of: steps.append((done, of)))
    assert (found.requests, steps) == (7, [(0, 7), (7, 7)])
    assert recording.replay("nan", since_us=NOW + 1).requests == 0


def test_a_runtime_is_tried_by_what_callers_requested(recording: Recording) -> None:
    """Of the version that answers, for every version with its contract; another is tried by what its own lets through."""
    world = recording.world
    world.plan("half")
    recording.ask(*requested(40, distance=321.5))
    recording.collect()
    columns = [
        Integer("seats", low=1, high=800) if each.name == "seats" else each
        for each in CONTRACT.request_columns
    ]
    other = Contract(*columns, key="flight_id", event_time="scheduled", label=CONTRACT.label)
    found = {
        kind: runtime.requests(world.store, MODEL, world.version(kind, contract))
        for kind, contract in (("half", CONTRACT), ("tenth", CONTRACT), ("delay", other))
    }
    distances = {
        kind: {
            tensor["data"][0]
            for each in bodies
            for tensor in json.loads(each)["inputs"]
            if tensor["name"] == "distance"
        }
        for kind, bodies in found.items()
    }
    assert (len(found["half"]), distances["half"]) == (40, {321.5})
    assert found["tenth"] == found["half"]
    assert len(distances["delay"]) > 1
    [outcome] = recording.plane.infer(
        [InferenceCall(found["half"][0].encode(), None, None, time.perf_counter())]
    )
    assert isinstance(outcome, tuple), outcome
