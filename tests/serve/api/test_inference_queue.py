"""Requests take turns: none waits for the whole of a large one, and what would wait too long is refused at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.errors import HoldfastError
from holdfast.records import TrafficPlan, sha256_hex
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.api.inference_queue import LARGE_BYTES
from holdfast.serve.api.routes import Routes
from holdfast.serve.http.exchange import Exchange
from holdfast.serve.http.request_guard import RequestGuard
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.data_plane import DataPlane, InferenceCall, Outcome
from holdfast.serve.inference.loaded_model import load
from holdfast.serve.protocol.oip import RequestError
from holdfast.store.serving import log_writer
from holdfast.store.serving.log_directory import segments
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import PredictionRecord, read
from tests.support.serving_world import MODEL, packed, row, tensors

INFER = f"/v2/models/{MODEL}/infer".encode()
LARGE = 3_000
PATIENT = ConnectionLimits(queue_seconds=3600.0)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    log = LogWriter(tmp_path, "s1", MODEL)
    made = DataPlane(MODEL, log, lambda: 1)
    made.active = plan_of("half")
    yield made
    log.close()


def plan_of(champion: str, challenger: str | None = None) -> ActivePlan:
    files = {name: packed(name) for name in (champion, challenger) if name is not None}
    versions = {name: load(name, sha256_hex(data), data, created_at_us=1) for name, data in files.items()}
    share = 1_000_000 if challenger else 0
    return ActivePlan.of(TrafficPlan(MODEL, 1, champion, challenger, share, None, None, 1), versions)


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [row(flight_id=f"F{number}", **changes) for number in range(count)]


def call(body: object) -> InferenceCall:
    return InferenceCall(json.dumps(body).encode(), None, None, time.perf_counter())


def in_steps(plane: DataPlane, body: object) -> Outcome:
    work = plane.start_large(call(body))
    while (outcome := work.advance()) is None:
        pass
    return outcome


class Client:
    """Keeps the responses in the order in which they come."""

    def __init__(self) -> None:
        self.responses: list[tuple[bytes, int, bytes]] = []

    def reply(self, exchange: Exchange, status: int, body: bytes, _kind: bytes, extra: bytes) -> None:
        self.responses.append((exchange.path, status, extra or body))

    def send(self, body: object, path: bytes = INFER) -> Exchange:
        return Exchange(
            self, b"POST", path, {}, body if isinstance(body, bytes) else json.dumps(body).encode()
        )


def turns(
    plane: DataPlane, limits: ConnectionLimits, talk: Callable[[Routes], Any], client: Client, count: int
) -> None:
    """Run `talk` on the plane's routes, and the loop until so many responses came."""

    async def run() -> None:
        def unused() -> Any:
            raise AssertionError

        routes = Routes(plane, unused, unused, "0", RequestGuard([]), unused, lambda: limits)
        talk(routes)
        async with asyncio.timeout(60):
            while len(client.responses) < count:
                await asyncio.sleep(0)
        routes.close()

    asyncio.run(run())


# --- large requests in steps ------------------------------------------------------------------------------------------


def test_a_large_request_has_the_response_of_one_batch(plane: DataPlane, tmp_path: Path) -> None:
    plane.active = plan_of("delay")
    body = tensors(rows(1001)) | {"id": "r1"}
    at_once, stepwise = plane.infer([call(body)])[0], in_steps(plane, body)
    assert isinstance(at_once, tuple)
    assert isinstance(stepwise, tuple)
    np.testing.assert_array_equal(at_once[0].probabilities, stepwise[0].probabilities)
    assert (stepwise[0].id, stepwise[0].arm, stepwise[0].version) == ("r1", "champion", "delay")
    [(_, path)] = segments(tmp_path)
    first, second = [record for record in read(path)[0] if isinstance(record, PredictionRecord)]
    assert second.id == stepwise[0].prediction
    assert (first.inputs, first.probabilities, first.unit) == (
        second.inputs,
        second.probabilities,
        second.unit,
    )
    assert plane.counters.predictions["delay", "champion"] == 2002


