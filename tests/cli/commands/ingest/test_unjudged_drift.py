"""R32: `check` and `ingest` state that a batch was not compared with the feed's history, and why."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from holdfast.cli import app
from holdfast.cli.project import Project
from holdfast.web.app import build_app

MODEL = """
from holdfast import (
    Contract, Expectations, Feed, GroupMean, Integer, Label, LogisticRegression, Model, Number, Passthrough, Timestamp,
)

whole = Contract(
    Integer("id"), Timestamp("at", tz="UTC"), Number("size", unit="1"), Integer("bay", low=0, high=3),
    key="id", event_time="at", label=Label("late", delay="1h"),
)
rows = Feed("trips", whole, expects=Expectations(drift=DRIFT))
model = Model(
    "site", examples=rows, feeds=(rows,), contract=whole, features=(Passthrough("size"),), learner=LogisticRegression(),
    heuristic=GroupMean(by=(Passthrough("bay"),)),
)
"""


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The command, in a project whose feed is judged for drift; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL.replace("DRIFT", "True"))

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["holdfast", *arguments])
        with pytest.raises(SystemExit) as ended:
            app.main()
        shown = capsys.readouterr()
        assert not ended.value.code, shown.out + shown.err
        return shown.out

    return run


def shown(path: str) -> str:
    """What the page of the project shows at `path`."""
    project = Project.load(Path())
    built = build_app(project.store(), project.model.name, feeds=project.model.feeds)

    async def ask() -> str:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(built), base_url="http://127.0.0.1"
        ) as client:
            return (await client.get(path)).text

    return asyncio.run(ask())


def write(day: int, rows: int = 24) -> str:
    lines = [f"{day * 100 + n},2026-01-{day:02}T{n:02}:00:00Z,{n % 7},{n % 4},true" for n in range(rows)]
    name = f"d{day:02}.csv"
    Path(name).write_text("\n".join(["id,at,size,bay,late", *lines]) + "\n")
    return name


def test_a_batch_without_enough_history_or_rows_is_reported_as_such(hold) -> None:
    days = [write(day) for day in range(1, 10)]
    assert "drift: not judged, 0 of 8 batches" in hold("check", "trips", days[0])
    loads = json.loads(hold("ingest", "trips", *days[:2], "--json"))["batches"]
    assert [each["drift"] for each in loads] == ["not judged, 0 of 8 batches", "not judged, 1 of 8 batches"]
    assert "drift of trips: not judged, 2 of 8 batches" in hold("status"), "the next batch's"
    assert json.loads(hold("status", "--json"))["drift"] == {"trips": "not judged, 2 of 8 batches"}
    assert "drift not judged, 2 of 8 batches" in shown("/")
    assert 'holdfast_feed_drift_judged{feed="trips",model="site"} 0.0' in shown("/metrics")
    assert json.loads(hold("check", "trips", days[2], "--json"))["drift"] == "not judged, 2 of 8 batches"
    assert "drift: not judged, 7 of 8 batches" in hold("ingest", "trips", *days[2:8]), "the newest batch's"
    assert json.loads(hold("check", "trips", days[8], "--json"))["drift"] == "judged"
    assert "drift" not in hold("check", "trips", days[8])
    assert json.loads(hold("status", "--json"))["drift"] == {"trips": "judged"}
    assert "drift of" not in hold("status")
    assert "drift not judged" not in shown("/")
    assert 'holdfast_feed_drift_judged{feed="trips",model="site"} 1.0' in shown("/metrics")
    assert "drift: not judged, 12 of 20 rows" in hold("ingest", "trips", write(9, rows=12))


def test_a_feed_that_expects_no_drift_states_nothing(hold) -> None:
    Path("model.py").write_text(MODEL.replace("DRIFT", "False"))
    assert "drift" not in hold("ingest", "trips", write(1))
    assert json.loads(hold("status", "--json"))["drift"] == {}
    assert json.loads(hold("check", "trips", write(2), "--json"))["drift"] == ""
