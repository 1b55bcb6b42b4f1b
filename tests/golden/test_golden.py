"""Stores that earlier code made are opened by today's: ledger, rows, snapshots, versions, and the log of a server (R93).

Whatever lies in `tests/golden/<n>/` is opened, each time from a copy. `python -m tests.golden.write` makes the next one.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from holdfast.store.serving.log_directory import all_of, segments
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, read
from tests.golden.write import GOLDEN
from tests.support.project import Project

STORES = sorted((path for path in GOLDEN.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))

pytestmark = pytest.mark.process


@pytest.fixture(scope="module", params=STORES, ids=lambda path: path.name)
def golden(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, dict[str, Any]]:
    """A copy of the project, and what has to be read from it."""
    directory: Path = request.param
    copy = tmp_path_factory.mktemp("golden")
    with tarfile.open(directory / "project.tar.gz") as archive:
        archive.extractall(copy, filter="data")
    expected = json.loads((directory / "expected.json").read_text())
    return Project(copy / expected["model"]), expected


def test_verify_and_audit_find_nothing(golden: tuple[Project, dict[str, Any]]) -> None:
    """The first command migrates the ledger."""
    project, expected = golden
    assert project.document("verify")["findings"] == []
    project.run("audit")
    assert len(project.run("events", "--json").splitlines()) >= expected["events"]


def test_snapshots_and_versions_are_those_that_were_made(golden: tuple[Project, dict[str, Any]]) -> None:
    project, expected = golden
    found = [each["snapshot"] for each in project.document("snapshot", "list")["snapshots"]]
    assert found == expected["snapshots"]
    for name in expected["snapshots"]:
        project.run("snapshot", "show", name)
    states = {each["version"]: each["state"] for each in project.document("status")["versions"]}
    assert states == expected["versions"]


def test_the_version_serves_the_golden_requests(golden: tuple[Project, dict[str, Any]]) -> None:
    project, expected = golden
    with project.running("serve"):
        project.wait_for_server(expected["model"])
        for each in expected["requests"]:
            path = f"/v2/models/{expected['model']}/infer"
            status, response = project.request("POST", path, each["request"])
            assert status == 200, response
            assert response["outputs"][0]["data"][0] == pytest.approx(each["probability"], abs=1e-6)


def test_the_log_of_the_server_is_read(golden: tuple[Project, dict[str, Any]]) -> None:
    project, expected = golden
    records = [
        record
        for directory in all_of(project.directory / ".holdfast")
        for _, path in segments(directory)
        for record in read(path)[0]
    ]
    served = [each for each in records if isinstance(each, PredictionRecord)]
    assert [each.probabilities[0] for each in served[: len(expected["requests"])]] == [
        pytest.approx(each["probability"], abs=1e-6) for each in expected["requests"]
    ]
    assert [each.value for each in records if isinstance(each, FeedbackRecord)] == [1.0]