def test_a_large_request_gets_predictions_of_the_plan_that_is_active_at_its_end(
    plane: DataPlane, tmp_path: Path
) -> None:
    """Whatever step the switch falls on, the withdrawn version answers nothing after it."""
    body = call(tensors(rows(1001)))
    before, after = plan_of("half"), plan_of("delay")

    def switched_after(steps: int) -> tuple[Outcome | None, bool]:
        plane.active = before
        work = plane.start_large(body)
        for _ in range(steps):
            if (outcome := work.advance()) is not None:
                return outcome, False
        plane.active = after
        while (outcome := work.advance()) is None:
            pass
        return outcome, True

    steps, switched = 0, True
    while switched:
        outcome, switched = switched_after(steps)
        assert isinstance(outcome, tuple)
        assert outcome[0].version == ("delay" if switched else "half")
        steps += 1
    assert steps > 5
    [(_, path)] = segments(tmp_path)
    logged = [record.version for record in read(path)[0] if isinstance(record, PredictionRecord)]
    assert logged == ["delay"] * (steps - 1) + ["half"]


def test_a_large_request_that_began_without_a_log_has_no_id_and_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log begins while the request is under way: its id has no place in it."""
    with monkeypatch.context() as patched:
        patched.setattr(log_writer, "record_newest", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        log = LogWriter(tmp_path, "s1", MODEL)
    plane = DataPlane(MODEL, log, lambda: 1_000_000)
    plane.active = plan_of("half")
    work = plane.start_large(call(tensors(rows(1001))))
    outcome: Outcome | None = None
    while not log._count:
        outcome = work.advance()
    assert outcome is None, "the id is made before the last step"
    monkeypatch.setattr(log, "_retry_at", 0.0)
    for _ in range(2):
        plane.infer([call(tensors([row()]))])
    while outcome is None:
        outcome = work.advance()
    assert isinstance(outcome, tuple)
    assert outcome[0].prediction is None
    log.close()
    [(_, path)] = segments(tmp_path)
    logged = [record for record in read(path)[0] if isinstance(record, PredictionRecord)]
    assert logged
    assert all(record.id.startswith("s1-1-") for record in logged)
    assert all(len(record.probabilities) == 1 for record in logged)


def test_broken_rows_are_named_by_their_place_in_the_request(plane: DataPlane) -> None:
    body = tensors(rows(1001))
    for place in (3, 600, 1000):
        body["inputs"][3]["data"][place] = -1.0
    at_once, stepwise = plane.infer([call(body)])[0], in_steps(plane, body)
    assert isinstance(at_once, RequestError)
    assert isinstance(stepwise, RequestError)
    assert stepwise.what == at_once.what
    assert stepwise.reasons == at_once.reasons
    assert plane.counters.violations == {"distance|range": 6}
    assert plane.counters.requests["half", "champion", "contract"] == 2


def test_a_row_that_fails_the_challenger_gives_the_whole_request_to_the_champion(plane: DataPlane) -> None:
    plane.active = plan_of("half", "broken")
    body = tensors(rows(1001))
    body["inputs"][3]["data"][900] = 5500.0
    outcome = in_steps(plane, body)
    assert isinstance(outcome, tuple)
    assert (outcome[0].version, set(outcome[0].probabilities.tolist())) == ("half", {0.5})
    assert plane.counters.challenger_failures == {("broken", "exception"): 1}


@pytest.mark.parametrize("body", [b"{", b"[" * 50_000, b"\xff" * 50_000, b'{"inputs":7}'])
def test_a_large_body_that_is_no_request_is_refused(plane: DataPlane, body: bytes) -> None:
    work = plane.start_large(InferenceCall(body, None, None, time.perf_counter()))
    while (outcome := work.advance()) is None:
        pass
    assert isinstance(outcome, HoldfastError)
    assert outcome.code == "HF508"


# --- turns ------------------------------------------------------------------------------------------------------------


def test_small_requests_overtake_large_ones_and_keep_their_order(plane: DataPlane) -> None:
    client = Client()
    large, small, medium = tensors(rows(LARGE)), tensors([row()]), tensors(rows(60))

    def talk(routes: Routes) -> None:
        for body in (large, large, small, medium, small):
            routes(client.send(body))

    turns(plane, PATIENT, talk, client, 5)
    assert [status for _, status, _ in client.responses] == [200] * 5
    sizes = [len(json.loads(body)["outputs"][0]["data"]) for _, _, body in client.responses]
    assert sizes == [1, 1, 60, LARGE, LARGE]


def test_what_would_wait_too_long_gets_429_and_is_no_evidence(plane: DataPlane, tmp_path: Path) -> None:
    client = Client()
    large = json.dumps(tensors(rows(LARGE))).encode()

    def talk(routes: Routes) -> None:
        assert routes.refusal(INFER, len(large)) is None, "nothing waits yet"
        for _ in range(20):
            routes(client.send(large))
        refused = routes.refusal(INFER, len(large))
        assert refused is not None, "a large body is not even received"
        assert b"retry-after: " in refused.headers
        assert routes.refusal(INFER, LARGE_BYTES) is None, "small requests are shed by their own queue alone"
        assert routes.refusal(b"/v2/models/m/feedback", len(large)) is None
        routes(client.send(tensors([row()])))

    turns(plane, ConnectionLimits(queue_seconds=0.05), talk, client, 21)
    statuses = [status for _, status, _ in client.responses]
    shed = statuses.count(429)
    assert shed >= 15
    assert statuses.count(200) == 21 - shed
    assert statuses[:shed] == [429] * shed, "at once, not after the wait"
    assert all(extra.startswith(b"retry-after: ") for _, status, extra in client.responses if status == 429)
    assert plane.counters.shed == {"large_queue": shed + 1}
    assert sum(plane.counters.requests.values()) == 21 - shed
    [(_, path)] = segments(tmp_path)
    assert len(read(path)[0]) == 21 - shed


def test_a_queue_that_was_emptied_takes_the_next_request(plane: DataPlane) -> None:
    client = Client()
    limits = ConnectionLimits(queue_seconds=0.01)

    def talk(routes: Routes) -> None:
        routes(client.send(tensors(rows(LARGE))))

    for _ in range(3):
        turns(plane, limits, talk, client, 1)
    assert {status for _, status, _ in client.responses} == {200}


def test_labels_take_turns_and_are_bounded_before_they_are_made(plane: DataPlane) -> None:
    client = Client()
    path = INFER.replace(b"/infer", b"/feedback")

    def talk(routes: Routes) -> None:
        routes(client.send(b'{"feedback":[' + b"[]," * 1_000_000 + b"[]]}", path))
        for _ in range(30):
            routes(client.send({"feedback": [{"id": "s9-1-1", "value": 7}] * 1000}, path))
        routes(client.send(tensors([row()])))

    turns(plane, PATIENT, talk, client, 32)
    assert client.responses[0][0] == INFER, "a request for a prediction waits for no labels"
    assert client.responses[1][:2] == (path, 400)
    assert json.loads(client.responses[1][2])["code"] == "HF511"
    assert [status for where, status, _ in client.responses[2:]] == [207] * 30


def test_requests_of_a_turn_that_fails_get_503(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log itself is broken, which is no request's fault."""

    def broken(*_: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(plane.log, "write", broken)
    client = Client()

    def talk(routes: Routes) -> None:
        for body in (tensors([row()]), tensors(rows(LARGE))):
            routes(client.send(body))

    turns(plane, PATIENT, talk, client, 2)
    assert [status for _, status, _ in client.responses] == [503, 503]
    assert plane.errors.by_step == {"prepare": 2}
