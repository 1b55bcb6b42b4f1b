"""A real server on a real store: protocol, rollout, feedback, metrics, and what it outlives."""

from __future__ import annotations

import gzip
import http.client
import json
import signal
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from holdfast.contract import Category, Contract, Label, Timestamp
from holdfast.contract.row.compiler import list_reasons
from holdfast.feedback.probe_token import probe_token
from holdfast.store.serving import label_rules
from holdfast.store.serving.log_directory import segments
from holdfast.store.serving.prediction_log import (
    FeedbackRecord,
    KeyFeedbackRecord,
    PredictionRecord,
    Record,
    read,
)
from holdfast.store.serving.servers import registered
from tests.support.queries import read as query
from tests.support.serving_world import CONTRACT, MODEL, START, Served, World, row, tensors
from tests.support.waiting import wait_until

Start = Callable[..., Served]
INFER = f"/v2/models/{MODEL}/infer"


def logged(root: Path) -> list[Record]:
    found: list[Record] = []
    for directory in sorted((root / "log").iterdir()):
        for _, path in segments(directory):
            offset = 0
            while True:
                records, following = read(path, offset)
                found += records
                if following == offset:
                    break
                offset = following
    return found


@pytest.fixture
def served(world: World, serve: Start) -> Served:
    world.version("half")
    world.plan("half")
    return serve()


def test_tritonclient_works_unmodified(served: Served, world: World) -> None:
    """Health, metadata and inference, binary by default and JSON when requested, with the client's own defaults."""
    client = triton.InferenceServerClient(served.where)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, world.names["half"])
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata(MODEL)
    assert metadata["name"] == MODEL
    assert metadata["versions"] == [world.names["half"]]
    assert metadata["platform"] == "onnx_onnxv1"
    assert {each["name"]: (each["datatype"], each["shape"]) for each in metadata["inputs"]} == {
        "flight_id": ("BYTES", [-1]), "carrier": ("BYTES", [-1]), "origin": ("BYTES", [-1]), "distance": ("FP64", [-1]),
        "seats": ("INT64", [-1]), "international": ("BOOL", [-1]), "scheduled": ("BYTES", [-1]),
    }  # fmt: skip
    assert metadata["outputs"] == [{"name": "probability", "datatype": "FP32", "shape": [-1]}]
    columns = {
        "flight_id": np.array(["A", "B"], object), "carrier": np.array(["AA", "UA"], object),
        "origin": np.array(["EWR", "LGA"], object), "distance": np.array([100.0, 200.0]), "seats": np.array([100, 120]),
        "international": np.array([True, False]), "scheduled": np.array(["2013-03-01T12:00:00Z"] * 2, object),
    }  # fmt: skip
    for runtime in (True, False):
        inputs = []
        for each in metadata["inputs"]:
            tensor = triton.InferInput(each["name"], [2], each["datatype"])
            tensor.set_data_from_numpy(columns[each["name"]], binary_data=runtime)
            inputs.append(tensor)
        response = client.infer(MODEL, inputs)
        assert response.as_numpy("probability").tolist() == [0.5, 0.5]
        wanted = [triton.InferRequestedOutput("probability", binary_data=not runtime)]
        response = client.infer(MODEL, inputs, outputs=wanted, request_id="r1")
        assert response.as_numpy("probability").dtype == np.float32
        assert response.get_response()["id"] == "r1"
        assert response.get_response()["model_version"] == world.names["half"]
    columns["carrier"][1] = "\U0001f6eb\0"
    inputs[1].set_data_from_numpy(columns["carrier"])
    with pytest.raises(triton.InferenceServerException, match="1 of the rows break"):
        client.infer(MODEL, inputs)
    client.close()
    with world.store.ledger.read() as connection:
        assert [server.address for server in registered(connection, MODEL)] == [served.address]


def body(**changes: Any) -> dict[str, Any]:
    return tensors([row(**changes)])


def with_input(name: str, /, **changes: Any) -> dict[str, Any]:
    made = body()
    for tensor in made["inputs"]:
        if tensor["name"] == name:
            tensor.update(changes)
    return made


