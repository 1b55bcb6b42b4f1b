"""A new user's own project, by the README: init, ingest, train, qualify, rollout, up, ask, tell, status."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.cli.demo.sandbox import free_port
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ports() -> dict[str, str]:
    return {"HOLDFAST_PORT": str(free_port(0)), "HOLDFAST_PAGE_PORT": str(free_port(0))}


def command_in(directory: Path, environment: dict[str, str]) -> Run:
    """Runs a command in `directory`."""

    def command(*arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "holdfast", *arguments],
            cwd=directory,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == expect, f"{arguments}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return command


@pytest.fixture
def run(tmp_path: Path, ports: dict[str, str]) -> Run:
    return command_in(tmp_path, ports)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose first version has passed its gates, made once by the README's commands."""
    directory = tmp_path_factory.mktemp("parcels")
    command = command_in(directory, {})
    command("init", "--name", "parcels")
    command("ingest", "rows", "parcels.csv")
    command("train")
    command("qualify")
    return directory


@pytest.fixture
def qualified(run: Run, prepared: Path, tmp_path: Path) -> Run:
    """A copy of the prepared project, to do anything with."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return run


@pytest.fixture
def running(qualified: Run, tmp_path: Path, ports: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`holdfast up`, with the first version rolled out."""
    qualified("rollout", "start")
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "up"],
        cwd=tmp_path,
        env=os.environ | ports,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def call(port: str, method: str, path: str, body: object = None) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else {}
    except OSError:
        return 0, {}
    finally:
        connection.close()


def alive(pid: str) -> bool:
    """Whether a process runs; one that has ended may wait, as a zombie, for a parent that never asks."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


ASKED = {
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
def group(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, int]]:
    """A copy of the prepared project with its first version rolled out, and the process of its `holdfast up`."""
    project = Project(Path(shutil.copytree(prepared, tmp_path_factory.mktemp("group") / "parcels")))
    project.run("rollout", "start")
    with project.running("up") as process:
        project.wait_for_server("parcels")
        yield project, process.pid
        assert process.poll() is None


def test_from_nothing_to_a_prediction_and_its_label(group: tuple[Project, int]) -> None:
    project, _ = group
    status, answer = project.request("POST", "/v2/models/parcels/infer", ASKED)
    assert status == 200, answer
    assert 0.0 < answer["outputs"][0]["data"][0] < 1.0
    prediction = answer["parameters"]["prediction_id"]
    project.run("feedback", prediction, "true")
    refused = project.refused("feedback", prediction, "false", expect=4)
    assert "HF505" in refused
    assert "the earlier one stands" in refused

    def joined() -> bool:
        return sum(version["labelled"] for version in project.document("status")["versions"]) == 1

    wait_until(joined, "the label is joined")
    assert call(str(project.page_port), "GET", "/api/status")[0] == 200


def test_every_process_comes_back_after_kill_9(group: tuple[Project, int]) -> None:
    """kill -9 of server, control loop and page: the group goes on, and nothing is wrong afterwards."""
    project, pid = group
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 3
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    wait_until(lambda: project.request("POST", "/v2/models/parcels/infer", ASKED)[0] == 200)
    wait_until(lambda: call(str(project.page_port), "GET", "/api/status")[0] == 200)
    assert project.document("verify")["findings"] == []


def test_a_file_of_ones_own(run: Run, tmp_path: Path) -> None:
    rows = ["order,ordered at,amount,returned"]
    (tmp_path / "bad.csv").write_text("\n".join(rows) + "\n1,2026-01-01T00:00:00Z,3,true\n")
    refused = run(
        "init", "bad.csv", "--label", "returned", "--key", "order", "--event-time", "ordered at", expect=2
    )
    assert "ordered at" in refused.stderr
    rows = ["order,ordered_at,amount,country,returned"]
    rows += [
        f"{n},2026-01-{1 + n // 20:02d}T{n % 20:02d}:00:00Z,{n % 7}.5,no,{'true' if n % 3 else 'false'}"
        for n in range(400)
    ]
    (tmp_path / "orders.csv").write_text("\n".join(rows) + "\n")
    run("init", "orders.csv", "--key", "order", "--tz", "Europe/Oslo")
    checked = json.loads(run("check", "rows", "orders.csv", "--json").stdout)
    assert (checked["rows"], checked["quarantined"]) == (400, 0)
    assert run("ingest", "rows", "orders.csv", "--json").stdout.count("loaded") > 0
    again = json.loads(run("ingest", "rows", "orders.csv", "--json").stdout)
    assert again["batches"][0]["state"] == "already_loaded"
    assert "model.py exists already" in run("init", expect=4).stderr


def test_up_killed_and_given_again_goes_on(
    running: subprocess.Popen[bytes], run: Run, tmp_path: Path, ports: dict[str, str]
) -> None:
    """kill -9 of `up` itself: its processes end with it, and the same command runs again on the same ports."""
    port = ports["HOLDFAST_PORT"]
    wait_until(lambda: call(port, "POST", "/v2/models/parcels/infer", ASKED)[0] == 200)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    running.kill()
    running.wait()
    again = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "up"],
        cwd=tmp_path,
        env=os.environ | ports,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: not any(alive(child) for child in children))
        wait_until(lambda: call(port, "POST", "/v2/models/parcels/infer", ASKED)[0] == 200)
        wait_until(lambda: call(ports["HOLDFAST_PAGE_PORT"], "GET", "/api/status")[0] == 200)
    finally:
        again.send_signal(signal.SIGINT)
        again.wait(30)
    assert json.loads(run("verify", "--json").stdout)["findings"] == []


def test_a_taken_port_is_named_and_stops_nothing_else(
    qualified: Run, tmp_path: Path, ports: dict[str, str]
) -> None:
    """The page cannot start; server and control loop do, and the first version is rolled out."""
    qualified("rollout", "start")
    with socket.create_server(("127.0.0.1", int(ports["HOLDFAST_PAGE_PORT"]))):
        said = qualified("page", expect=2).stderr
        assert "HF507" in said
        assert ports["HOLDFAST_PAGE_PORT"] in said
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast", "up"],
            cwd=tmp_path,
            env=os.environ | ports,
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: '"promoted"' in qualified("status", "--json").stdout)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
