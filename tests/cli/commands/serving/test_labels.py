"""The quarantine of labels: listed in bounded parts, dropped by number or source, in status and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import app
from holdfast.control.reports.metrics import LoopCounters, StatusCollector
from holdfast.control.reports.status import StatusReader
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.telemetry import quarantined_labels
from holdfast.store.telemetry.quarantined_labels import MOST_OF_SOURCE, QuarantinedLabel
from tests.support.queries import read

NAME = "site"
MODEL = """
from holdfast import Contract, Feed, GroupMean, Integer, Label, LogisticRegression, Model, Number, Passthrough, Timestamp

rows = Contract(
    Integer("id"), Timestamp("at", tz="UTC"), Number("size", unit="1"), key="id", event_time="at",
    label=Label("late", delay="1h"),
)
departures = Feed("departures", rows)
model = Model(
    "site", examples=departures, feeds=(departures,), contract=rows, features=(Passthrough("size"),),
    learner=LogisticRegression(), heuristic=GroupMean(by=(Passthrough("size"),)),
)
"""
NOW = 1_700_000_000_000_000
NASTY = '{"id":"\x1b]0;pwn\x07<script>"}'


def held(number: int, source: str = "crm", value: float = 1.0) -> QuarantinedLabel:
    return QuarantinedLabel(
        f"s1-1-{number}/0", None, value, source, NOW + number, "source 'bank' labelled it 0"
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "model.py").write_text(MODEL)
    store = Store.open(tmp_path / ".holdfast")
    yield store
    store.ledger.close()


def add(store: Store, *labels: QuarantinedLabel) -> tuple[int, int]:
    with store.ledger.write() as connection:
        return quarantined_labels.add(connection, NAME, labels)


def holdfast(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["holdfast", *arguments])
    with pytest.raises(SystemExit) as left:
        app.main()
    assert isinstance(left.value.code, int)
    return left.value.code, "".join(capsys.readouterr())


def test_labels_are_listed_in_parts_with_source_reason_and_value(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add(store, *map(held, range(1, 6)), held(6, "partner", 0.25))
    add(store, QuarantinedLabel(None, NASTY, 0.0, "web", NOW, "source 'crm' labelled it 1"))
    seen: list[int] = []
    before: list[str] = []
    while True:
        status, text = holdfast(
            monkeypatch, capsys, "labels", "quarantined", "--limit", "3", *before, "--json"
        )
        document: dict[str, Any] = json.loads(text)
        assert (status, document["total"]) == (0, 7)
        assert len(document["quarantined"]) <= 3
        seen += [each["quarantined_label_id"] for each in document["quarantined"]]
        if document["before"] is None:
            break
        before = ["--before", str(document["before"])]
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 7
    status, text = holdfast(monkeypatch, capsys, "labels", "quarantined", "--limit", "2")
    assert "7 labels in quarantine, 2 shown" in text
    assert "next: holdfast labels quarantined --before" in text
    assert "source 'crm' labelled it 1" in text
    assert "\x1b]0" not in text, "what came from outside cannot write to the terminal"
    status, text = holdfast(monkeypatch, capsys, "labels", "quarantined", "--source", "partner", "--json")
    (label,) = json.loads(text)["quarantined"]
    assert {name: label[name] for name in ("prediction_id", "value", "source", "received_at_us")} == {
        "prediction_id": "s1-1-6/0", "value": 0.25, "source": "partner", "received_at_us": NOW + 6,
    }  # fmt: skip


def test_labels_are_dropped_by_number_or_source_and_never_half(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add(store, *map(held, range(1, 6)), held(6, "partner"))
    numbers = [
        str(each.quarantined_label_id) for each in read(store, quarantined_labels.newest, NAME, limit=9)
    ]
    status, text = holdfast(monkeypatch, capsys, "labels", "drop", numbers[1], "999")
    assert (status, "HF410" in text) == (3, True)
    assert read(store, quarantined_labels.count, NAME) == 6
    assert "1 label dropped" in holdfast(monkeypatch, capsys, "labels", "drop", numbers[1])[1]
    assert "4 labels dropped" in holdfast(monkeypatch, capsys, "labels", "drop", "--source", "crm")[1]
    assert [each.source for each in read(store, quarantined_labels.newest, NAME, limit=9)] == ["partner"]
    found = read(store, events.newest, kind="labels.dropped")
    assert [each.explanation[:8] for each in found] == ["4 labels", "1 label "]
    for wrong in ([], ["1", "--source", "crm"]):
        assert holdfast(monkeypatch, capsys, "labels", "drop", *wrong)[0] == 2
    assert (
        "0 labels of source crm in quarantine"
        in holdfast(monkeypatch, capsys, "labels", "quarantined", "--source", "crm")[1]
    )


def test_a_label_that_comes_again_takes_no_more_room(store: Store) -> None:
    """B4: repeating one quarantined label kept those of the source's next mistakes out."""
    assert add(store, held(1), held(1), held(1, value=0.0)) == (2, 2)
    assert add(store, held(1), held(1, "bank"), held(2)) == (2, 2)
    assert read(store, quarantined_labels.count, NAME, source="crm") == 3
    assert add(store, *map(held, range(3, MOST_OF_SOURCE + 20))) == (MOST_OF_SOURCE + 17, MOST_OF_SOURCE - 3)
    assert add(store, held(3, "bank")) == (1, 1)


def test_status_and_metrics_have_the_quarantine(store: Store) -> None:
    reader = StatusReader(store, NAME)
    assert reader.read(now_us=NOW).quarantined_labels == ()
    add(store, *map(held, range(1, 20)), QuarantinedLabel(None, NASTY, 0.0, "web", NOW, "of 'crm'"))
    status = reader.read(now_us=NOW)
    assert (status.labels.quarantined, len(status.quarantined_labels)) == (20, 10)
    collected = StatusCollector(NAME, lambda: status, LoopCounters()).collect()
    values = {
        sample.name: sample.value
        for metric in collected
        for sample in metric.samples
        if "quarantined" in sample.name
    }
    assert values == {"holdfast_labels_quarantined": 20.0}