HOSTILE: list[tuple[object, str, str]] = [
    (b"", "HF508", ""),
    (b"{", "HF508", ""),
    (b"\xef\xbb\xbf{}", "HF508", ""),
    (b"[" * 100_000, "HF508", ""),
    (b'{"inputs":' + b'[{"a":' * 5000 + b"}]" * 5000 + b"}", "HF508", ""),
    (b'{"inputs":[]}', "HF508", ""),
    (json.dumps(body()).encode() + b"x", "HF508", ""),
    (json.dumps(body(distance=float("nan"))).encode(), "HF508", ""),
    (json.dumps(body(distance=float("inf"))).encode(), "HF508", ""),
    (json.dumps(body(distance=1.5)).encode().replace(b"1.5", b"1e999"), "HF508", ""),
    (json.dumps(body(distance=1.5)).encode().replace(b"1.5", b"1" * 400), "HF502", "distance|not_finite"),
    (json.dumps(body(distance=1.5)).encode().replace(b"1.5", b"1" * 5000), "HF508", ""),
    (json.dumps(body(carrier="X")).encode().replace(b'"X"', b'"\\ud800"'), "HF508", ""),
    (json.dumps(body(carrier="X")).encode().replace(b'"X"', b'"\xff"'), "HF508", ""),
    (body(seats=2**64), "HF502", "seats|not_exact"),
    (body(seats=1.5), "HF502", "seats|type"),
    (body(seats="120"), "HF502", "seats|type"),
    (body(distance={"a": [1]}), "HF502", "distance|type"),
    (body(distance=-1.0), "HF502", "distance|range"),
    (body(international="yes"), "HF502", "international|type"),
    (body(carrier="ZZ"), "HF502", "carrier|unseen"),
    (body(carrier="AA\0"), "HF502", "carrier|unseen"),
    (body(carrier="\U0001f6eb"), "HF502", "carrier|unseen"),
    (body(carrier=...), "HF502", "carrier|missing"),
    (body(flight_id="a\0b"), "HF502", "flight_id|nul"),
    (body(flight_id="x" * 21), "HF502", "flight_id|too_long"),
    (body(scheduled="2013-03-02T07:15:00"), "HF502", "scheduled|zone"),
    (body(scheduled="yesterday"), "HF502", "scheduled|type"),
    (body(surprise=1.0), "HF502", "*|extra"),
    (with_input("distance", datatype="BYTES"), "HF502", "distance|datatype"),
    (with_input("distance", datatype="FP16"), "HF502", "distance|datatype"),
    (with_input("scheduled", datatype="INT64", data=[2**62]), "HF502", "scheduled|range"),
    (with_input("scheduled", datatype="INT64", data=["x"]), "HF502", "scheduled|type"),
    (with_input("distance", shape=[]), "HF508", ""),
    (with_input("distance", shape=[0]), "HF508", ""),
    (with_input("distance", shape=[-1]), "HF508", ""),
    (with_input("distance", shape=[2]), "HF508", ""),
    (with_input("distance", shape=[2**31, 2**33]), "HF508", ""),
    (with_input("distance", shape=[2**64]), "HF508", ""),
    (with_input("distance", shape=[10**9]), "HF508", ""),
    (with_input("distance", shape=[1, 1], data=[[1.0, 2.0]]), "HF508", ""),
    (with_input("distance", name="carrier", datatype="BYTES"), "HF508", ""),
    (with_input("distance", data=None), "HF508", ""),
    ({**body(), "outputs": [{"name": "shap"}]}, "HF508", ""),
    ({**body(), "outputs": [{"name": "probability"}] * 2}, "HF508", ""),
    ({**body(), "outputs": [{"name": "probability", "parameters": {"classification": 1}}]}, "HF508", ""),
    ({**body(), "outputs": [{"name": "probability", "parameters": {"shared_memory_region": "a"}}]}, "HF508", ""),
    ({**body(), "inputs": body()["inputs"] * 2}, "HF508", ""),
    (with_input("origin", parameters={"content_type": "base64"}, data=["RVdS"]), "HF508", ""),
    (with_input("distance", datatype="INT8", data=[300]), "HF502", "distance|datatype"),
    (with_input("distance", datatype="UINT8", data=[-5]), "HF502", "distance|datatype"),
    (with_input("distance", datatype="FP32", data=[1e39]), "HF502", "distance|datatype"),
    (with_input("distance", datatype="INT64", data=[2.5]), "HF502", "distance|type"),
    (with_input("seats", datatype="UINT16", data=[True]), "HF502", "seats|type"),
    (with_input("international", data=[1]), "HF502", "international|type"),
    (with_input("scheduled", datatype="INT64", data=[1_700_000_000]), "HF502", "scheduled|range"),
    (with_input("scheduled", datatype="INT64", data=[1_700_000_000_000]), "HF502", "scheduled|range"),
    ({**body(), "parameters": {"unit": ""}}, "HF508", ""),
    ({**body(), "parameters": {"unit": [1]}}, "HF508", ""),
]  # fmt: skip


def test_bad_requests_get_400_with_their_reason_and_never_more(served: Served, world: World) -> None:
    """R47, R48, reliability R1 to R4: each is named; nothing is a 5xx; the server answers on."""
    for sent, code, reason in HOSTILE:
        status, response = served.call(INFER, sent)
        assert status == 400, (sent if not isinstance(sent, bytes) else sent[:80], response)
        assert set(response) == {"error", "code", "reasons"}
        assert response["code"] == code, (str(sent)[:200], response)
        assert reason in " ".join(response["reasons"])
        assert "Traceback" not in response["error"]
    rows = [row(), row(distance=-1.0, carrier="ZZ"), row(), row(seats=0)]
    assert served.call(INFER, tensors(rows))[1]["reasons"] == [
        "row 1: carrier|unseen ('ZZ'; the known words are AA, UA, B6)",
        "row 1: distance|range (-1.0; it is from 0 to 6000 mi)",
        "row 3: seats|range (0; it is from 1 to 900)",
    ]
    inputs = {
        each["name"]: each.get("parameters", {}) for each in served.call(f"/v2/models/{MODEL}")[1]["inputs"]
    }
    assert inputs["carrier"]["values"] == ["AA", "UA", "B6"]
    assert (inputs["seats"]["low"], inputs["seats"]["high"]) == (1, 900)
    status, response = served.infer([row(distance=None, international=None, origin="\0\U0001f600")])
    assert (status, response["outputs"][0]["data"]) == (200, [0.5])
    results = Counter(record.result for record in logged(world.root) if isinstance(record, PredictionRecord))
    assert results["malformed"] + results["contract"] == len(HOSTILE) + 1
    records = [record for record in logged(world.root) if isinstance(record, PredictionRecord)]
    assert records[-2].reasons == ["carrier|unseen", "distance|range", "seats|range"]
    assert all(record.response_us is not None and record.response_us >= 0 for record in records)
    assert records[-1].response_us > records[-1].latency_us, "a caller waits longer than the processor works"


