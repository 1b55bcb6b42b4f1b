"""The demonstration, played whole: the acceptance of the main path on real flights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli.demo.sandbox import free_port


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What `holdfast demo --json` prints."""
    directory = tmp_path_factory.mktemp("demo") / "stage"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    # Ports of its own: by the time that the servers start, another test may have those that the demo prefers.
    environment |= {
        name: str(free_port(0)) for name in ("HOLDFAST_PORT", "HOLDFAST_PAGE_PORT", "HOLDFAST_CONTROL_PORT")
    }
    run = subprocess.run(
        [sys.executable, "-m", "holdfast", "demo", "--json", "--directory", str(directory)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3600,
        env=environment,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    (line,) = run.stdout.splitlines()
    document = json.loads(line)
    document["directory"] = str(directory)
    return document


def test_every_row_is_loaded_once_although_a_load_was_killed(reported: dict) -> None:
    """R1, R3: 4 resubmissions of a killed load leave each row once."""
    assert reported["killed_load_exit_status"] == -9
    assert reported["rows_loaded"] + reported["rows_quarantined"] == reported["rows_delivered"]
    assert reported["duplicates"] == 0
    assert reported["verify_findings"] == 0
    # Newark reported a wind of 1,048 miles an hour in February 2013; the contract does not believe it.
    assert reported["rows_quarantined"] >= 1


def test_the_champion_is_well_ahead_of_the_heuristic(reported: dict) -> None:
    """R82: on days that it was never trained on."""
    assert reported["auc_champion"] - reported["auc_heuristic"] >= 0.03


def test_the_end_reports_how_to_look_at_it_again(reported: dict) -> None:
    assert reported["reopen"] == f"holdfast up --project {reported['directory']}"


def test_no_caller_got_a_server_error(reported: dict) -> None:
    assert reported["requests"] > 5000
    assert reported["http_5xx"] == 0
    assert reported["http_4xx"] == 0


def test_the_good_version_was_promoted_and_the_bad_one_rolled_back(reported: dict) -> None:
    """R117: rolled back without a person, and the champion is the version that was promoted before."""
    bad = reported["bad_push"]
    assert bad["rolled_back_by"] == "holdfast"
    assert bad["version"] not in (reported["champion"], None)
    assert 0 < bad["bad_answers"] < bad["requests_to_detect"]
    assert 0 < bad["rollback_seconds"] < 10
    assert len(reported["versions"]) == 4
    assert reported["champion"] == reported["versions"][2]


def test_the_bad_weather_file_was_backed_out_with_everything_it_touched(reported: dict) -> None:
    """R6-R10: the fingerprint had warned of it, a version was trained on it, and that version answered."""
    weather = reported["bad_weather"]
    first, tainted, rebuilt, _ = reported["versions"]
    assert "temperature" in weather["warned"]
    assert weather["http_5xx"] == 0
    assert weather["rows_removed"] > 72  # the departures of the day, which are of its group, went too
    assert tainted in weather["tainted_versions"]
    assert len(weather["tainted_versions"]) == 2  # the version and its heuristic
    assert (weather["tainted_live"], weather["clean_version"], weather["rebuilt"]) == (
        tainted,
        first,
        rebuilt,
    )
    assert weather["tainted_predictions"] > 0
    assert weather["predictions_at_most"] > 0
    assert 0 < weather["rollback_seconds"] < 10


def test_the_demonstration_leaves_no_process_and_a_clean_store(reported: dict) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "holdfast", "verify", "--json", "--project", str(reported["directory"])],
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["findings"] == []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(reported["directory"]) not in process.read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
