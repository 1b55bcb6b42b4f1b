"""A new user's own project, by the README: init, ingest, train, qualify, rollout, up, infer, feedback, status."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import Project
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


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Project:
    """A copy of the prepared project, to do anything with."""
    return Project(Path(shutil.copytree(prepared, tmp_path / "parcels")))


@pytest.fixture(scope="module")
def group(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, int]]:
    """A copy of the prepared project, and the process of its `holdfast up`."""
    project = Project(Path(shutil.copytree(prepared, tmp_path_factory.mktemp("group") / "parcels")))
    with project.running("up") as process:
        project.wait_for_server("parcels")
        yield project, process.pid
        assert process.poll() is None


def children_of(pid: int) -> list[int]:
    """The processes that the process `pid` started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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


def test_from_nothing_to_a_prediction_and_its_label(group: tuple[Project, int]) -> None:
    project, _ = group
    status, response = project.request("POST", INFER, REQUEST)
    assert status == 200, response
    assert 0.0 < response["outputs"][0]["data"][0] < 1.0
    prediction = response["parameters"]["prediction_id"]
    project.run("feedback", prediction, "true")
    refused = project.refused("feedback", prediction, "false", expect=4)
    assert "HF505" in refused
    assert "the earlier one stands" in refused

    def joined() -> bool:
        return sum(version["labelled"] for version in project.document("status")["versions"]) == 1

    wait_until(joined, "the label is joined")
    wait_for_response(project)


def test_every_process_comes_back_after_kill_9(group: tuple[Project, int]) -> None:
    """kill -9 of server, control loop and page: the group goes on, and nothing is wrong afterwards."""
    project, pid = group
    children = children_of(pid)
    assert len(children) == 3
    for child in children:
        os.kill(child, signal.SIGKILL)
    wait_for_response(project)
    assert project.document("verify")["findings"] == []


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    project = Project(tmp_path)
    rows = ["order,ordered at,amount,returned"]
    (tmp_path / "bad.csv").write_text("\n".join(rows) + "\n1,2026-01-01T00:00:00Z,3,true\n")
    refused = project.refused(
        *("init", "bad.csv", "--label", "returned", "--key", "order", "--event-time", "ordered at"), expect=2
    )
    assert "ordered at" in refused
    rows = ["order,ordered_at,amount,country,returned"]
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
    assert "model.py exists already" in project.refused("init", expect=4)


def test_up_killed_and_started_again_goes_on(project: Project) -> None:
    """kill -9 of `up` itself: its processes end with it, and the same command runs again on the same ports."""
    with project.running("up") as process:
        wait_for_response(project)
        children = children_of(process.pid)
        process.kill()
        process.wait()
    with project.running("up"):
        wait_until(lambda: not any(is_alive(child) for child in children), "its processes end")
        wait_for_response(project)
    assert project.document("verify")["findings"] == []


def test_a_taken_port_is_named_and_stops_nothing_else(project: Project) -> None:
    """The page cannot start; server and control loop do, and the first version is rolled out."""
    with socket.create_server(("127.0.0.1", project.page_port)):
        error = project.refused("page", expect=2)
        assert "HF507" in error
        assert str(project.page_port) in error
        with project.running("up"):
            wait_until(lambda: '"promoted"' in project.run("status", "--json"), "the version is promoted")