def test_lies_about_runtime_lengths_get_400(served: Served) -> None:
    """R4: the binary extension with every length wrong in turn."""
    header = with_input("distance", datatype="FP64")
    for tensor in header["inputs"]:
        if tensor["name"] == "distance":
            del tensor["data"]
            tensor["parameters"] = {"binary_data_size": 8}
    text = json.dumps(header).encode()
    raw = np.float64(100).tobytes()
    key = "Inference-Header-Content-Length"
    assert served.call(INFER, text + raw, headers={key: str(len(text))})[0] == 200
    for length in (str(len(text) - 1), str(len(text) + 1), "-1", "99999999", "x", "1" * 30, "\u00b2"):
        assert served.call(INFER, text + raw, headers={key: length.encode().decode("latin-1")})[0] == 400, (
            length
        )
    for tail in (b"", raw[:4], raw + b"x", np.float64(np.nan).tobytes(), np.float64(np.inf).tobytes()):
        assert served.call(INFER, text + tail, headers={key: str(len(text))})[0] == 400, tail
    for size in (-1, 4, 16, 2**70, "8", 8.0, None):
        wrong = text.replace(b'"binary_data_size": 8', b'"binary_data_size": ' + json.dumps(size).encode())
        assert served.call(INFER, wrong + raw, headers={key: str(len(wrong))})[0] == 400, size
    words = text.replace(b"distance", b"origin").replace(b"FP64", b"BYTES")
    for raw in (
        b"\xff\xff\xff\xff",
        b"\x02\0\0\0\xff\xfe",
        b"\x01\0\0\0ab",
        b"\x01\0\0",
        b"\x01\0\0\0a\x01\0\0\0b",
    ):
        wrong = words.replace(b'"binary_data_size": 8', b'"binary_data_size": %d' % len(raw))
        assert served.call(INFER, wrong + raw, headers={key: str(len(wrong))})[0] == 400, raw


