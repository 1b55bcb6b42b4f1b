"""Checks of table versions: at each version a load is there once and complete, or not at all.

SQLite has no checksums of its own: a bit that flips in one of these numbers moves rows into versions and snapshots or out of
them. Each number is stored twice, in neighbouring rows that must agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, case, func, select

from holdfast.feeds import quarantine_table
from holdfast.store.db import schema
from holdfast.store.db.statements import load_columns, same_load
from holdfast.store.maintenance.ledger_checks import Mismatch

_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_ROW_GROUPS: Final = schema.file_row_groups
_SAME: Final = same_load(_BATCHES, _ROW_GROUPS)
_SHORTENED: Final = ("store.vacuumed", "ledger.rebuilt")
"""Events after which older versions may lack rows."""
_Bounds = tuple[int | None, int | None]
_Span = tuple[int, int | None, int]
"""From which table version, up to which (None: until now), how many rows."""


def find_mismatches(connection: Connection) -> list[Mismatch]:
    """Run all checks of this module."""
    checks = (broken_spans, torn_removals, wrong_bounds, misnamed_snapshots)
    return [reason for check in checks for reason in check(connection)]


def broken_spans(connection: Connection) -> list[Mismatch]:
    """Find loads that are there twice or in part at some table version, except after a vacuum or a rebuild."""
    expected = select(schema.events.c.event_id).where(schema.events.c.kind.in_(_SHORTENED))
    vacuumed = connection.execute(expected.limit(1)).first() is not None
    spans: dict[tuple[str, str, int, str], list[_Span]] = defaultdict(list)
    query = select(
        *load_columns(_ROW_GROUPS),
        _FILES.c.table_name,
        _FILES.c.added_version,
        _FILES.c.removed_version,
        _ROW_GROUPS.c.removed_version.label("part_removed"),
        _ROW_GROUPS.c.rows,
    ).join(_FILES, _FILES.c.path == _ROW_GROUPS.c.path)
    for row in connection.execute(query):
        ends = [each for each in (row.removed_version, row.part_removed) if each is not None]
        span = (row.added_version, min(ends) if ends else None, row.rows)
        spans[row.feed, row.batch, row.epoch, row.table_name].append(span)
    wrong = []
    for load in connection.execute(select(_BATCHES)):
        tables = ((load.feed, load.rows_loaded), (quarantine_table(load.feed), load.rows_quarantined))
        for table, rows in tables:
            mine = spans.get((load.feed, load.batch, load.epoch, table), [])
            reason = _span_mismatch(mine, rows, load.table_version, vacuumed=vacuumed)
            if reason:
                wrong.append((f"batch {load.feed}/{load.batch}", f"in table {table} {reason}"))
    return wrong


def _span_mismatch(spans: Sequence[_Span], rows: int, since: int, *, vacuumed: bool) -> str:
    points = sorted(
        {since, *(span[0] for span in spans), *(span[1] for span in spans if span[1] is not None)}
    )
    gone = False
    for point in points:
        there = sum(n for begin, end, n in spans if begin <= point and (end is None or end > point))
        if there > rows or (there and point < since):
            return f"it has {there} rows at version {point}, and not {rows} from version {since} on"
        if not vacuumed and spans and point >= since:
            if there not in (0, rows) or (there and gone):
                return f"it has {there} of its {rows} rows at version {point}"
            gone = there == 0
    return ""


def torn_removals(connection: Connection) -> Iterator[Mismatch]:
    """Find loads whose rows left their files at more than one table version: one transaction removes all of them."""
    first, last = func.min(_ROW_GROUPS.c.removed_version), func.max(_ROW_GROUPS.c.removed_version)
    load = load_columns(_ROW_GROUPS)
    query = select(*load, first.label("first"), last.label("last")).group_by(*load).having(first != last)
    for row in connection.execute(query):
        yield (
            f"batch {row.feed}/{row.batch}",
            f"its rows were removed at versions {row.first} and {row.last}",
        )


def wrong_bounds(connection: Connection) -> Iterator[Mismatch]:
    """Find files whose event time bounds differ from those of their loads: a reader of the last hours would skip them."""
    lows, highs = func.min(_BATCHES.c.event_time_min_us), func.max(_BATCHES.c.event_time_max_us)
    quarantined = _FILES.c.table_name != _FILES.c.feed
    query = (
        select(
            _FILES.c.path,
            _FILES.c.event_time_min_us,
            _FILES.c.event_time_max_us,
            quarantined.label("quarantined"),
            lows.label("low"),
            highs.label("high"),
            func.count().label("parts"),
            func.sum(_ROW_GROUPS.c.rows).label("rows_in_file"),
            func.sum(case((quarantined, _BATCHES.c.rows_quarantined), else_=_BATCHES.c.rows_loaded)).label(
                "rows_of_loads"
            ),
        )
        .join(_ROW_GROUPS, _ROW_GROUPS.c.path == _FILES.c.path)
        .join(_BATCHES, _SAME)
        .group_by(
            _FILES.c.path,
            _FILES.c.table_name,
            _FILES.c.feed,
            _FILES.c.event_time_min_us,
            _FILES.c.event_time_max_us,
        )
    )
    for row in connection.execute(query):
        found, loads = (row.event_time_min_us, row.event_time_max_us), (row.low, row.high)
        if not _fits(found, loads, row):
            yield (
                row.path,
                f"its event times are {found[0]} to {found[1]}, those of its loads {loads[0]} to {loads[1]}",
            )


def _fits(found: _Bounds, loads: _Bounds, row: Row[Any]) -> bool:
    low, high = found
    if low is None or high is None or loads[0] is None or loads[1] is None:
        return found == loads or (bool(row.quarantined) and found == (None, None))
    if row.parts > 1:
        # Rows that were backed out before a compaction may have widened the bounds; a reader then looks in vain.
        return row.rows_in_file != row.rows_of_loads or (low <= loads[0] and high >= loads[1])
    if row.rows_in_file == row.rows_of_loads:
        return found == loads
    return loads[0] <= low <= high <= loads[1]  # one of several files of a large load


def misnamed_snapshots(connection: Connection) -> Iterator[Mismatch]:
    """Find snapshots whose table version is not the one in their name."""
    snapshots = schema.snapshots
    for row in connection.execute(select(snapshots.c.snapshot, snapshots.c.table_version)):
        head, _, tail = row.snapshot.partition("-")
        if tail and head[1:].isdigit() and int(head[1:]) != row.table_version:
            yield f"snapshot {row.snapshot}", f"its table version in the ledger is {row.table_version}"
