"""Snapshots: rows of `snapshots` and `snapshot_tables`, and a manifest file of each. Training reads nothing but snapshots.

A manifest names the loads of its snapshot, so that a lost ledger can be rebuilt with its snapshots. It is written before the
transaction that registers the snapshot commits. A crash between the two leaves a manifest without a snapshot, which a rebuild
may register: it names rows that were loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection, exists, insert, or_, select

from holdfast import records
from holdfast.errors import NotFoundError
from holdfast.feeds.groups import FeedGroup, GroupLoad, find_incomplete_loads
from holdfast.records import Level
from holdfast.store.catalog import batches
from holdfast.store.db import schema
from holdfast.store.db.statements import LIVE, load_columns, same_load
from holdfast.store.durability import fsync
from holdfast.store.files import file_facts
from holdfast.store.files.file_facts import FileFacts
from holdfast.tables import (
    Snapshot,
    SnapshotTable,
    known_day,
    snapshot_name,
)
from holdfast.tables.snapshots import LoadKey

INCOMPLETE: Final = "incomplete"
"""The check of an accepted violation: other feeds of the group lack the load."""

_BATCHES: Final = schema.batches
_SNAPSHOTS: Final = schema.snapshots
_HELD_BACK: Final = schema.snapshot_incomplete_loads
_VIOLATIONS: Final = schema.violations
_TABLES: Final = schema.snapshot_tables
_IDENTITY: Final = tuple(
    _SNAPSHOTS.c[name] for name in ("snapshot", "table_version", "contract_hash", "created_at_us")
)


SNAPSHOTS_DIRECTORY: Final = "snapshots"
"""Directory of the manifests under the store's root: `snapshots/<snapshot>.json`."""
_BACKOUT_BATCHES: Final = schema.backout_batches


def create(
    connection: Connection,
    root: Path,
    tables: Sequence[str],
    *,
    contract_hash: str,
    now_us: int,
    groups: Mapping[str, FeedGroup | None] | None = None,
    label_delays_us: Mapping[str, int] | None = None,
    may_be_empty: Collection[str] = (),
    begun_at_us: int | None = None,
) -> Snapshot:
    """Create the snapshot of `tables` at the newest table version; the same loads give the same snapshot again.

    Parameters
    ----------
    root
        The store's root: the manifest is written below it, and is durable before the snapshot is registered.
    groups
        The group of each feed, None for a feed of its own. Of a group, the periods that only some of its feeds have
        delivered are left out; see `feeds.groups.find_incomplete_loads`.
    label_delays_us
        By table, how much later than its rows their labels are known. While labels come due, unchanged tables give a
        new snapshot each day (UTC), because the training rows differ.
    may_be_empty
        Tables that are left out while they have no row.
    begun_at_us
        When the creation began, microseconds since 1970 UTC; None if it is not known.

    Raises `NotFoundError` HF303 when a table has no row, or none that is not held back.
    """
    version = batches.current_version(connection)
    held = waiting(connection, groups or {})
    found = {
        table: file_facts.entries(connection, table, version, excluded=held) for table in sorted(set(tables))
    }
    found = {table: facts for table, facts in found.items() if facts or table not in may_be_empty}
    contents = tuple(_table(table, facts, held) for table, facts in found.items())
    day = _day(found, label_delays_us or {}, now_us)
    name = snapshot_name(version, contract_hash, contents, incomplete_loads=held, day=day)
    known = find(connection, name)
    if known is not None:
        return known
    made = Snapshot(name, version, contract_hash, now_us, contents, held)
    put(connection, made, begun_at_us=begun_at_us)
    write_manifest(root, connection, made)
    return made


def waiting(
    connection: Connection, groups: Mapping[str, FeedGroup | None], *, accepted: bool = True
) -> tuple[LoadKey, ...]:
    """Return the loads that a new snapshot leaves out, by feed and batch: they wait for other feeds of the group.

    Without `accepted` also those that an operator accepted without the others.
    """
    held: list[LoadKey] = []
    for group in sorted({each.name for each in groups.values() if each is not None}):
        held += find_incomplete_loads(group_loads(connection, groups, group, accepted=accepted))
    return tuple(sorted(held))


