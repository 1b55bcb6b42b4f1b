"""The newest loaded batches and the newest snapshots, never more than requested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sqlalchemy import Connection, func, select

from holdfast.store.db import rows, schema
from holdfast.store.db.statements import LIVE, total

_BATCHES: Final = schema.batches
_SNAPSHOTS: Final = schema.snapshots
_TABLES: Final = schema.snapshot_tables
_TAINTS: Final = schema.taints
_VERSIONS: Final = schema.table_versions

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Listed(Generic[Row]):
    """The newest rows, and how many older ones there are that are not among them."""

    rows: tuple[Row, ...]
    older: int


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """One batch that is loaded. Times are microseconds since 1970 UTC; without a valid row it has no event times."""

    feed: str
    batch: str
    epoch: int
    rows_loaded: int
    rows_quarantined: int
    event_time_min_us: int | None
    event_time_max_us: int | None
    table_version: int
    loaded_at_us: int
    source: str


@dataclass(frozen=True, slots=True)
class KnownSnapshot:
    """One snapshot: the rows of all its tables together, and whether rows of it were backed out since."""

    snapshot: str
    table_version: int
    created_at_us: int
    tables: int
    rows: int
    tainted: bool


def loaded(connection: Connection, feed: str | None = None, *, limit: int) -> Listed[LoadedBatch]:
    """Return the batches that are loaded, the newest load first, of one feed if one is named; at most `limit`."""
    mine = [LIVE] if feed is None else [LIVE, _BATCHES.c.feed == feed]
    query = (
        select(_BATCHES, _VERSIONS.c.committed_at_us.label("loaded_at_us"))
        .join(_VERSIONS, _VERSIONS.c.table_version == _BATCHES.c.table_version)
        .where(*mine)
        .order_by(_BATCHES.c.table_version.desc(), _BATCHES.c.feed, _BATCHES.c.batch)
        .limit(limit)
    )
    found = tuple(rows.read(connection, query, LoadedBatch))
    every = connection.execute(select(func.count()).select_from(_BATCHES).where(*mine)).scalar_one()
    return Listed(found, every - len(found))


def made(connection: Connection, *, limit: int) -> Listed[KnownSnapshot]:
    """Return the snapshots, the newest first, at most `limit`."""
    tainted = select(_TAINTS.c.subject).where(_TAINTS.c.kind == "snapshot")
    query = (
        select(
            _SNAPSHOTS.c.snapshot,
            _SNAPSHOTS.c.table_version,
            _SNAPSHOTS.c.created_at_us,
            func.count(_TABLES.c.table_name),
            total(_TABLES.c.rows),
            _SNAPSHOTS.c.snapshot.in_(tainted),
        )
        .outerjoin(_TABLES, _TABLES.c.snapshot == _SNAPSHOTS.c.snapshot)
        .group_by(_SNAPSHOTS.c.snapshot, _SNAPSHOTS.c.table_version, _SNAPSHOTS.c.created_at_us)
        .order_by(_SNAPSHOTS.c.created_at_us.desc(), _SNAPSHOTS.c.snapshot.desc())
        .limit(limit)
    )
    found = tuple(KnownSnapshot(*row) for row in connection.execute(query))
    every = connection.execute(select(func.count()).select_from(_SNAPSHOTS)).scalar_one()
    return Listed(found, every - len(found))
