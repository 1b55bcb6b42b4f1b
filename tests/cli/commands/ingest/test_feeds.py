"""What a person reads of the feeds in a window of 80 columns."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from holdfast.cli import app
from holdfast.cli.commands.ingest import feeds
from holdfast.cli.project import now_us
from holdfast.records import DAY_US, MINUTE_US
from tests.support.project import Project, run_here

MODEL = """
from holdfast import (
    Category, Contract, Expectations, Feed, GroupMean, Integer, Label, Limits, LogisticRegression, Model,
    Number, Ordinal, Passthrough, Timestamp,
)

columns = (Integer("id"), Timestamp("at", tz="UTC"), Number("size", unit="1", high=10), Category("place"))
whole = Contract(*columns, key="id", event_time="at", label=Label("late", delay="1h"))
rows = Feed("departures", whole, expects=Expectations(interval="1d", invalid_rows=Limits(error=1)))
other = Feed("arrivals", Contract(*columns, key="id", event_time="at"))
model = Model(
    "site", examples=rows, feeds=(rows, other), contract=whole, features=(Passthrough("size"),), learner=LogisticRegression(),
    heuristic=GroupMean(by=(Ordinal("place"),)),
)
"""


def test_the_table_of_feeds_is_read_in_eighty_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "model.py").write_text(MODEL)
    lines = [f"{row},2026-01-02T0{row}:30:00Z,{row if row else 99},x,true" for row in range(5)]
    (tmp_path / "d.csv").write_text("\n".join(["id,at,size,place,late", *lines]) + "\n")
    for arguments in (["ingest", "departures", "d.csv", "--batch", "d"], ["feeds"]):
        monkeypatch.setattr("sys.argv", ["holdfast", *arguments])
        with pytest.raises(SystemExit):
            app.main()
        reported = capsys.readouterr().out
        monkeypatch.setattr(feeds, "now_us", lambda: now_us() + 3 * DAY_US)
    shown = [line.split() for line in reported.splitlines()]
    assert all(len(line) <= 80 for line in reported.splitlines()[:4])
    assert shown[1] == ["feed", "state", "batches", "rows", "bad", "rows", "newest", "event"]
    assert shown[2] == ["arrivals", "no", "batch", "0", "0", "0", "-"]
    assert shown[3] == ["departures", "suspect", "1", "4", "1", "2026-01-02", "04:30Z"]
    assert "overdue departures: its next batch, by " in reported
    assert "next: holdfast ingest departures FILE, or correct interval=" in " ".join(reported.split())
    monkeypatch.setattr(feeds, "now_us", lambda: now_us() + DAY_US + 30 * MINUTE_US)
    with pytest.raises(SystemExit):
        app.main()
    assert re.search(r"its next batch, by 3\d\.\d min\n", capsys.readouterr().out), "and never by 0 h"
    monkeypatch.setattr("sys.argv", ["holdfast", "quarantine", "departures", "d"])
    with pytest.raises(SystemExit):
        app.main()
    assert "size=99" in capsys.readouterr().out, "the value that was refused, next to its reason"
    assert "violations departures: 1 error" in reported
    assert "  next: holdfast feeds departures\n" in reported
    monkeypatch.setattr("sys.argv", ["holdfast", "feeds", "departures"])
    with pytest.raises(SystemExit):
        app.main()
    of_one = capsys.readouterr().out
    assert "(loaded) invalid_rows" in of_one, "its violations"
    assert "next: holdfast feeds" not in of_one, "a command that suggests itself"
    assert "next: holdfast backout departures d, or holdfast accept departures d --reason WHY" in of_one


def test_a_file_of_another_feed_is_given_to_that_feed(tmp_path: Path) -> None:
    project = Project(tmp_path)
    other = """other = Feed(
    "arrivals",
    Contract(Integer("flight"), Timestamp("landed", tz="UTC"), key="flight", event_time="landed"),
    csv=Csv(";"),
)
"""
    lines = MODEL.splitlines(keepends=True)
    text = "".join(other if line.startswith("other = ") else line for line in lines)
    (tmp_path / "model.py").write_text(text.replace("import (", "import (\n    Csv,", 1))
    (tmp_path / "a day.csv").write_text("flight;landed\n1;2026-01-02T00:30:00Z\n")
    for command in ("check", "ingest"):
        found = run_here([command, "departures", "a day.csv", "--json"], tmp_path, project.environment)
        error = json.loads(found.stdout)["error"]
        assert error["what"] == (
            "a day.csv has none of the columns of feed 'departures': is it of another feed, or without a header? "
            "Feed 'arrivals' has its columns"
        )
        assert error["next_command"] == "holdfast ingest arrivals 'a day.csv'"
    (tmp_path / "other.csv").write_text("Tree;Height\n1;2\n")
    found = run_here(["ingest", "departures", "other.csv", "--json"], tmp_path, project.environment)
    assert json.loads(found.stdout)["error"]["next_command"].startswith("holdfast ingest FEED other.csv")
