"""A text that is longer than the column of a key never shares a row, or an event, with another."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from sqlalchemy import insert

from holdfast.records import BatchId, Level, Violation
from holdfast.store import Store
from holdfast.store.catalog import selections
from holdfast.store.db import events, schema
from holdfast.store.feeds import violations
from holdfast.tables.row_selection import SelectedRows, SliceCount
from holdfast.tables.selection import Selection
from tests.support.queries import read

LONG = "s3://partner/" + "x" * 300


def test_two_sources_with_one_long_begin_have_a_row_each(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    slices = tuple(SliceCount("_source", LONG + end, rows, rows, 1.0) for end, rows in (("a", 3), ("b", 5)))
    chosen = SelectedRows(pl.DataFrame({"id": range(8)}), None, {}, slices)
    with store.ledger.write() as connection:
        connection.execute(insert(schema.table_versions).values(committed_at_us=1, reason="ingest"))
        connection.execute(
            insert(schema.snapshots).values(
                snapshot="s1", table_version=1, contract_hash="c" * 64, created_at_us=1
            )
        )
        selections.keep(connection, "s1", Selection(), 1, chosen, found=8)
    (kept,) = read(store, selections.of_snapshot, "s1")
    assert sorted(each.found for each in kept.slices) == [3, 5]
    assert all(len(each.value) == 255 for each in kept.slices)


def test_two_subjects_with_one_long_begin_are_reported_each_once(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    with store.ledger.write() as connection:
        for end in ("a", "b", "a"):
            events.append_once(connection, at_us=1, kind="log.damaged", subject=LONG + end, explanation=end)
    assert sorted(each.explanation for each in read(store, events.newest, kind="log.damaged")) == ["a", "b"]
    assert len(read(store, events.newest, subject=LONG + "a")) == 1


def test_two_violations_of_long_words_stay_apart(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    found = [Violation("missing_slice", f"town={LONG}{end}", Level.ERROR, "no row") for end in ("a", "b")]
    with store.ledger.write() as connection:
        violations.add(connection, BatchId("rows", "d"), None, found, now_us=1)
    kept = read(store, violations.open_ones, limit=9)
    assert len({each.subject for each in kept}) == 2
