"""`holdfast contract` in a user's project and CI (R92): exit statuses, words, and the ledger behind them.

The commands run in this process; that each starts as a process of its own is shown by test_new_user.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.cli import app


@dataclass(frozen=True)
class Reported:
    """What a command printed."""

    stdout: str
    stderr: str


Run = Callable[..., Reported]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in a project that `init` wrote."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str, expect: int = 0) -> Reported:
        monkeypatch.setattr("sys.argv", ["holdfast", *arguments])
        with pytest.raises(SystemExit) as left:
            app.main()
        done = Reported(*capsys.readouterr())
        assert (left.value.code or 0) == expect, f"{arguments}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    command("init", "--name", "parcels")
    return command


def edit(path: Path, old: str, new: str, *, to: str | None = None) -> None:
    text = path.read_text()
    assert old in text
    (path.parent / to if to else path).write_text(text.replace(old, new))


WEIGHT = 'Number("weight_kg", unit="1", low=0)'


def test_diff_reports_what_breaks_and_fails_a_build(run: Run, tmp_path: Path) -> None:
    edit(tmp_path / "model.py", WEIGHT, 'Number("weight_kg", unit="g", low=0)', to="grams.py")
    edit(tmp_path / "model.py", WEIGHT, 'Number("weight_kg", unit="1")', to="wider.py")
    assert "no change" in run("contract", "diff", "model.py").stdout
    assert "weight_kg bound widened: 0.0 -> none" in run("contract", "diff", "model.py", "wider.py").stdout
    found = json.loads(run("contract", "diff", "model.py", "grams.py", "--json", expect=1).stdout)
    assert (found["kind"], [change["what"] for change in found["changes"]]) == ("breaking", ["unit changed"])
    assert found["boundaries"] == {"rows": "breaking", "callers": "breaking", "models": "breaking"}


def test_contracts_are_named_by_file_hash_and_feed(run: Run, tmp_path: Path) -> None:
    shown = json.loads(run("contract", "show", "model.py:rows", "--json").stdout)
    (tmp_path / "kept.json").write_text(shown["contract"])
    assert json.loads(run("contract", "diff", "kept.json", "model.py", "--json").stdout)["changes"] == []
    assert "HF303" in run("contract", "show", "rows", expect=3).stderr
    assert "HF303" in run("contract", "show", "deadbeef", expect=3).stderr


def test_a_feed_whose_contract_breaks_is_refused_accepted_and_reported(run: Run, tmp_path: Path) -> None:
    run("ingest", "rows", "parcels.csv", "--batch", "one")
    edit(tmp_path / "model.py", WEIGHT, 'Number("weight_kg", unit="1", low=0, high=500)')
    second = tmp_path / "second.csv"
    lines = (tmp_path / "parcels.csv").read_text().splitlines()
    second.write_text("\n".join([lines[0], *(f"x{line}" for line in lines[1:200])]) + "\n")
    refused = run("ingest", "rows", "second.csv", expect=1)
    assert "HF210" in refused.stderr
    assert "bound narrowed (none -> 500.0)" in " ".join(refused.stderr.split())
    assert "bound narrowed" in run("contract", "diff", "rows", expect=1).stdout
    assert "accepted by" in run("contract", "accept", "rows", "--reason", "no van takes more").stdout
    run("ingest", "rows", "second.csv")
    history = json.loads(run("contract", "history", "--json").stdout)["contracts"]
    assert [(line["feed"], line["batches"], line["change"]) for line in history] == [
        ("rows", 1, "-"),
        ("rows", 1, "breaking"),
    ]
    run("contract", "accept", "rows", "--reason", "again")
    assert "no change" in run("contract", "diff", "rows").stdout


def test_another_unit_is_not_accepted_next_to_rows_of_the_old_one(run: Run, tmp_path: Path) -> None:
    """Once what was loaded under the wrong unit is backed out, the right one can come, and the same file with it."""
    run("ingest", "rows", "parcels.csv", "--batch", "one")
    edit(tmp_path / "model.py", WEIGHT, 'Number("weight_kg", unit="g", low=0)')
    refused = run("contract", "accept", "rows", "--reason", "it was grams", expect=1).stderr
    reported = " ".join(refused.split())
    assert "HF210" in reported
    assert "live rows wrongly, those of one under contract" in reported
    assert "unit changed (1 -> g)" in reported
    assert "holdfast backout rows one" in reported
    run("backout", "rows", "one", "--apply", "--reason", "it was grams all along")
    run("contract", "accept", "rows", "--reason", "it was grams all along")
    run("ingest", "rows", "parcels.csv", "--batch", "one")


@pytest.mark.process
def test_many_files_are_loaded_by_several_processes(run: Run, tmp_path: Path) -> None:
    header, *lines = (tmp_path / "parcels.csv").read_text().splitlines()
    for day in range(3):
        rows = lines[day * 1_000 : (day + 1) * 1_000]
        (tmp_path / f"day{day}.csv").write_text("\n".join([header, *rows]) + "\n")
    loaded = json.loads(run("ingest", "rows", "day*.csv", "--executor", "processes", "--json").stdout)
    assert [(batch["batch"], batch["rows_loaded"]) for batch in loaded["batches"]] == [
        (f"day{day}", 1_000) for day in range(3)
    ]
    assert "HF103" in run("ingest", "rows", "day0.csv", "--executor", "spark", expect=2).stderr


def test_a_contract_is_suggested_from_data_and_compared_with_the_declared_one(
    run: Run, tmp_path: Path
) -> None:
    header, *lines = (tmp_path / "parcels.csv").read_text().splitlines()
    (tmp_path / "grams.csv").write_text(
        "\n".join([header.replace("weight_kg", "weight_kg [g]"), *lines]) + "\n"
    )
    found = json.loads(run("contract", "suggest", "grams.csv", "--feed", "rows", "--json").stdout)
    assert 'Number("weight_kg", unit="g", low=0, high=100)' in found["python"]
    assert "unit changed" in [change["what"] for change in found["difference"]["changes"]]
    assert "HF101" in run("contract", "suggest", expect=2).stderr


def test_a_suggestion_from_rows_keeps_the_zone_that_the_feed_declares(run: Run, tmp_path: Path) -> None:
    model = (tmp_path / "model.py").read_text()
    (tmp_path / "model.py").write_text(model.replace('tz="UTC"', 'tz="Europe/Oslo", naive="local"'))
    run("ingest", "rows", "parcels.csv", "--batch", "one")
    found = json.loads(run("contract", "suggest", "--feed", "rows", "--json").stdout)
    assert 'tz="Europe/Oslo", naive="local"' in found["python"]
    assert "zone" not in " ".join(change["what"] for change in found["difference"]["changes"])
    other = json.loads(run("contract", "suggest", "--feed", "rows", "--tz", "Asia/Tokyo", "--json").stdout)
    assert 'tz="Asia/Tokyo"' in other["python"]
