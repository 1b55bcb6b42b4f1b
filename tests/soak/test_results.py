"""RESULTS.md has no number that no record has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.command import RECORDS, ROOT, Command


def test_the_page_is_what_the_records_make() -> None:
    """Run `make results` after a record was kept or a docstring changed."""
    assert results.PAGE.read_text(encoding="utf-8") == results.page()


def test_every_record_names_its_command_and_where_it_ran() -> None:
    for path in RECORDS.glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert (ROOT / record["module"].replace(".", "/")).with_suffix(".py").exists()
        assert record["command"].startswith(f"python -m {record['module']}")
        assert record["commit"]
        assert record["load"] or record["note"], path


def test_a_record_becomes_a_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = Command("benchmarks.verify", "Whatever.", records=tmp_path)
    command.size("--files", 10_000, 50)
    assert command.parse(["--files", "7", "--record"]).files == 7
    command.finish({"files": 7, "rows": 12_345, "ways": {"quick": {"s": 0.5}, "whole": {"s": 1.5}}})
    page = results.page(tmp_path)
    assert json.loads(capsys.readouterr().out)["benchmark"] == "verify"
    assert "## `python -m benchmarks.verify --files 7`" in page
    assert "| rows | 12,345 |" in page
    assert "| ways | s |\n| --- | --- |\n| quick | 0.5 |\n| whole | 1.5 |" in page


def test_smoke_makes_small_what_is_not_named() -> None:
    command = Command("benchmarks.verify", "Whatever.")
    command.size("--files", 10_000, 50)
    command.size("--rounds", 3, 1)
    assert command.parse([]).files == 10_000
    small = command.parse(["--smoke", "--rounds", "2"])
    assert (small.files, small.rounds) == (50, 2)


def test_the_figures_of_a_smoke_are_not_kept() -> None:
    with pytest.raises(SystemExit):
        Command("benchmarks.verify", "Whatever.").parse(["--smoke", "--record"])
