"""What one request meets is its own: the others of its batch are answered as if it were not there."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.contract.schema.units import load_definitions
from holdfast.errors import HoldfastError
from holdfast.records import TrafficPlan, sha256_hex
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.api import routes as routes_module
from holdfast.serve.api.routes import Routes
from holdfast.serve.http.exchange import Exchange
from holdfast.serve.http.request_guard import RequestGuard
from holdfast.serve.inference import data_plane, request_errors
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.data_plane import DataPlane, InferenceCall, Outcome
from holdfast.serve.inference.loaded_model import LoadedVersion, load
from holdfast.serve.inference.metrics import ServerCollector, ServerFacts
from holdfast.serve.inference.request_schema import RequestSchema
from holdfast.serve.protocol.oip import RequestError
from holdfast.store.serving.log_directory import segments
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import PredictionRecord, read
from tests.support.serving_world import MODEL, packed, row, tensors

POISON = "POISON"
DEFECTS: dict[str, tuple[object, str]] = {
    "decoding": (data_plane, "decode_request"),
    "checking": (RequestSchema, "accept"),
    "the rows for the log": (RequestSchema, "received_rows"),
    "the draw": (data_plane, "_draw"),
}


@pytest.fixture
def clock() -> list[int]:
    return [1_000_000]


@pytest.fixture
def plane(tmp_path: Path, clock: list[int]) -> Iterator[DataPlane]:
    load_definitions()
    log = LogWriter(tmp_path, "s1", MODEL)
    made = DataPlane(MODEL, log, lambda: clock[0])
    made.active = plan_of("half")
    yield made
    log.close()


def plan_of(kind: str, previous: str | None = None) -> ActivePlan:
    kinds = [kind] if previous is None else [kind, previous]
    files = {name: packed(name) for name in kinds}
    versions = {name: load(name, sha256_hex(data), data, created_at_us=1) for name, data in files.items()}
    return ActivePlan.of(TrafficPlan(MODEL, 1, kind, None, 0, previous, None, None), versions)


def call(body: dict[str, Any]) -> InferenceCall:
    return InferenceCall(json.dumps(body).encode(), None, None, time.perf_counter())


def good() -> InferenceCall:
    return call(tensors([row()]))


def poison(**changes: Any) -> InferenceCall:
    return call(tensors([row(flight_id=POISON, **changes)]))


def in_unit(unit: str) -> InferenceCall:
    body = tensors([row()])
    for tensor in body["inputs"]:
        if tensor["name"] == "distance":
            tensor["parameters"] = {"unit": unit}
    return call(body)


def codes(outcomes: list[Outcome]) -> list[str]:
    return [each.code if isinstance(each, HoldfastError) else "ok" for each in outcomes]


@pytest.mark.parametrize("unit", ["Ym^9*Ym^9/m^9/m^8", " ".join(["ppm^-9"] * 6), "byte/octave^-7"])
def test_an_absurd_unit_is_refused_and_its_neighbours_are_predicted(plane: DataPlane, unit: str) -> None:
    """One connection made 72 % of the requests of another client fail."""
    outcomes = plane.infer([good(), in_unit(unit), good()])
    assert codes(outcomes) == ["ok", "HF502", "ok"]
    assert isinstance(outcomes[1], RequestError)
    assert plane.counters.violations == {"distance|unit": 1}
    assert plane.counters.requests == {("half", "champion", "ok"): 2, ("half", "champion", "contract"): 1}
    assert not plane.errors.by_step


@pytest.mark.parametrize("name", ["other", "inputs"])
def test_bytes_that_are_no_text_are_refused_wherever_they_are(plane: DataPlane, name: str) -> None:
    """Found by the fuzzer: the decoder skips what it does not know, so it does not check it."""
    body = good().body.replace(b'{"inputs"', b'{"%b": "\xc1", "inputs"' % name.encode(), 1)
    broken = InferenceCall(body, None, None, time.perf_counter())
    assert codes(plane.infer([good(), broken, good()])) == ["ok", "HF508", "ok"]
    assert not plane.errors.by_step


def planted(monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> None:
    """Make one function raise for the poisoned request, as a defect of the server would."""
    real = getattr(where, name)

    def raising(*given: Any, **named: Any) -> Any:
        # A request is seen as its body, its decoded form or its job, whichever the step is given.
        if POISON in repr(given) or any(
            POISON.encode() in bytes(getattr(each, "body", b"")) for each in given
        ):
            raise ZeroDivisionError(name)
        return real(*given, **named)

    monkeypatch.setattr(where, name, raising)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_met_by_one_request_is_counted_and_kept_apart(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch, defect: str
) -> None:
    planted(monkeypatch, *DEFECTS[defect])
    assert codes(plane.infer([good(), poison(), good()])) == ["ok", "HF503", "ok"]
    assert plane.errors.by_step == {"prepare": 1}
    assert plane.counters.requests["half", "champion", "unavailable"] == 1


def test_a_record_that_cannot_be_made_costs_its_own_id_alone(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    planted(monkeypatch, data_plane, "frame")
    outcomes = plane.infer([good(), poison(), good()])
    assert codes(outcomes) == ["ok"] * 3
    ids = [each[0].prediction for each in outcomes if isinstance(each, tuple)]
    assert [each is None for each in ids] == [False, True, False]
    [(_, path)] = segments(tmp_path)
    assert [record.id for record in read(path)[0] if isinstance(record, PredictionRecord)] == [ids[0], ids[2]]
    assert (plane.errors.by_step, plane.log.dropped) == ({"log": 1}, 1)


def test_a_request_that_cannot_be_counted_is_predicted(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, data_plane, "_result")
    monkeypatch.setattr(data_plane.DataPlane, "_frame", lambda *_: b"")
    assert codes(plane.infer([good(), poison()])) == ["ok", "ok"]
    assert plane.errors.by_step == {"count": 1}


# --- rows on which a version fails ------------------------------------------------------------------------------------


class Counting:
    """A session that counts its runs."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.runs: list[int] = []

    def run(self, outputs: Any, feed: Any) -> Any:
        self.runs.append(len(feed["distance"]))
        return self.session.run(outputs, feed)


