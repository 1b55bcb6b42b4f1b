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
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What `holdfast demo --json` prints."""
    directory = tmp_path_factory.mktemp("demo") / "stage"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    # Ports of its own: by the time that the servers start, another test may have those that the demo prefers.
    environment |= {name: str(free_port(0)) for name in ("HOLDFAST_PORT", "HOLDFAST_PAGE_PORT")}
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


def test_every_row_is_loaded_once_although_a_load_was_killed(told: dict) -> None:
    """R1, R3: 4 resubmissions of a killed load leave each row once."""
    assert told["killed_load_exit_status"] == -9
    assert told["rows_loaded"] + told["rows_quarantined"] == told["rows_delivered"]
    assert told["duplicates"] == 0
    assert told["verify_findings"] == 0
    # Newark reported a wind of 1,048 miles an hour in February 2013; the contract does not believe it.
    assert told["rows_quarantined"] >= 1


def test_the_champion_is_well_ahead_of_the_heuristic(told: dict) -> None:
    """R82: on days that it never learnt from."""
    assert told["auc_champion"] - told["auc_heuristic"] >= 0.03


def test_the_end_says_how_to_look_at_it_again(told: dict) -> None:
    assert told["reopen"] == f"holdfast up --project {told['directory']}"


def test_nobody_got_a_server_error(told: dict) -> None:
    assert told["requests"] > 5000
    assert told["http_5xx"] == 0
    assert told["http_4xx"] == 0


def test_the_good_version_was_promoted_and_the_bad_one_rolled_back(told: dict) -> None:
    """R117: rolled back without a person, and the champion is the version that was promoted before."""
    bad = told["bad_push"]
    assert bad["rolled_back_by"] == "holdfast"
    assert bad["version"] not in (told["champion"], None)
    assert 0 < bad["bad_answers"] < bad["requests_to_detect"]
    assert 0 < bad["rollback_seconds"] < 10
    assert len(told["versions"]) == 4
    assert told["champion"] == told["versions"][2]


def test_the_bad_weather_file_was_backed_out_with_everything_it_touched(told: dict) -> None:
    """R6-R10: the fingerprint had warned of it, a version learnt from it, and that version answered."""
    weather = told["bad_weather"]
    first, tainted, rebuilt, _ = told["versions"]
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


def test_the_demonstration_leaves_no_process_and_a_clean_store(told: dict) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "holdfast", "verify", "--json", "--project", str(told["directory"])],
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["findings"] == []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(told["directory"]) not in process.read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