def group_loads(
    connection: Connection, groups: Mapping[str, FeedGroup | None], group: str, *, accepted: bool = True
) -> dict[str, list[GroupLoad]]:
    """Return the live loads of each feed of `group`, with their periods; see `waiting`."""
    members = {feed: each for feed, each in sorted(groups.items()) if each is not None and each.name == group}
    period_us = max((each.period_us for each in members.values()), default=1)
    return {feed: _live_loads(connection, feed, each, period_us, accepted) for feed, each in members.items()}


def accept_incomplete(
    connection: Connection, load: LoadKey, *, explanation: str, actor: str, now_us: int
) -> None:
    """Record that `actor` wants `load` in the next snapshots without what it waits for.

    The record ends with the load, and has no effect once the other feeds have delivered.

    Parameters
    ----------
    explanation
        The reason of the operator, and the feeds that lack the load.
    actor
        Name of the operator.
    now_us
        Microseconds since 1970 UTC.
    """
    feed, batch, epoch = load
    connection.execute(
        insert(_VIOLATIONS).values(
            feed=feed,
            batch=batch,
            epoch=epoch,
            check_name=INCOMPLETE,
            subject="",
            level=Level.WARNING,
            explanation=explanation,
            found_at_us=now_us,
            accepted_at_us=now_us,
            accepted_by=actor[:63],
        )
    )


def _live_loads(
    connection: Connection, feed: str, group: FeedGroup, period_us: int, accepted: bool
) -> list[GroupLoad]:
    columns = ("batch", "epoch", "event_time_min_us", "event_time_max_us", "table_version")
    query = select(*(_BATCHES.c[name] for name in columns)).where(
        _BATCHES.c.feed == feed, LIVE, _BATCHES.c.event_time_min_us.is_not(None)
    )
    without = select(_VIOLATIONS.c.batch, _VIOLATIONS.c.epoch).where(
        _VIOLATIONS.c.feed == feed,
        _VIOLATIONS.c.check_name == INCOMPLETE,
        _VIOLATIONS.c.accepted_at_us.is_not(None),
    )
    alone = {tuple(row) for row in connection.execute(without)} if accepted else set()
    return [
        GroupLoad(batch, epoch, group.periods(low_us, high_us, period_us), version, (batch, epoch) in alone)
        for batch, epoch, low_us, high_us, version in connection.execute(query)
    ]


def _day(
    found: Mapping[str, Sequence[FileFacts]], label_delays_us: Mapping[str, int], now_us: int
) -> int | None:
    due_us = [
        fact.event_time_max_us + delay_us
        for table, delay_us in label_delays_us.items()
        for fact in found.get(table, ())
        if delay_us > 0 and fact.event_time_max_us is not None
    ]
    return known_day(now_us, max(due_us)) if due_us else None


def put(connection: Connection, snapshot: Snapshot, *, begun_at_us: int | None = None) -> None:
    """Insert `snapshot` in the caller's transaction: a new one, or one that a rebuild has proved, whose begin is not known."""
    named = {"snapshot": snapshot.snapshot}
    values = {column.name: getattr(snapshot, column.name) for column in _IDENTITY}
    connection.execute(insert(_SNAPSHOTS).values(values | {"begun_at_us": begun_at_us}))
    connection.execute(
        insert(_TABLES),
        [
            named | {"table_name": each.table, "rows": each.rows, "files": each.files}
            for each in snapshot.tables
        ],
    )
    if snapshot.incomplete_loads:
        connection.execute(
            insert(_HELD_BACK),
            [
                named | {"feed": feed, "batch": batch, "epoch": epoch}
                for feed, batch, epoch in snapshot.incomplete_loads
            ],
        )


def get(connection: Connection, snapshot: str) -> Snapshot:
    """Return the snapshot of that name; `NotFoundError` HF303 if there is none."""
    found = find(connection, snapshot)
    if found is None:
        raise file_facts.unknown_snapshot(snapshot)
    return found


