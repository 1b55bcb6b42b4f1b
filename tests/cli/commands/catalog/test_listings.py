"""What a person looks up before naming it: loaded batches, snapshots, and short names of what Holdfast named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import app
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from tests.support.queries import read

MODEL = """
from holdfast import (
    Category, Contract, Feed, GroupMean, Integer, Label, LogisticRegression, Model, Number, Ordinal,
    Passthrough, Timestamp,
)

columns = (Integer("id"), Timestamp("at", tz="UTC"), Number("size", unit="1", high=10), Category("place"))
whole = Contract(*columns, key="id", event_time="at", label=Label("late", delay="1h"))
rows = Feed("departures", whole)
model = Model(
    "site", examples=rows, feeds=(rows,), contract=whole, features=(Passthrough("size"),), learner=LogisticRegression(),
    heuristic=GroupMean(by=(Ordinal("place"),)),
)
"""
Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command with --json in a new project: its exit status and its document."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)

    def command(*words: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr("sys.argv", ["holdfast", *words, "--json"])
        with pytest.raises(SystemExit) as ended:
            app.main()
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    return command


def deliver(run: Run, *days: int) -> None:
    for day in days:
        lines = [f"{10 * day + row},2026-01-0{day}T0{row}:30:00Z,{row},x,true" for row in range(5)]
        Path(f"day-{day}.csv").write_text("\n".join(["id,at,size,place,late", *lines]) + "\n")
        status, reported = run("ingest", "departures", f"day-{day}.csv")
        assert status == 0, reported


def test_loaded_batches_and_snapshots_are_listed_the_newest_first(run: Run) -> None:
    deliver(run, 1, 2)
    first = run("snapshot", "export")[1]["snapshot"]
    deliver(run, 3)
    second = run("snapshot", "export")[1]["snapshot"]
    _, found = run("feeds", "departures", "--batches", "--limit", "2")
    assert [each["batch"] for each in found["batches"]] == ["day-3", "day-2"]
    assert [found["batches"][0]["rows_loaded"], found["older"]] == [5, 1]
    assert run("feeds", "--batches")[1]["batches"] == run("feeds", "departures", "--batches")[1]["batches"]
    _, snapshots = run("snapshot", "list")
    assert [(each["snapshot"], each["rows"], each["tainted"]) for each in snapshots["snapshots"]] == [
        (second, 15, False),
        (first, 10, False),
    ]


def test_what_is_not_there_is_refused_with_the_command_that_lists_it(run: Run) -> None:
    deliver(run, 1)
    assert (
        "holdfast feeds departures --batches"
        in run("backout", "departures", "day-7")[1]["error"]["next_command"]
    )
    assert run("snapshot", "show", "s9-12345678")[1]["error"]["next_command"] == "holdfast snapshot list"
    assert run("lineage", "departures/day-7")[1]["error"]["next_command"] == "holdfast feeds --batches"
    status, refused = run("feeds", "arrivals", "--batches")
    assert (status, refused["error"]["code"]) == (3, "HF303")


def test_the_beginning_of_a_name_is_enough_while_it_means_one_thing(run: Run) -> None:
    deliver(run, 1)
    first = run("snapshot", "export")[1]["snapshot"]
    deliver(run, 2)
    second = run("snapshot", "export")[1]["snapshot"]
    short = first.partition("-")[0]
    assert run("snapshot", "show", short)[1]["snapshot"] == first
    assert run("snapshot", "diff", short, second[:-4])[1]["after"] == second
    assert run("lineage", short)[1]["start"] == f"snapshot:{first}"
    assert run("snapshot", "export", short)[1]["snapshot"] == first
    store = Store.open(Path(".holdfast"))
    with store.ledger.write() as connection:
        snapshots.put(connection, replace(read(store, snapshots.get, first), snapshot=f"{short}-ffffffff"))
    status, refused = run("snapshot", "show", short)
    assert (status, refused["error"]["code"]) == (3, "HF314")
    assert f"{short!r} may be " in refused["error"]["what"]
    assert first in refused["error"]["what"]
    assert f"{short}-ffffffff" in refused["error"]["what"]


def test_the_newest_batch_of_a_feed_is_the_one_loaded_last(run: Run) -> None:
    deliver(run, 3, 1)
    (totals,) = [each["totals"] for each in run("feeds")[1]["feeds"]]
    assert (totals["batches"], totals["newest_batch"]) == (2, "day-1")
    assert run("status")[1]["feeds"][0]["newest_batch"] == "day-1"


def test_a_tainted_snapshot_is_not_exported(run: Run) -> None:
    deliver(run, 1, 2)
    exported = run("snapshot", "export")[1]
    first = exported["snapshot"]
    assert exported["tables"]["departures"].endswith("/exported/departures")
    plan = run("backout", "departures", "day-1")[1]
    assert [each["tables"] for each in plan["steps"] if each["step"] == "WithdrawPublished"] == [
        ["exported/departures"]
    ]
    assert run("backout", "departures", "day-1", "--apply", "--reason", "wrong clock")[0] == 0
    status, refused = run("snapshot", "export", first)
    assert (status, refused["error"]["code"]) == (1, "HF406")