@pytest.mark.parametrize("kind", ["broken", "nan", "above"])
def test_a_row_on_which_a_version_fails_costs_few_runs_more(plane: DataPlane, kind: str) -> None:
    """64 requests of one batch: seven halvings, not 64 runs; the others keep the champion's answer."""
    plane.active = plan_of(kind, "tenth")
    counting = Counting(plane.active.versions[kind].session)
    versions: dict[str, LoadedVersion] = {
        **plane.active.versions,
        kind: replace(plane.active.versions[kind], session=counting),
    }
    plane.active = replace(plane.active, versions=versions)
    outcomes = plane.infer([good() for _ in range(40)] + [poison(distance=5500.0)] + [good()] * 23)
    served = [each[0].version for each in outcomes if isinstance(each, tuple)]
    assert served == [kind] * 40 + ["tenth"] + [kind] * 23
    assert len(counting.runs) <= 15
    assert plane.counters.requests[kind, "champion", "ok"] == 63


def test_a_version_that_fails_on_everything_is_tried_hardly_more_than_once_for_each(plane: DataPlane) -> None:
    plane.active = plan_of("broken", "tenth")
    counting = Counting(plane.active.versions["broken"].session)
    broken = replace(plane.active.versions["broken"], session=counting)
    plane.active = replace(plane.active, versions={**plane.active.versions, "broken": broken})
    outcomes = plane.infer([poison(distance=5500.0) for _ in range(32)])
    assert [each[0].version for each in outcomes if isinstance(each, tuple)] == ["tenth"] * 32
    assert len(counting.runs) == 3 + 32


# --- what the operator sees -------------------------------------------------------------------------------------------


def test_a_defect_is_logged_once_per_kind_and_minute(
    plane: DataPlane, clock: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    planted(monkeypatch, data_plane, "decode_request")
    with caplog.at_level(logging.ERROR, "holdfast"):
        for _ in range(50):
            plane.infer([poison() for _ in range(10)])
        assert len(caplog.records) == 1
        assert caplog.records[0].exc_info is not None
        clock[0] += request_errors.MINUTE_US
        plane.infer([poison()])
    assert [record.args for record in caplog.records] == [("prepare", 0), ("prepare", 499)]
    facts = ServerFacts(MODEL, 1.0, {}, errors=dict(plane.errors.by_step))
    page = ServerCollector(facts, plane.counters.copy()).encode(b"")[0].decode()
    assert f'holdfast_request_errors_total{{model="{MODEL}",step="prepare"}} 501.0' in page
    assert f'holdfast_request_errors_total{{model="{MODEL}",step="respond"}} 0.0' in page


# --- the routes -------------------------------------------------------------------------------------------------------


class Client:
    """Keeps the responses by the path or the body of their requests."""

    def __init__(self) -> None:
        self.statuses: list[tuple[bytes, int]] = []

    def reply(self, exchange: Exchange, status: int, _body: bytes, _kind: bytes, _extra: bytes) -> None:
        self.statuses.append((exchange.path, status))


def test_a_defect_of_a_handler_or_of_a_response_gets_503(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request without an answer keeps its connection for ever, and everything that was sent behind it."""
    client = Client()
    infer = b"/v2/models/%b/infer" % MODEL.encode()

    def fail() -> Any:
        raise ZeroDivisionError

    planted(monkeypatch, routes_module, "encode_response")

    async def ask() -> None:
        routes = Routes(
            plane, fail, fail, "0", RequestGuard([]), lambda exchange: exchange.send(200, b""), ConnectionLimits
        )  # fmt: skip
        routes(Exchange(client, b"GET", b"/holdfast/status", {}, b""))
        routes(Exchange(client, b"GET", b"/metrics", {}, b""))
        for request in (good(), call({**tensors([row()]), "id": POISON}), good()):
            routes(Exchange(client, b"POST", infer, {}, request.body))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        routes.close()

    asyncio.run(ask())
    assert client.statuses == [(b"/holdfast/status", 503), (b"/metrics", 503)] + [
        (infer, status) for status in (200, 503, 200)
    ]
    assert plane.errors.by_step == {"route": 2, "respond": 1}
