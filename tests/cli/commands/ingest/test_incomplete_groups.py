"""A delivery of a group that never becomes whole: shown, admitted by a person, and whole again when the rest comes (R8, R56).

The commands run in this process; that each starts as a process of its own is shown by test_new_user.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import app
from holdfast.cli.project import Project
from holdfast.control.ingest.acceptance import ACCEPTED_INCOMPLETE
from holdfast.control.maintenance.verify import verify
from holdfast.store.db import events
from holdfast.tables.snapshots import LoadKey

MODEL = """
from holdfast import (
    Category, Contract, Feed, GroupMean, Integer, Label, LogisticRegression, Model, Number, Ordinal,
    Passthrough, Timestamp,
)

columns = (Integer("id"), Timestamp("at", tz="UTC"), Number("size", unit="1"), Category("place"))
whole = Contract(*columns, key="id", event_time="at", label=Label("late", delay="1h"))
rows = Feed("rows", whole, group="site")
air = Feed("air", Contract(*columns, key="id", event_time="at"), group="site")
model = Model(
    "site", examples=rows, feeds=(rows, air), contract=whole, features=(Passthrough("size"),), learner=LogisticRegression(),
    heuristic=GroupMean(by=(Ordinal("place"),)),
)
"""

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in a project with two feeds of one group, and gives its JSON, or its words where it fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)

    def command(*arguments: str, expect: int = 0) -> Any:
        monkeypatch.setattr("sys.argv", ["holdfast", *arguments, *([] if expect else ["--json"])])
        with pytest.raises(SystemExit) as left:
            app.main()
        done = capsys.readouterr()
        assert (left.value.code or 0) == expect, f"{arguments}: {done.out}{done.err}"
        return " ".join(done.err.split()) if expect else json.loads(done.out)

    return command


@pytest.fixture
def deliver(run: Run, tmp_path: Path) -> Callable[[str, int], None]:
    """Loads a day of a feed."""

    def load(feed: str, day: int) -> None:
        late, reported = (",late", ",true") if feed == "rows" else ("", "")
        timestamp = f"2026-01-{day:02}T0"
        lines = [f"{day}{hour},{timestamp}{hour}:00:00Z,{day + hour / 10},x{reported}" for hour in range(5)]
        path = tmp_path / f"{feed}{day}.csv"
        path.write_text("\n".join([f"id,at,size,place{late}", *lines]) + "\n")
        run("ingest", feed, str(path), "--batch", f"d{day}")

    return load


def states(run: Run) -> dict[str, tuple[list[str], list[str]]]:
    return {each["feed"]: (each["waiting"], each["alone"]) for each in run("feeds")["feeds"]}


def snapshot_rows(project: Project) -> tuple[dict[str, int], tuple[LoadKey, ...]]:
    found = project.snapshot(project.store())
    return {table.table: table.rows for table in found.tables}, found.incomplete_loads


def test_a_batch_that_nothing_will_complete_is_admitted_by_a_person(
    run: Run, deliver: Callable[[str, int], None], tmp_path: Path
) -> None:
    project = Project.load(tmp_path)
    for day in (1, 2, 3, 4):
        deliver("rows", day)
        if day != 3:
            deliver("air", day)
    assert states(run) == {"air": ([], []), "rows": (["d3"], [])}
    assert snapshot_rows(project) == ({"air": 15, "rows": 15}, (("rows", "d3", 0),))
    assert run("accept", "rows", "d4", "--incomplete", "--reason", "x")["violations"] == []
    assert "requires a reason" in run("accept", "rows", "d3", "--incomplete", "--reason", " ", expect=2)
    done = run("accept", "rows", "d3", "--incomplete", "--reason", "the mast was down")
    assert done == {"batch": "rows/d3", "without": ["air"]}
    assert states(run) == {"air": ([], []), "rows": ([], ["d3"])}
    assert snapshot_rows(project) == ({"air": 15, "rows": 20}, ())
    store = project.store()
    with store.ledger.read() as connection:
        (reported,) = events.newest(connection, kind=ACCEPTED_INCOMPLETE)
    assert (reported.subject, reported.explanation) == ("rows/d3", "the mast was down; accepted without air")
    deliver("air", 3)
    assert states(run) == {"air": ([], []), "rows": ([], [])}
    assert snapshot_rows(project) == ({"air": 20, "rows": 20}, ())
    # Both go together, and what was reported of the one that is gone is not reported of the one that comes in its place.
    run("backout", "air", "d3", "--apply", "--reason", "broken mast")
    deliver("rows", 3)
    assert states(run) == {"air": ([], []), "rows": (["d3"], [])}
    assert verify(store).findings == ()
