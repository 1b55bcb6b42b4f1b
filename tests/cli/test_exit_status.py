"""How a command ends, for an orchestrator: its exit status, its errors as JSON, and a reader that leaves before the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli.output import EXIT_STATUS, exit_status
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    InputError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from tests.support.project import Project, run_here

HEAD = "parcel,handed_in,town,weight_kg,express,late\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The project of `holdfast init`, whose loads need a valid row of every two."""
    made = Project(tmp_path)
    made.run("init", "--name", "parcels")
    return made


def status(project: Project, *words: str) -> int:
    """The exit status of a command."""
    return run_here(words, project.directory, project.environment).status


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("HF101", "x"), 2),
        (NotFoundError("HF303", "x"), 3),
        (ConflictError("HF203", "x"), 1),
        (ConflictError("HF304", "x"), 75),
        (RefusedError("HF207", "x"), 1),
        (IntegrityError("HF301", "x"), 1),
        (UnavailableError("HF302", "x"), 75),
        (HoldfastError("HF901", "x"), 70),
    ],
)
def test_each_kind_of_error_has_its_status(error: HoldfastError, expected: int) -> None:
    assert exit_status(error) == expected
    assert expected in EXIT_STATUS


def test_check_ends_as_ingest_would(project: Project) -> None:
    """A file without a valid row, one with other columns, a good one."""
    files = {
        "none.csv": "p1,yesterday,oslo,1.5,true,false\n",
        "good.csv": "p1,2026-01-01T00:00:00Z,oslo,1.5,true,false\n",
    }
    for name, row in files.items():
        (project.directory / name).write_text(HEAD + row)
    (project.directory / "columns.csv").write_text("parcel\np1\n")
    checked = [status(project, "check", "rows", name) for name in ("none.csv", "columns.csv", "good.csv")]
    assert checked == [1, 2, 0]
    unread = run_here(("check", "rows", "columns.csv"), project.directory, project.environment).stdout
    assert "columns.csv cannot be read as rows of rows" in " ".join(unread.split())
    assert "would be refused" not in unread
    assert checked == [
        status(project, "ingest", "rows", name) for name in ("none.csv", "columns.csv", "good.csv")
    ]


def test_a_suspect_batch_ends_check_and_ingest_with_1_until_it_is_accepted(project: Project) -> None:
    model = project.directory / "model.py"
    model.write_text(model.read_text().replace("rows=Volume(", "rows=Volume(at_least=3, "))
    row = "2026-01-01T00:00:00Z,oslo,1.5,true,false\n"
    (project.directory / "few.csv").write_text(HEAD + "".join(f"p{n},{row}" for n in range(2)))
    assert status(project, "check", "rows", "few.csv") == 1
    loaded = run_here(("ingest", "rows", "few.csv", "--json"), project.directory, project.environment)
    assert (loaded.status, json.loads(loaded.stdout)["suspect"]) == (1, ["few"])
    assert status(project, "ingest", "rows", "few.csv") == 1, "and again"
    project.run("accept", "rows", "few", "--reason", "a holiday")
    assert status(project, "ingest", "rows", "few.csv") == 0


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("train", "--nonsense"), "No such option: --nonsense"),
        (("up", "--port", "9000"), "No such option: --port; it is the setting HOLDFAST_PORT"),
        (("ingest",), "Missing argument 'feed'"),
        (("train", "--seed", "x"), "Invalid value for '--seed'"),
        (("snapshot", "nonsense"), "No such command 'nonsense'"),
    ],
)
def test_usage_errors_are_errors_as_all_others(tmp_path: Path, words: tuple[str, ...], what: str) -> None:
    for given in (words, (*words, "--json")):
        done = run_here(given, tmp_path, dict(os.environ))
        assert done.status == 2
        if "--json" in given:
            error = json.loads(done.stdout)["error"]
            assert error["code"] == "HF101"
            assert error["what"].lower().startswith(what.lower())
            is_setting = "it is the setting" in what
            assert error["next_command"].endswith("--help") or is_setting
        else:
            assert "HF101" in done.stderr


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        ("up --port 9000", "HOLDFAST_PORT"),
        ("page --port=9000", "HOLDFAST_PAGE_PORT"),
        ("control --port 9000", "HOLDFAST_CONTROL_PORT"),
        ("serve --host 0.0.0.0", "HOLDFAST_HOST"),
        ("serve --bind 0.0.0.0", "HOLDFAST_HOST"),
        ("rollout start --root /srv/holdfast", "HOLDFAST_ROOT"),
        ("status --ledger postgresql://db", "HOLDFAST_LEDGER"),
        ("up --log-level debug", "HOLDFAST_LOG_LEVEL"),
    ],
)
def test_the_error_about_an_option_that_is_a_setting_names_it(
    tmp_path: Path, words: str, setting: str
) -> None:
    done = run_here((*words.split(), "--json"), tmp_path, dict(os.environ))
    error = json.loads(done.stdout)["error"]
    assert error["what"].endswith(f"it is the setting {setting}")
    named = " ".join(word for word in words.split(" --")[0].split())
    assert error["next_command"] == f"{setting}=VALUE holdfast {named}"


def test_an_exception_of_the_users_code_is_no_defect_of_ours(project: Project) -> None:
    """In the model file, and in a learner of one's own."""
    model = project.directory / "model.py"
    source = model.read_text()
    project.run("ingest", "rows", "parcels.csv")
    model.write_text("raise SystemExit(3)\n")
    assert "HF102" in project.refused("check", expect=2)
    own = (
        "class Own:\n    name = 'own'\n    parameters = {}\n"
        "    def fit(self, x, y, names, *, seed, weights=None):\n        return names[0].nonsense\n\n"
    )
    model.write_text(
        source.replace("contract = ", own + "contract = ", 1).replace("LightGBM(trees=100)", "Own()")
    )
    error = project.refused("train", expect=1)
    assert "HF402" in error
    assert "model.py, line" in error


@pytest.mark.process
@pytest.mark.parametrize("words", ["--help", "check --help", "--version", "feeds", "feeds --json", "events"])
def test_a_reader_that_leaves_before_the_end_is_no_error(project: Project, words: str) -> None:
    _run_without_reader(project, words)


@pytest.mark.process
def test_a_reader_of_lines_that_leaves_before_the_end_is_no_error(project: Project) -> None:
    """As `head -1` does under pipefail."""
    project.run("ingest", "rows", "parcels.csv", "--batch", "all")
    for words in ("events --json", "events --cdevents", "status --json", "lineage rows/all --openlineage"):
        _run_without_reader(project, words)


def _run_without_reader(project: Project, words: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *words.split()],
        cwd=project.directory, env=project.environment, stdout=write, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