def test_paths_and_methods(served: Served, world: World) -> None:
    assert served.call("/v2/health/live")[0] == 200
    assert served.call("/nothing")[0] == 404
    assert served.call("/v2/models/other/infer", body())[0] == 404
    assert served.call(f"/v2/models/{MODEL}/versions/v9-00000000/infer", body())[0] == 404
    assert served.call(f"/v2/models/{MODEL}/versions/{world.names['half']}/infer", body())[0] == 200
    assert served.call(INFER)[0] == 405
    assert served.call("/metrics", {}, "POST")[0] == 405
    assert served.call("/v2/health/live", method="HEAD") == (200, b"")
    assert served.call("/v2/health/ready") == (200, {"live": True, "ready": True})
    for path in (f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/versions/{world.names['half']}"):
        assert served.call(f"{path}/ready") == (200, {"name": MODEL, "ready": True})
    escaped = INFER.replace("models", "m%6Fdels")
    assert served.call(escaped, body())[0] == 200
    assert served.call(escaped.replace("/infer", "%2Finfer"), body())[0] == 404


def test_a_request_line_in_absolute_form_is_read(served: Served) -> None:
    """RFC 9112 section 3.2.2: a proxy sends it, and its host counts, whatever the Host header is."""
    own = f"http://{served.where}"
    foreign = {"Host": "evil.example"}
    assert served.call(f"{own}/v2/health/ready", headers=foreign)[0] == 200
    assert served.call(f"{own.upper()}/v2", headers=foreign)[0] == 200
    assert served.call(f"{own}{INFER}", body(), headers=foreign)[0] == 200
    assert served.call(f"http://evil.example{INFER}", body())[0] == 421
    assert served.call(f"http://evil.example@localhost{INFER}", body())[0] == 421
    assert served.call(own)[0] == 404


def test_compressed_bodies_are_read_within_the_limit_of_a_body(served: Served) -> None:
    """Triton's clients send gzip and deflate; a body that would decompress to more than the limit is refused."""
    one, many = json.dumps(body()).encode(), json.dumps(tensors([row()] * 2_000)).encode()
    for coding, compress in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        headers = {"Content-Encoding": coding}
        assert served.call(INFER, compress(one), headers=headers)[0] == 200
        status, response = served.call(INFER, compress(many), headers=headers)
        assert (status, response["outputs"][0]["shape"]) == (200, [2_000])
        assert served.call(INFER, compress(one)[:-3], headers=headers)[0] == 400
        assert served.call(INFER, compress(one) + b"x", headers=headers)[0] == 400
        assert served.call(INFER, one, headers=headers)[0] == 400
        bomb = compress(b"[" * 50_000_000)
        assert len(bomb) < 60_000
        assert served.call(INFER, bomb, headers=headers)[0] == 413
        prediction = served.infer()[1]["parameters"]["prediction_id"]
        label = compress(json.dumps({"id": prediction, "value": True}).encode())
        assert served.call(f"/v2/models/{MODEL}/feedback", label, headers=headers)[0] == 202
    assert served.call(INFER, one, headers={"Content-Encoding": "identity"})[0] == 200
    for coding in ("br", "gzip, gzip"):
        connection = http.client.HTTPConnection(served.where, timeout=30)
        connection.request(
            "POST", INFER, one, {"Content-Type": "application/json", "Content-Encoding": coding}
        )
        response = connection.getresponse()
        assert (response.status, response.headers["Accept-Encoding"]) == (415, "gzip, deflate, identity")
        connection.close()
    client = triton.InferenceServerClient(served.where)
    inputs = [triton.InferInput(each["name"], [1], each["datatype"]) for each in body()["inputs"]]
    for tensor, each in zip(inputs, body()["inputs"], strict=True):
        kind = object if each["datatype"] == "BYTES" else None
        tensor.set_data_from_numpy(np.array(each["data"], kind))
    for algorithm in ("gzip", "deflate"):
        found = client.infer(
            MODEL, inputs, request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
        )
        assert found.as_numpy("probability").tolist() == [0.5]
    client.close()


def test_a_challenger_gets_its_share_sticks_and_is_replaced(world: World, serve: Start) -> None:
    """R112, R113: the sticky split, one plan later; the challenger's failures are the champion's answers."""
    for kind in ("half", "tenth", "nan", "broken", "above"):
        world.version(kind)
    world.plan("half")
    served = serve()
    world.plan("half", "tenth", 300_000, previous=None)
    served.wait(lambda status: status["share_ppm"] == 300_000)
    first = [served.infer(unit=f"u{number}")[1]["parameters"]["arm"] for number in range(200)]
    assert 30 < first.count("challenger") < 90
    assert first == [served.infer(unit=f"u{number}")[1]["parameters"]["arm"] for number in range(200)]
    far = [row(distance=5900.0)]
    for kind, failure in (("nan", "not_finite"), ("broken", "exception"), ("above", "not_a_probability")):
        served.wait_for_plan(world.plan("half", kind, 1_000_000))
        status, response = served.infer(far, unit="u")
        assert (status, response["outputs"][0]["data"]) == (200, [0.5])
        assert response["parameters"]["arm"] == "champion"
        assert response["model_version"] == world.names["half"]
        status, response = served.infer(unit="u")
        assert response["model_version"] == world.names[kind]
        records = [record for record in logged(world.root) if isinstance(record, PredictionRecord)]
        assert (records[-2].challenger_failed, records[-2].result, records[-2].version) == (
            failure,
            "ok",
            world.names["half"],
        )
        assert (records[-1].challenger_failed, records[-1].arm) == ("", "challenger")
        assert records[-1].rollout is not None
    before = len(logged(world.root))
    for token in ("", "Bearer ", "Bearer " + "0" * 64):
        status, response = served.call(INFER, probe_body(), headers={"Authorization": token})
        assert (status, response["code"]) == (400, "HF510"), "its predictions would be in no log"
    token = probe_token(query(world.store, label_rules.read, MODEL).secret)
    bearer = {"Authorization": f"Bearer {token}"}
    status, response = served.call(INFER, probe_body(), headers=bearer)
    assert response["model_version"] == world.names["above"]
    kept = logged(world.root)[before:]
    assert [record.result for record in kept if isinstance(record, PredictionRecord)] == ["contract"] * 3
    assert "prediction_id" not in response["parameters"]
    status, response = served.call(INFER, {"inputs": [], "parameters": {"probe": True}})
    assert (status, response["model_version"]) == (200, world.names["above"])
    plan = world.plan("half")
    served.wait_for_plan(plan)
    assert served.call(INFER, probe_body(), headers=bearer)[1]["parameters"]["plan"] == plan
    metrics = families(served)
    assert metrics["holdfast_last_rollback_timestamp_seconds"][0].value > time.time() - 60
    failures = {sample.labels["kind"] for sample in metrics["holdfast_challenger_failures"]}
    assert failures == {"not_finite", "exception", "not_a_probability"}


def test_what_serves_when_the_champion_cannot(world: World, serve: Start) -> None:
    """The previous version, then the heuristic, then none; each is counted and logged."""
    for kind in ("half", "tenth", "nan", "broken"):
        world.version(kind)
    far = [row(distance=5900.0)]
    world.plan("nan", previous="broken", fallback="tenth")
    served = serve()
    status, response = served.infer(far)
    assert (status, response["parameters"]["arm"], response["model_version"]) == (
        200,
        "fallback",
        world.names["tenth"],
    )
    served.wait_for_plan(world.plan("nan", previous="half"))
    assert served.infer(far)[1]["model_version"] == world.names["half"]
    served.wait_for_plan(world.plan("nan"))
    status, response = served.infer(far)
    assert (status, response["code"]) == (503, "HF503")
    assert served.infer()[0] == 200
    records = [record for record in logged(world.root) if isinstance(record, PredictionRecord)]
    assert [record.result for record in records] == [
        "champion_failed",
        "champion_failed",
        "unavailable",
        "ok",
    ]
    assert records[2].probabilities == []


def test_aggregates_are_filled_as_of_the_event_time(world: World, serve: Start) -> None:
    """R44: the newest value known by the row's own time, within the window; nothing else."""
    world.version("delay")
    world.plan("delay")
    world.online(2, ("EWR", START, 10.0), ("EWR", START + timedelta(minutes=10), 20.0))
    served = serve()
    served.wait(lambda status: status["table_version"] == 2)

    def at(minutes: float, origin: str = "EWR") -> float:
        timestamp = (START + timedelta(minutes=minutes)).isoformat()
        return round(
            float(served.infer([row(scheduled=timestamp, origin=origin)])[1]["outputs"][0]["data"][0]), 6
        )

    assert [at(-1), at(0), at(9.9), at(10), at(190), at(190.1), at(5, "JFK")] == [
        0.25,
        0.1,
        0.1,
        0.2,
        0.2,
        0.25,
        0.25,
    ]
    world.online(3, ("JFK", START, 40.0), ("EWR", START, 30.0))
    served.wait(lambda status: status["table_version"] == 3)
    assert [at(5), at(5, "JFK")] == [0.3, 0.4]
    several = [row(scheduled=(START + timedelta(minutes=minutes)).isoformat()) for minutes in (-1, 5, 15)]
    assert [round(each, 6) for each in served.infer(several)[1]["outputs"][0]["data"]] == [0.25, 0.3, 0.2]


def test_feedback_is_on_disk_before_202(served: Served, world: World) -> None:
    """R144; a value twice is one label for the control loop, so the server only has to keep what came."""
    prediction = served.infer([row(), row()])[1]["parameters"]["prediction_id"]
    path = f"/v2/models/{MODEL}/feedback"
    assert served.call(path, {"id": f"{prediction}/1", "value": True, "source": "airport"}) == (
        202,
        {"accepted": 1},
    )
    assert served.call(path, {"id": prediction, "value": 0.25})[0] == 400, "it names none of two rows"
    assert served.call(path, {"id": f"{prediction}/0", "value": 0.25})[0] == 202
    many = [
        {"id": f"{prediction}/{number}", "value": (0.25, 1)[number], "source": "late"} for number in range(2)
    ]
    results = [{"id": f"{prediction}/{number}", "status": "repeated"} for number in range(2)]
    assert served.call(path, {"feedback": many}) == (202, {"accepted": 2, "rejected": 0, "results": results})
    served.stop(signal.SIGKILL)
    kept = [
        (each.prediction, each.value, each.source)
        for each in logged(world.root)
        if isinstance(each, FeedbackRecord)
    ]
    assert kept == [
        (f"{prediction}/1", 1.0, "airport"), (f"{prediction}/0", 0.25, "client"),
    ]  # fmt: skip


def test_wrong_feedback_is_refused(served: Served, world: World) -> None:
    """M1: what was never given out, and what is no label."""
    path = f"/v2/models/{MODEL}/feedback"
    good = served.infer()[1]["parameters"]["prediction_id"]
    assert served.call(INFER, b"{")[0] == 400
    refused = logged(world.root)[-1]  # the log holds it, and no caller got it
    assert isinstance(refused, PredictionRecord)
    assert refused.probabilities == []
    for sent, status in (
        ({"id": f"{good}/1", "value": 1}, 404), ({"id": f"{good}/4000", "value": 1}, 404),
        ({"id": refused.id, "value": 1}, 404),
        ({"id": "s1-1-999", "value": 1}, 404), ({"id": "s1-9-1", "value": 1}, 404), ({"id": "../x", "value": 1}, 400),
        ({"id": good, "value": 2}, 400), ({"id": good, "value": -0.1}, 400), ({"id": good, "value": "yes"}, 400),
        ({"id": good, "value": 10**30}, 400), ({"id": good}, 400), ({"id": good, "value": 1, "source": ""}, 400),
        ({"id": good, "value": 1, "source": "a\nb"}, 400), ({"id": good, "value": 1, "extra": 1}, 400), (b"null", 400),
        (b"", 400), ({"feedback": []}, 400), ({"feedback": 1}, 400),
        ({"feedback": [{"id": good, "value": 1}], "extra": 1}, 400),
        ({"feedback": [{"id": "s1-1-999", "value": 1}]}, 207),
    ):  # fmt: skip
        assert served.call(path, sent)[0] == status, sent
    assert not [each for each in logged(world.root) if isinstance(each, FeedbackRecord)]


def test_feedback_that_contradicts_what_was_taken_is_refused(served: Served, world: World) -> None:
    """M1: a label that contradicts an earlier one is refused."""
    path = f"/v2/models/{MODEL}/feedback"
    first, second = (served.infer()[1]["parameters"]["prediction_id"] for _ in range(2))
    assert served.call(path, {"id": first, "value": True})[0] == 202
    assert served.call(path, {"id": f"{first}/0", "value": 1.0})[0] == 202, "the same again is taken"
    status, reported = served.call(path, {"id": first, "value": False})
    assert (status, reported["code"]) == (409, "HF505"), reported
    assert "the earlier one stands" in reported["error"]
    status, reported = served.call(path, {"id": second, "value": False, "source": "label feeds"})
    assert (status, reported["code"]) == (400, "HF511"), "the source of labels of label feeds is reserved"
    assert "reserved" in reported["error"]
    assert served.call(path, {"id": second, "value": False})[0] == 202
    kept = [(each.prediction, each.value) for each in logged(world.root) if isinstance(each, FeedbackRecord)]
    assert kept == [(f"{first}/0", 1.0), (f"{second}/0", 0.0)], "a repeated label is not kept again"


def test_one_wrong_label_of_many_is_reported_and_the_others_are_kept(served: Served, world: World) -> None:
    path = f"/v2/models/{MODEL}/feedback"
    first, second = (f"{served.infer()[1]['parameters']['prediction_id']}/0" for _ in range(2))
    assert served.call(path, {"id": first, "value": True})[0] == 202
    sent: list[object] = [
        {"id": first, "value": False}, {"id": second, "value": True}, {"id": second, "value": False},
        {"id": "s1-1-999", "value": 1}, {"id": second, "value": "yes"}, 7, {"id": second, "value": True},
    ]  # fmt: skip
    status, reported = served.call(path, {"feedback": sent})
    assert (status, reported["accepted"], reported["rejected"]) == (207, 2, 5)
    assert [(each["id"], each["status"], each.get("code")) for each in reported["results"]] == [
        (first, "rejected", "HF505"), (second, "accepted", None), (second, "rejected", "HF505"),
        ("s1-1-999", "rejected", "HF505"), (second, "rejected", "HF511"), (None, "rejected", "HF511"),
        (second, "repeated", None),
    ]  # fmt: skip
    kept = [(each.prediction, each.value) for each in logged(world.root) if isinstance(each, FeedbackRecord)]
    assert kept == [(first, 1.0), (second, 1.0)]


def test_labels_are_taken_by_the_key_of_the_row_in_bulk(served: Served, world: World) -> None:
    """A caller knows its own key; each item has its result, and another value for a key is a correction."""
    path = f"/v2/models/{MODEL}/feedback"
    prediction = served.infer()[1]["parameters"]["prediction_id"]
    one = {"key": {"flight_id": "UA1"}, "value": True, "source": "airport"}
    assert served.call(path, one) == (202, {"accepted": 1})
    items: list[dict[str, Any]] = [
        one,
        {**one, "value": False},
        {"key": {"flight_id": "UA2"}, "value": 0},
        {"key": {"flight_id": "UA3"}, "value": "no"},
        {"key": {"flight_id": "UA4"}, "value": 0.5},
        {"key": {"flight_id": "x" * 21}, "value": True},
        {"key": {"flight": "UA1"}, "value": True},
        {"key": {"flight_id": "UA5"}, "id": "s1-1-1", "value": True},
        {"value": True},
        {"id": prediction, "value": "yes"},
    ]
    status, document = served.call(path, {"feedback": items})
    assert (status, document["accepted"], document["rejected"]) == (207, 3, 7)
    found = [(each["status"], each.get("error", "")) for each in document["results"]]
    assert [state for state, _ in found] == ["repeated", "accepted", "accepted"] + ["rejected"] * 7
    assert document["results"][0]["key"] == {"flight_id": "UA1"}
    assert [each for each in document["results"] if "warning" in each] == [document["results"][1]]
    assert "this one is kept without effect" in document["results"][1]["warning"]
    assert [error for _, error in found[3:]] == [
        "the value of a label by key is true, false, 1 or 0, not 'no'",
        "the value of a label by key is true, false, 1 or 0, not 0.5",
        f"the key has no valid flight_id: '{'x' * 21}'; it has at most 20 characters",
        "the key of a row is flight_id, each once and nothing else",
        'a label has an "id" or a "key", and a "value"',
        'a label has an "id" or a "key", and a "value"',
        f"{prediction}/0: a value is true, false or a number from 0 to 1, not 'yes'",
    ]
    kept = [each for each in logged(world.root) if isinstance(each, KeyFeedbackRecord)]
    assert [(each.key, each.value, each.source) for each in kept] == [
        ('{"flight_id":"UA1"}', 1.0, "airport"),
        ('{"flight_id":"UA1"}', 0.0, "airport"),
        ('{"flight_id":"UA2"}', 0.0, "client"),
    ]
    alone = served.call(path, {"key": {"flight_id": "UA2"}, "value": 1})
    assert "without effect" in alone[1]["warning"], "one that comes alone too"


def test_the_form_of_a_body_is_not_guessed_from_its_text(served: Served) -> None:
    """A label whose source is called "feedback" is one label; a list is a list wherever its name stands."""
    path = f"/v2/models/{MODEL}/feedback"
    prediction = served.infer()[1]["parameters"]["prediction_id"]
    assert served.call(path, {"id": prediction, "value": True, "source": "feedback"})[0] == 202
    escaped = b'{"\\u0066eedback": [{"id": "%b", "value": true}]}' % prediction.encode()
    assert served.call(path, escaped)[1]["accepted"] == 1


def test_a_wrong_name_is_refused_with_the_right_ones(served: Served, world: World) -> None:
    """A caller that misspells the model or the version is shown what is served."""
    status, reported = served.call("/v2/models/invented/infer", body())
    assert (status, reported["error"]) == (404, f"this server has only the model {MODEL!r}")
    status, reported = served.call(f"/v2/models/{MODEL}/versions/invented/infer", body())
    assert status == 404
    assert world.names["half"] in reported["error"]
    assert served.call("/v3")[1]["error"] == "there is nothing at this path"


def probe_body() -> dict[str, Any]:
    return {**tensors([row()]), "parameters": {"probe": True}}


FORM = "application/x-www-form-urlencoded"
STRANGERS: list[tuple[dict[str, str], int]] = [
    ({"Host": "evil.example"}, 421), ({"Host": "localhost.evil.example"}, 421), ({"Host": "127.0.0.1.evil.example:80"}, 421),
    ({"Host": "localhost:80x"}, 421), ({"Host": "[::1"}, 421), ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403), ({"Content-Type": "text/plain"}, 415), ({"Content-Type": FORM}, 415),
    ({"Content-Type": "application/json; charset=utf-8"}, 200), ({"Content-Type": "application/octet-stream"}, 200), ({}, 200),
    ({"Host": "localhost:9"}, 200), ({"Host": "LOCALHOST."}, 200), ({"Host": "model.localhost"}, 200),
    ({"Host": "[::1]:8080"}, 200), ({"Host": "10.1.2.3"}, 200),
    ({"Host": "localhost:80", "Origin": "http://localhost:80"}, 200),
    ({"Host": "localhost", "Origin": "http://localhost:80"}, 403),
]  # fmt: skip


