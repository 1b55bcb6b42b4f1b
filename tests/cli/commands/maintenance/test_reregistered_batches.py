"""What a person is reported and can do after a ledger was made again: accept what came back, and never back out for it (R5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.cli import app

MODEL = """
from holdfast import (
    Category, Contract, Feed, GroupMean, Label, LogisticRegression, Model, Number, Ordinal, Passthrough, Text,
    Timestamp,
)

whole = Contract(
    Text("id"), Timestamp("at", tz="UTC"), Number("size", unit="1"), Category("place"), key="id", event_time="at",
    label=Label("late", delay="1h"),
)
rows = Feed("rows", whole)
model = Model(
    "site", examples=rows, feeds=(rows,), contract=whole, features=(Passthrough("size"),), learner=LogisticRegression(),
    heuristic=GroupMean(by=(Ordinal("place"),)),
)
"""

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in a project of one feed in this process, and gives all that it reports."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)

    def command(*arguments: str, expect: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["holdfast", *arguments])
        with pytest.raises(SystemExit) as left:
            app.main()
        done = capsys.readouterr()
        assert (left.value.code or 0) == expect, f"{arguments}: {done.out}{done.err}"
        return " ".join((done.out + done.err).split())

    return command


def test_what_came_back_is_accepted_together_and_never_backed_out_for_it(run: Run, tmp_path: Path) -> None:
    for day in (1, 2, 3):
        lines = [f"{day}{hour},2026-01-0{day}T0{hour}:00:00Z,{day + hour / 10},x,true" for hour in range(5)]
        path = tmp_path / f"{day}.csv"
        path.write_text("\n".join(["id,at,size,place,late", *lines]) + "\n")
        run("ingest", "rows", str(path), "--batch", f"d{day}")
    for path in tmp_path.rglob("ledger.db*"):
        path.unlink()
    run("rebuild-ledger")
    reported = run("feeds")
    assert "3 loads; their violations are unknown" in reported
    assert "holdfast accept rows --all --reason WHY" in reported
    assert "backout" not in reported
    run("backout", "rows", "d1", "--reason", "the van was stolen", "--apply")
    assert "2 loads; their violations" in run("feeds")
    assert "one batch, or --all" in run("accept", "rows", "d2", "--all", "--reason", "x", expect=2)
    assert "one batch, or --all" in run("accept", "rows", "--reason", "x", expect=2)
    assert "accepted 2 loads of rows" in run("accept", "rows", "--all", "--reason", "I looked at them")
    assert "suspect" not in run("feeds")
    assert "no re-registered batch" in run("accept", "rows", "--all", "--reason", "again", expect=0)
