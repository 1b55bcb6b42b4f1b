"""The event log is a chain: a change of it is found, and many writers make one chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from typer.testing import CliRunner

from holdfast.cli.app import app, load_commands
from holdfast.control.maintenance.audit import audit
from holdfast.control.maintenance.verify import verify
from holdfast.errors import InputError
from holdfast.records import canonical_json, sha256_hex
from holdfast.store import Store
from holdfast.store.db import event_chain, events
from holdfast.store.db.event_chain import Head
from tests.support import forking
from tests.support.profile import examples

REPORTED = 12
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


def report(store: Store, count: int, by: str = "ada") -> None:
    for number in range(count):
        with store.ledger.write() as connection:
            events.append(
                connection,
                at_us=number,
                kind="a.reported",
                subject="m",
                explanation=f"{number}, ünd",
                actor=by,
            )


@pytest.fixture
def store(tmp_path: Path, each_ledger: str) -> Store:
    made = Store.open(tmp_path / "store")
    report(made, REPORTED)
    return made


def run(store: Store, statement: str) -> None:
    with store.ledger.write() as connection:
        connection.execute(text(statement))


def test_an_untouched_event_log_is_one_chain(store: Store) -> None:
    found = audit(store)
    assert found.clean
    assert found.chain.events == REPORTED
    assert found.chain.head is not None
    assert audit(store, since=5).chain.events == REPORTED - 5
    assert audit(store, kept=found.chain.head).clean


@pytest.mark.parametrize(
    ("statement", "first"),
    [
        ("UPDATE events SET explanation = 'nothing happened' WHERE event_id = 4", 4),
        ("UPDATE events SET actor = 'eve' WHERE event_id = 1", 1),
        ("UPDATE events SET at_us = at_us + 1 WHERE event_id = 12", 12),
        ("DELETE FROM events WHERE event_id = 1", 2),
        ("DELETE FROM events WHERE event_id = 6", 7),
        ("UPDATE events SET event_id = event_id + 100 WHERE event_id = 3", 4),
    ],
)
def test_what_was_changed_is_named(store: Store, statement: str, first: int) -> None:
    run(store, statement)
    found = audit(store)
    assert found.chain.broken is not None
    assert found.chain.broken.event_id == first
    assert [finding.code for finding in verify(store).findings] == ["HF308"]
    assert not verify(store, quick=True).findings


def test_a_truncated_end_is_found_by_a_head_that_was_kept(store: Store) -> None:
    kept = audit(store).chain.head
    run(store, f"DELETE FROM events WHERE event_id > {REPORTED - 2}")
    assert audit(store).clean  # nothing inside the ledger shows it
    (reason,) = audit(store, kept=kept).errors
    assert "truncated" in reason
    report(store, 4)
    (reason,) = audit(store, kept=kept).errors
    # SQLite gives the numbers again, PostgreSQL does not.
    assert "another digest" in reason or "removed" in reason


def test_an_event_log_that_was_written_anew_is_found_by_a_head_that_was_kept(store: Store) -> None:
    kept = audit(store).chain.head
    run(store, "UPDATE events SET explanation = 'nothing' WHERE event_id = 2")
    with store.ledger.write() as connection:
        before = event_chain.FIRST
        for row in events.since(connection, 0):
            before = event_chain.chain_digest(
                before, row.at_us, row.kind, row.subject, row.actor, row.explanation
            )
            connection.execute(text(f"UPDATE events SET digest = '{before}' WHERE event_id = {row.event_id}"))
    assert audit(store).clean
    (reason,) = audit(store, kept=kept).errors
    assert "another digest" in reason


ROWS: list[tuple[int, int, str, str, str, str, str]] = []
for _number in range(1, 8):
    _reported = (_number, "k.reported", "s", "ada", f"words {_number}")
    _before = ROWS[-1][-1] if ROWS else event_chain.FIRST
    ROWS.append((_number, *_reported, event_chain.chain_digest(_before, *_reported)))


@given(
    st.integers(),
    st.text(),
    st.text(),
    st.text(),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_a_digest_is_over_canonical_json(at_us: int, kind: str, subject: str, actor: str, words: str) -> None:
    reported = canonical_json([at_us, kind, subject, actor, words])
    assert event_chain.chain_digest(event_chain.FIRST, at_us, kind, subject, actor, words) == sha256_hex(
        event_chain.FIRST + reported
    )


@examples(60)
@given(st.data())
def test_any_change_of_one_event_log_but_its_end_breaks_the_chain(data: st.DataObject) -> None:
    rows = list(ROWS)
    at = data.draw(st.integers(0, len(rows) - 2), label="at")
    match data.draw(st.sampled_from(["change", "take out", "put in", "swap"]), label="how"):
        case "change":
            field = data.draw(st.integers(1, 6), label="field")
            new = data.draw(st.integers(0, 99) if field == 1 else st.text(max_size=8), label="new")
            if new == rows[at][field]:
                return
            rows[at] = (*rows[at][:field], new, *rows[at][field + 1 :])  # type: ignore[assignment]  # a damaged row
        case "take out":
            del rows[at]
        case "put in":
            rows.insert(at, rows[data.draw(st.integers(0, len(rows) - 1), label="which")])
            if rows[at] == rows[at + 1] and at == 0 and rows == ROWS:
                return
        case "swap":
            rows[at], rows[at + 1] = rows[at + 1], rows[at]
    count, broken = event_chain.count_chained(rows, event_chain.FIRST)
    assert broken is not None
    assert count <= at + 1


@pytest.mark.parametrize("words", ["", "7", "7:xyz", "-1:" + "a" * 64, "1:" + "A" * 64, "²:" + "a" * 64])
def test_what_is_no_head_is_refused(words: str) -> None:
    with pytest.raises(InputError, match="HF101"):
        Head.parse(words)


WRITE = """
import sys
from pathlib import Path
from holdfast.store import Store
from holdfast.store.db import events
root, url, name = sys.argv[1:]
store = Store.open(Path(root), url)
for number in range(25):
    with store.ledger.write() as connection:
        events.append(connection, at_us=number, kind="a.reported", subject="m", explanation=f"{number}", actor=name)
