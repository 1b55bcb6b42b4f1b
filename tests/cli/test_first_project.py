"""A new user's own project, by the README: init, ingest, train, qualify, rollout, up, infer, feedback, status."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.records import Corrections
from holdfast.store import Store
from holdfast.store.serving import label_rules
from holdfast.store.telemetry import outcomes
from tests.support.project import Project, run_here
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

INFER = "/v2/models/parcels/infer"
REQUEST = {
    "id": "p00001",
    "inputs": [
        {"name": "parcel", "shape": [1], "datatype": "BYTES", "data": ["p00001"]},
        {"name": "handed_in", "shape": [1], "datatype": "BYTES", "data": ["2026-03-02T16:30:00Z"]},
        {"name": "town", "shape": [1], "datatype": "BYTES", "data": ["oslo"]},
        {"name": "weight_kg", "shape": [1], "datatype": "FP64", "data": [2.5]},
        {"name": "express", "shape": [1], "datatype": "BOOL", "data": [False]},
    ],
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose first version has passed its gates and is to be rolled out, made once by the README's commands."""
    project = Project(tmp_path_factory.mktemp("parcels"))
    for command in ("init --name parcels", "ingest rows parcels.csv", "train", "qualify", "rollout start"):
        project.run(*command.split())
    return project.directory


class Up:
    """`holdfast up` of a project, which may be killed and started again."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._stack = contextlib.ExitStack()
        self.start()

    def start(self) -> None:
        """Start it, again after a kill."""
        self.process = self._stack.enter_context(self.project.running("up"))

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self._stack.close()


@pytest.fixture(scope="module")
def up(prepared: Path) -> Iterator[Up]:
    """`holdfast up` of the prepared project, whose server is ready; the tests of this file play on it one after the other."""
    started = Up(Project(prepared))
    try:
        started.project.wait_for_server("parcels")
        yield started
        assert started.process.poll() is None
    finally:
        started.stop()


def children_of(pid: int) -> list[int]:
    """The processes that the process `pid` started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> list[str]:
    """The words that the process `pid` was started with."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def is_alive(pid: int) -> bool:
    """Return True if a process runs; one that has ended may wait, as a zombie, for a parent that never reaps it."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_response(project: Project) -> None:
    """Wait until server and page respond."""
    wait_until(lambda: project.request("POST", INFER, REQUEST)[0] == 200, "the server responds")
    wait_until(lambda: project.page("/api/status")[0] == 200, "the page responds")


def predict_and_label(project: Project) -> str:
    """Request a prediction, and send its label; the id of the prediction."""
    status, response = project.request("POST", INFER, REQUEST)
    assert status == 200, response
    assert 0.0 < response["outputs"][0]["data"][0] < 1.0
    prediction: str = response["parameters"]["prediction_id"]
    project.run("feedback", prediction, "true")
    return prediction


def labelled(project: Project) -> int:
    """How many labels are joined."""
    return sum(version["labelled"] for version in project.document("status")["versions"])


def test_from_nothing_to_a_prediction_and_its_label(up: Up) -> None:
    prediction = predict_and_label(up.project)
    refused = up.project.refused("feedback", prediction, "false", expect=1)
    assert "HF505" in refused
    assert "the earlier one stands" in refused
    by_key = ("feedback", "--key", "parcel=P-1")
    assert "no effect" not in up.project.run(*by_key, "yes")
    assert "no effect: the first label of the key counts" in up.project.run(*by_key, "no")
    wait_until(lambda: labelled(up.project) == 1, "the label is joined")
    wait_for_response(up.project)
    wait_until(lambda: '"promoted"' in up.project.run("status", "--json"), "the version is promoted")


def test_the_printed_example_request_gets_a_prediction(up: Up) -> None:
    """F17: the body that the command prints is what a caller sends, as it is."""
    printed = up.project.run("versions", "example-request")
    status, response = up.project.request("POST", INFER, json.loads(printed))
    assert status == 200, response
    assert "id" not in json.loads(printed), "a constant id makes all requests one unit of a rollout"
    document = up.project.document("versions", "example-request")
    assert document["url"].endswith(INFER)
    assert document["version"] == response["model_version"]
    status, response = up.project.request("POST", INFER, document["request"])
    assert status == 200, response