def test_foreign_pages_and_foreign_names_change_nothing(served: Served) -> None:
    """W2: Host is ours, the origin is our own, the type is one that a form cannot have; reads are checked for Host."""
    prediction = served.infer()[1]["parameters"]["prediction_id"]
    label = {"id": prediction, "value": True}
    for headers, status in STRANGERS:
        assert served.call(INFER, body(), headers=headers)[0] == status, headers
        taken = {200: 202}.get(status, status)
        assert served.call(f"/v2/models/{MODEL}/feedback", label, headers=headers)[0] == taken, headers
        named = {name: value for name, value in headers.items() if name == "Host"}
        for path in ("/v2/health/ready", f"/v2/models/{MODEL}/ready", f"/v2/models/{MODEL}"):
            reading = 421 if status == 421 else 200
            assert served.call(path, headers=named)[0] == reading, (path, named)
    for path in ("/holdfast/status", "/metrics", "/v2", "/nothing"):
        assert served.call(path, headers={"Host": "evil.example"})[0] == 421, path
        assert served.call(path, headers={"Host": "localhost"})[0] in (200, 404), path


def families(served: Served) -> dict[str, list[Any]]:
    text = served.call("/metrics")[1].decode()
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


def test_metrics_parse_and_their_labels_are_bounded(served: Served, world: World) -> None:
    """R136 to R142."""
    version = world.names["half"]
    for number in range(3):
        served.infer([row(), row()], unit=f"u{number}")
    served.infer([row(carrier="invented" + "x" * 50)])
    served.call(INFER, b"{")
    served.call("/v2/models/invented/infer", b"{}")
    served.call(f"/v2/models/{MODEL}/versions/invented/infer", b"{}")
    metrics = families(served)
    requests = {sample.labels["result"]: sample.value for sample in metrics["holdfast_requests"]}
    assert requests == {"ok": 3, "contract": 1, "malformed": 1, "champion_failed": 0, "unavailable": 0}
    [predictions] = metrics["holdfast_predictions"]
    assert (predictions.labels, predictions.value) == (
        {"model": MODEL, "version": version, "arm": "champion"},
        6,
    )
    [info] = metrics["holdfast_model_info"]
    assert (info.labels["role"], info.labels["contract_hash"]) == ("champion", CONTRACT.hash)
    [age] = metrics["holdfast_model_age_seconds"]
    assert 3600 <= age.value < 3800
    assert metrics["holdfast_deployed_timestamp_seconds"][0].value > time.time() - 100
    counts = {
        sample.labels.get("le"): sample.value
        for sample in metrics["holdfast_request_duration_seconds"]
        if "le" in sample.labels
    }
    assert counts["+Inf"] == 5
    violations = {sample.labels["reason"]: sample.value for sample in metrics["holdfast_contract_violations"]}
    assert {reason for reason, value in violations.items() if value} == {"carrier|unseen"}
    assert violations.keys() == set(list_reasons(CONTRACT))
    assert metrics["process_resident_memory_bytes"][0].value > 1e6
    assert metrics["holdfast_prediction_log_dropped_records"][0].value == 0
    assert "invented" not in served.call("/metrics")[1].decode()
    connection = http.client.HTTPConnection(served.where, timeout=60)
    prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4"
    for accept, content_type, parse in (
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", text_string_to_metric_families),
        (prometheus, "application/openmetrics-text; version=1.0.0; charset=utf-8", openmetrics_families),
    ):
        connection.request("GET", "/metrics", headers={"Accept": accept})
        response = connection.getresponse()
        assert response.headers["Content-Type"] == content_type
        assert {family.name for family in parse(response.read().decode())} == set(metrics)
    connection.close()


