"""What commands leave for other programs: lines in a pipe that no width breaks, and a model file without a loose end."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from holdfast.cli.app import app, load_commands


def piped(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command as a script runs it: both outputs are pipes."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")
    }
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *words, "--project", str(directory)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


BATCH = "a-batch-whose-name-is-long-" + "x" * 30


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of `holdfast init` with its example as one batch."""
    directory = tmp_path_factory.mktemp("parcels")
    load_commands("")
    for words in (["init"], ["ingest", "rows", str(directory / "parcels.csv"), "--batch", BATCH]):
        done = CliRunner().invoke(app, [*words, "--project", str(directory)])
        assert done.exit_code == 0, (done.output, done.exception)
    return directory


@pytest.mark.process
def test_an_error_is_three_lines_however_long(project: Path) -> None:
    other = project / f"{'a long name' * 12}.csv"
    other.write_text("".join((project / "parcels.csv").read_text().splitlines(keepends=True)[:-1]))
    done = piped(project, "ingest", "rows", str(other), "--batch", BATCH)
    error, state, following = done.stderr.splitlines()
    assert error.startswith("error HF203 ")
    assert state.startswith("  state: ")
    assert following.startswith("  next:  ")
    assert len(following) > 80
    assert done.returncode == 1


@pytest.mark.process
def test_a_name_in_a_table_is_whole(project: Path) -> None:
    lines = piped(project, "feeds", "rows", "--batches").stdout.splitlines()
    assert len([line for line in lines if BATCH in line]) == 1
    assert max(map(len, lines)) > 80


def test_the_model_file_of_init_is_a_tidy_one(project: Path) -> None:
    source = (project / "model.py").read_text()
    assert source.endswith(")\n")
    imported, *rest = [node for node in ast.parse(source).body if not isinstance(node, ast.Expr)]
    assert isinstance(imported, ast.ImportFrom)
    named = {each.name for each in imported.names}
    assert (
        named == {node.id for part in rest for node in ast.walk(part) if isinstance(node, ast.Name)} & named
    )
    assert {"Contract", "Model", "Feed"} <= named
