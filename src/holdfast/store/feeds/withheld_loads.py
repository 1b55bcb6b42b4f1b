"""Withheld loads: those whose rows are in no online value, because they are suspect or wait for other feeds of their group.

`find` returns the loads that are to be withheld by what the ledger has now: a new snapshot is refused with them, or leaves
them out (R15).
`recorded` returns those that the stored values lack. Where the two differ, `control.ingest.online_features.refresh`
computes the values again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, delete, select

from holdfast.feeds.groups import FeedGroup
from holdfast.store.catalog import snapshots
from holdfast.store.db import schema
from holdfast.store.db.statements import LIVE, Prepared, inserting, load_columns, of_load, same_load
from holdfast.store.feeds import violations
from holdfast.tables.snapshots import LoadKey

_WITHHELD: Final = schema.online_withheld_loads
_BATCHES: Final = schema.batches
_ADMISSIONS: Final = schema.admissions
_ROWS: Final = _BATCHES.join(_ADMISSIONS, same_load(_ADMISSIONS, _BATCHES))
_GROUP_OF: Final = Prepared(
    select(_ADMISSIONS.c.group_name, _ADMISSIONS.c.group_period_us, _ADMISSIONS.c.group_zone)
    .select_from(_ROWS)
    .where(_BATCHES.c.feed == bindparam("of_feed"), LIVE, _ADMISSIONS.c.group_name.is_not(None))
    .order_by(_BATCHES.c.table_version.desc())
    .limit(1)
)
_EVENT_TIME: Final = Prepared(
    select(_ADMISSIONS.c.event_time)
    .select_from(_ROWS)
    .where(_BATCHES.c.feed == bindparam("of_feed"), LIVE, _ADMISSIONS.c.event_time.is_not(None))
    .order_by(_BATCHES.c.table_version.desc())
    .limit(1)
)
_RECORDED: Final = Prepared(
    select(*load_columns(_WITHHELD))
    .where(_WITHHELD.c.feed == bindparam("of_feed"))
    .order_by(_WITHHELD.c.batch, _WITHHELD.c.epoch)
)


def find(connection: Connection, feed: str) -> tuple[LoadKey, ...]:
    """Return the live loads of `feed` whose rows no server reads: the suspect ones, and those that wait for their group.

    The group of a feed is the one that its newest load was loaded with.
    """
    found = set(violations.suspect_loads(connection, feed))
    mine = _group_of(connection, feed)
    if mine is not None:
        waiting = snapshots.waiting(connection, _members(connection, mine.name))
        found |= {load for load in waiting if load[0] == feed}
    return tuple(sorted(found))


def siblings(connection: Connection, feed: str) -> tuple[str, ...]:
    """Return `feed` and the other feeds of its group, in order: what a load of it may release or hold back."""
    mine = _group_of(connection, feed)
    return (feed,) if mine is None else tuple(sorted({feed, *_members(connection, mine.name)}))


def recorded(connection: Connection, feed: str) -> tuple[LoadKey, ...]:
    """Return the loads of `feed` whose rows the stored online values lack."""
    return tuple(tuple(row) for row in _RECORDED.rows(connection, {"of_feed": feed}))


def record(connection: Connection, feed: str, loads: Sequence[LoadKey]) -> None:
    """Record that the online values over `feed` hold every row but those of `loads`."""
    before, after = set(recorded(connection, feed)), set(loads)
    for load in sorted(before - after):
        connection.execute(delete(_WITHHELD).where(of_load(_WITHHELD, load)))
    add(connection, sorted(after - before))


def add(connection: Connection, loads: Sequence[LoadKey]) -> None:
    """Record that the online values lack `loads` too."""
    if loads:
        connection.execute(
            inserting(connection, _WITHHELD).on_conflict_do_nothing(),
            [{"feed": feed, "batch": batch, "epoch": epoch} for feed, batch, epoch in loads],
        )


def event_time(connection: Connection, feed: str) -> str:
    """Return the column of event times of the newest load of `feed`; empty if it is unknown, as after a rebuild."""
    found: str | None = _EVENT_TIME.value(connection, {"of_feed": feed})
    return found or ""


def live(connection: Connection, loads: Sequence[LoadKey]) -> list[LoadKey]:
    """Return those of `loads` that are currently loaded."""
    return [
        load
        for load in loads
        if connection.execute(select(_BATCHES.c.batch).where(of_load(_BATCHES, load), LIVE)).first()
    ]


def _members(connection: Connection, group: str) -> dict[str, FeedGroup | None]:
    """Return the feeds whose newest load is of `group`, each with its period."""
    named = select(_ADMISSIONS.c.feed).where(_ADMISSIONS.c.group_name == group).distinct()
    members: dict[str, FeedGroup | None] = {}
    for feed in connection.execute(named.order_by(_ADMISSIONS.c.feed)).scalars():
        found = _group_of(connection, feed)
        if found is not None and found.name == group:
            members[feed] = found
    return members


def _group_of(connection: Connection, feed: str) -> FeedGroup | None:
    rows = _GROUP_OF.rows(connection, {"of_feed": feed})
    if not rows or not rows[0].group_name:
        return None
    plain = FeedGroup(rows[0].group_name)
    return FeedGroup(plain.name, rows[0].group_period_us or plain.period_us, rows[0].group_zone or plain.zone)