@pytest.mark.crash
def test_every_acknowledged_prediction_is_in_the_log_after_sigkill(served: Served, world: World) -> None:
    """P1 for answers: under load, kill -9; ids and probabilities that a client saw are read back."""
    responded: list[str] = []

    def load(lane: int) -> None:
        connection = http.client.HTTPConnection(served.where, timeout=60)
        content = json.dumps(tensors([row(flight_id=f"L{lane}"), row()]))
        try:
            while True:
                connection.request("POST", INFER, content)
                response = json.loads(connection.getresponse().read())
                responded.append(response["parameters"]["prediction_id"])
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()

    threads = [threading.Thread(target=load, args=(lane,)) for lane in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(responded) > 400, "the server is under load")
    served.stop(signal.SIGKILL)
    for thread in threads:
        thread.join()
    kept = {record.id: record for record in logged(world.root) if isinstance(record, PredictionRecord)}
    assert len(responded) > 100
    assert set(responded) <= set(kept)
    assert len(set(responded)) == len(responded)
    sample = kept[responded[0]]
    assert sample.probabilities == [0.5, 0.5]
    assert sample.inputs[1] == list(row().values())


def test_it_outlives_the_ledger_and_starts_without_it(world: World, serve: Start) -> None:
    """R135, P10: the ledger is taken away under load and before a fresh start; nothing fails."""
    world.version("delay")
    world.version("half")
    world.online(2, ("EWR", START, 10.0))
    plan = world.plan("delay", fallback="half")
    first = serve()
    first.wait(lambda status: status["table_version"] == 2)
    timestamp = (START + timedelta(minutes=5)).isoformat()
    wait_until((world.root / "serve" / MODEL / "online.msgpack").exists, "the online values are copied")
    world.store.ledger.close()
    for path in world.root.glob("ledger.db*"):
        path.rename(path.with_name("gone-" + path.name))
    for path in (world.root / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    for _ in range(20):
        assert first.infer([row(scheduled=timestamp)])[0] == 200
    assert first.stop() == 0
    second = serve()
    status = second.wait(lambda status: bool(status["ledger_error"]))
    assert status["plan"] == plan
    response = second.infer([row(scheduled=timestamp)])[1]
    assert response["model_version"] == world.names["delay"]
    assert response["outputs"][0]["data"][0] == pytest.approx(0.1)
    assert not (world.root / "ledger.db").exists(), "an empty ledger in the place of the lost one"
    for path in world.root.glob("gone-*"):
        path.rename(path.with_name(path.name.removeprefix("gone-")))
    second.wait(lambda status: not status["ledger_error"])


def test_a_plan_that_cannot_be_verified_is_not_followed(world: World, serve: Start) -> None:
    """A3: one byte of the blob changed; the old plan stands. A challenger of another contract (R133): only the champion."""
    world.version("half")
    broken = world.version("tenth")
    plan = world.plan("half")
    served = serve()
    [path] = [
        path for path in (world.root / "blobs").rglob("*") if path.name.startswith(broken.split("-")[1])
    ]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    world.plan("tenth", previous="half")
    status = served.wait(lambda status: bool(status["plan_error"]))
    assert status["plan"] == plan
    assert served.infer()[1]["model_version"] == world.names["half"]
    other = Contract(
        *CONTRACT.columns[:1], Category("carrier"), *CONTRACT.columns[2:6], Timestamp("scheduled", tz="UTC"),
        key="flight_id", event_time="scheduled", label=Label("late", delay="12h"),
    )  # fmt: skip
    world.version("above", other)
    world.plan("half", "above", 10_000)
    status = served.wait(lambda status: "another contract" in " ".join(status["unavailable"].values()))
    assert status["challenger"] is None
    assert served.infer(unit="u")[1]["model_version"] == world.names["half"]
    assert families(served)["holdfast_traffic_plans_rejected"][0].value == 1
    latest = world.plan("half")
    served.wait_for_plan(latest)


def test_no_version_is_not_ready_and_reports_it(world: World, serve: Start) -> None:
    served = serve(ready=False)
    assert served.call("/v2/health/live")[0] == 200
    assert served.call("/v2/health/ready")[0] == 503
    status, response = served.infer()
    assert (status, response["code"]) == (503, "HF503")
    assert served.call(f"/v2/models/{MODEL}")[0] == 503
    world.version("half")
    world.plan("half")
    served.wait(lambda status: status["ready"])
    assert served.infer()[0] == 200


def test_sigterm_drops_no_request(served: Served) -> None:
    """P11: every request on a connection gets its answer, the last one reports that it is the last, the process ends with 0."""
    outcomes: Counter[str] = Counter()

    def load() -> None:
        content = json.dumps(body())
        connection = http.client.HTTPConnection(served.where, timeout=60)
        closing = False
        try:
            while not closing:
                connection.request("POST", INFER, content)
                response = connection.getresponse()
                outcomes[str(response.status)] += 1
                response.read()
                closing = response.getheader("Connection") == "close"
        except (OSError, http.client.HTTPException):
            outcomes["lost"] += 1
        connection.close()

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert served.stop() == 0
    for thread in threads:
        thread.join()
    assert set(outcomes) == {"200"}
    assert outcomes["200"] > 50