store.ledger.close()
"""


@pytest.mark.process
def test_four_processes_make_one_chain(store: Store) -> None:
    """R12: writers on either database wait for each other, so none chains to an event that is not the newest."""
    url = store.ledger.engine.url.render_as_string(hide_password=False)
    arguments = [(store.root, url, f"writer-{number}") for number in range(4)]
    assert forking.run_at_once(WRITE, arguments, store.root.parent / "go") == [0] * 4
    found = audit(store)
    assert found.clean
    assert found.chain.events == REPORTED + 100


def test_a_hundred_thousand_events_are_checked(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    count, before, rows = 100_000, event_chain.FIRST, []
    for number in range(count):
        before = event_chain.chain_digest(
            before, number, "batch.published", "flights/b", "holdfast", "10 rows loaded"
        )
        rows.append({"n": number, "d": before})
    with store.ledger.write() as connection:
        connection.execute(
            text(
                "INSERT INTO events (at_us, kind, subject, actor, explanation, digest) "
                "VALUES (:n, 'batch.published', 'flights/b', 'holdfast', '10 rows loaded', :d)"
            ),
            rows,
        )
    found = audit(store)
    assert found.chain.events == count


def test_the_command_reports_it_and_exits_so(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    store = Store.open(tmp_path / ".holdfast")
    report(store, 3)
    load_commands("audit")
    runner = CliRunner()
    requested = ["audit", "--project", str(tmp_path)]
    head = runner.invoke(app, [*requested, "--head"]).output.strip()
    assert Head.parse(head).event_id == 3
    assert json.loads(runner.invoke(app, [*requested, "--against", head, "--json"]).output)["clean"]
    load_commands("events")
    printed = runner.invoke(app, ["events", "--project", str(tmp_path), "--since", "1", "--json"]).output
    assert [json.loads(line)["event_id"] for line in printed.splitlines()] == [2, 3]
    run(store, "UPDATE events SET kind = 'b.reported' WHERE event_id = 2")
    reported = runner.invoke(app, requested)
    assert reported.exit_code == 1
    assert "event 2" in reported.output
    store.ledger.close()