def test_a_label_of_several_rows_without_the_row_is_refused_by_the_command(up: Up) -> None:
    """F11: it labelled the first row, silently."""
    one = up.project.document("versions", "example-request")["request"]
    many = {
        "id": "many",
        "inputs": [
            each
            | {
                "shape": [3],
                "data": [f"P-{row}" for row in range(3)] if each["name"] == "parcel" else each["data"] * 3,
            }
            for each in one["inputs"]
        ],
    }
    status, response = up.project.request("POST", INFER, many)
    assert status == 200, response
    prediction = response["parameters"]["prediction_id"]
    refused = " ".join(up.project.refused("feedback", prediction, "true", expect=2).split())
    assert f"the request had 3 rows, and {prediction} names none of them" in refused
    assert f"send {prediction}/0 to {prediction}/2" in refused
    assert "is stored" in up.project.run("feedback", f"{prediction}/2", "true")


def test_a_declared_correction_is_taken_by_the_command(up: Up) -> None:
    """Issue 11: `holdfast feedback` corrects a label by its prediction id; another source cannot."""
    project = up.project
    prediction = predict_and_label(project)
    store = Store.open(project.directory / ".holdfast")

    def declare(corrections: Corrections) -> None:
        with store.ledger.write() as connection:
            label_rules.declare_corrections(connection, "parcels", corrections, now_us=1)

    declare("latest")
    correct = ("feedback", prediction, "false")
    wait_until(
        lambda: run_here(correct, project.directory, project.environment).status == 0, "the server follows"
    )
    error = project.refused("feedback", prediction, "true", "--source", "stranger", expect=1)
    assert "HF505" in error
    assert "quarantined" in error

    def outcome() -> float | None:
        with store.ledger.read() as connection:
            return outcomes.labels_of(connection, [f"{prediction}/0"]).get(f"{prediction}/0")

    wait_until(lambda: outcome() == 0.0, "the correction counts")
    declare("first")
    store.ledger.close()


def test_the_server_loads_only_what_predicts(up: Up) -> None:
    """Its shared libraries, by the kernel's account, after it followed plans and responded."""
    wait_for_response(up.project)
    (server,) = [each for each in children_of(up.process.pid) if "serve" in command_line(each)]
    libraries = re.findall(r"/site-packages/(\w+)[^\n]*\.so", Path(f"/proc/{server}/maps").read_text())
    assert "onnxruntime" in libraries
    assert (
        set(libraries) & {"deltalake", "lightgbm", "onnx", "polars", "pyarrow", "scipy", "sklearn"} == set()
    )
    assert not any("polars" in each for each in libraries)


def test_every_process_comes_back_after_kill_9(up: Up) -> None:
    """kill -9 of server, control loop and page: the group goes on, and nothing is wrong afterwards."""
    children = children_of(up.process.pid)
    assert len(children) == 3
    for child in children:
        os.kill(child, signal.SIGKILL)
    wait_for_response(up.project)
    assert up.project.document("verify")["findings"] == []


def test_up_killed_and_started_again_goes_on_once_its_ports_are_free(up: Up) -> None:
    """kill -9 of `up` itself: its processes end with it, and the same command runs again on the same ports.

    Meanwhile another program has the page's port: the page and `up` name it and end, and nothing was started.
    """
    project, children, before = up.project, children_of(up.process.pid), labelled(up.project)
    up.process.kill()
    up.process.wait()
    wait_until(lambda: not any(is_alive(child) for child in children), "its processes end")
    with socket.create_server(("127.0.0.1", project.page_port)):
        for command in ("page", "up"):
            error = project.refused(command, expect=2)
            assert "HF507" in error
            assert str(project.page_port) in error
    up.start()
    project.wait_for_server("parcels")
    predict_and_label(project)
    wait_until(lambda: labelled(project) == before + 1, "the control loop joins a label")
    wait_for_response(project)
    assert project.document("verify")["findings"] == []


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    project = Project(tmp_path)
    rows = ["order,Ordered at,amount,country,returned"]
    rows += [
        f"{n},2026-01-{1 + n // 20:02d}T{n % 20:02d}:00:00Z,{n % 7}.5,no,{'true' if n % 3 else 'false'}"
        for n in range(400)
    ]
    (tmp_path / "orders.csv").write_text("\n".join(rows) + "\n")
    project.run("init", "orders.csv", "--key", "order", "--tz", "Europe/Oslo")
    checked = project.document("check", "rows", "orders.csv")
    assert (checked["rows"], checked["quarantined"]) == (400, 0)
    assert project.run("ingest", "rows", "orders.csv", "--json").count("loaded") > 0
    again = project.document("ingest", "rows", "orders.csv")
    assert again["batches"][0]["state"] == "already_loaded"
    assert "model.py exists already" in project.refused("init", expect=1)