def _table(table: str, found: Sequence[FileFacts], held: Sequence[LoadKey]) -> SnapshotTable:
    count = sum(fact.rows for fact in found)
    if count == 0:
        mine = [batch for feed, batch, _ in held if feed == table]
        waiting = f"; {len(mine)} of its batches wait for the other feeds of its group" if mine else ""
        raise NotFoundError(
            "HF410",
            f"table {table!r} has no row to take a snapshot of{waiting}",
            state="no snapshot was made",
            next_command=f"holdfast ingest {table} <file>",
        )
    return SnapshotTable(table, count, len(found))


def find(connection: Connection, name: str) -> Snapshot | None:
    """Return the snapshot of that name, None if the ledger lacks it."""
    found = connection.execute(select(*_IDENTITY).where(_SNAPSHOTS.c.snapshot == name))
    row = found.mappings().one_or_none()
    if row is None:
        return None
    columns = (_TABLES.c.table_name, _TABLES.c.rows, _TABLES.c.files)
    query = select(*columns).where(_TABLES.c.snapshot == name).order_by(_TABLES.c.table_name)
    tables = tuple(SnapshotTable(*each) for each in connection.execute(query))
    held = tuple(sorted(file_facts.incomplete_loads(connection, name)))
    return Snapshot(**row, tables=tables, incomplete_loads=held)


@dataclass(frozen=True, slots=True)
class SnapshotManifest:
    """A snapshot and the table version of each load that its tables had, incomplete loads among them."""

    snapshot: Snapshot
    loads: dict[LoadKey, int]


def manifest_path(root: Path, snapshot: str) -> Path:
    """Return the path of the manifest of `snapshot`."""
    return root / SNAPSHOTS_DIRECTORY / f"{snapshot}.json"


def write_manifest(root: Path, connection: Connection, snapshot: Snapshot) -> None:
    """Write the manifest of `snapshot`; it is durable on return. Equal snapshots give equal manifests."""
    fsync.make_directory(root / SNAPSHOTS_DIRECTORY)
    content = asdict(snapshot) | {
        "loads": [[*load, version] for load, version in loads_of(connection, snapshot)]
    }
    fsync.replace(manifest_path(root, snapshot.snapshot), records.checked_json(content))


def read_manifest(path: Path) -> SnapshotManifest:
    """Load the manifest at `path`; `IntegrityError` HF301 if it is missing, damaged, or of another snapshot."""
    try:
        content = records.from_checked_json(path.read_bytes())
        loads = {(feed, batch, epoch): version for feed, batch, epoch, version in content["loads"]}
        snapshot = msgspec.convert(content, Snapshot)
    except OSError as error:
        raise fsync.damaged(f"manifest {path.name}", "is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise fsync.damaged(f"manifest {path.name}", f"is damaged: {error}") from error
    if snapshot.snapshot != path.stem:
        raise fsync.damaged(f"manifest {path.name}", f"is that of snapshot {snapshot.snapshot}")
    return SnapshotManifest(snapshot, loads)


def manifests_on_disk(root: Path) -> list[Path]:
    """Return the path of every manifest, in order of its name."""
    return fsync.files_in(root / SNAPSHOTS_DIRECTORY)


def loads_of(connection: Connection, snapshot: Snapshot) -> list[tuple[LoadKey, int]]:
    """Return the loads of the tables of `snapshot`, incomplete ones among them, and the table version of each."""
    version = snapshot.table_version
    removed_later = exists().where(
        same_load(_BACKOUT_BATCHES, _BATCHES), _BACKOUT_BATCHES.c.removed_version > version
    )
    key = load_columns(_BATCHES)
    query = (
        select(*key, _BATCHES.c.table_version)
        .where(
            _BATCHES.c.feed.in_([table.table for table in snapshot.tables]),
            _BATCHES.c.table_version <= version,
            or_(LIVE, removed_later),
        )
        .order_by(*key)
    )
    return [((row.feed, row.batch, row.epoch), row.table_version) for row in connection.execute(query)]
