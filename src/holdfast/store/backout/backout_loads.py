"""The loads that a back-out can remove: their facts, files and rows, and the removal itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, exists, func, select, update

from holdfast.errors import ConflictError
from holdfast.store.catalog import batches
from holdfast.store.db import rows, schema
from holdfast.store.db.statements import (
    BACKED_OUT,
    LIVE,
    load_columns,
    not_removed,
    of_load,
    same_load,
    total,
)
from holdfast.store.files.data_files import FileFacts
from holdfast.tables.backout import LoadPart
from holdfast.tables.snapshots import LoadKey

_BACKOUTS: Final = schema.backouts
_OF: Final = schema.backout_batches
_ADMISSIONS: Final = schema.admissions
_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_PARTS: Final = schema.file_row_groups
_VERSIONS: Final = schema.table_versions
_USAGE: Final = schema.request_counts
_OUTCOMES: Final = schema.outcomes


_LIVE_LOADS: Final = (
    select(
        *load_columns(_BATCHES),
        _VERSIONS.c.committed_at_us.label("published_us"),
        _ADMISSIONS.c.group_name.label("group"),
        _ADMISSIONS.c.event_time,
        _ADMISSIONS.c.group_period_us,
        _ADMISSIONS.c.group_zone,
        func.coalesce(_BATCHES.c.event_time_min_us, 0).label("low_us"),
        func.coalesce(_BATCHES.c.event_time_max_us, 0).label("high_us"),
        _BATCHES.c.table_version.label("order"),
    )
    .join(_VERSIONS, _VERSIONS.c.table_version == _BATCHES.c.table_version)
    .outerjoin(_ADMISSIONS, same_load(_ADMISSIONS, _BATCHES))
    .where(LIVE)
)


@dataclass(frozen=True, slots=True)
class LiveLoad:
    """A load that could be backed out, when it was published, and the bounds of its event times (microseconds UTC).

    `group` (empty for none), its periods and `event_time` are the declaration of its feed at load time; None if not
    recorded. Of two loads, the later one has the greater `order`.
    """

    feed: str
    batch: str
    epoch: int
    published_us: int
    group: str | None
    event_time: str | None
    group_period_us: int | None
    group_zone: str | None
    low_us: int
    high_us: int
    order: int

    @property
    def key(self) -> LoadKey:
        """Return feed, batch and epoch."""
        return self.feed, self.batch, self.epoch


def live(connection: Connection, feeds: Sequence[str], batch: str, *, lock: bool = False) -> list[LiveLoad]:
    """Return the current loads of `batch` in any of `feeds`, in the order of `feeds`.

    Parameters
    ----------
    connection
        The caller's transaction.
    feeds
        The names of the feeds.
    batch
        The id of the batch.
    lock
        Lock the rows until a writing transaction ends, so that no other process removes them.
    """
    query = _LIVE_LOADS.where(_BATCHES.c.feed.in_(feeds), _BATCHES.c.batch == batch)
    if lock:
        query = query.with_for_update(of=_BATCHES)
    found = rows.read(connection, query, LiveLoad)
    return sorted(found, key=lambda load: list(feeds).index(load.feed))


def live_between(connection: Connection, feeds: Sequence[str], low_us: int, high_us: int) -> list[LiveLoad]:
    """Return the current loads of `feeds` with event times from `low_us` to `high_us`, in the order of their loading."""
    query = _LIVE_LOADS.where(
        _BATCHES.c.feed.in_(feeds),
        _BATCHES.c.event_time_min_us <= high_us,
        _BATCHES.c.event_time_max_us >= low_us,
    )
    return rows.read(connection, query.order_by(_BATCHES.c.table_version), LiveLoad)


def longest_period_us(connection: Connection, group: str) -> int | None:
    """Return the length of the longest period that a load of `group` was loaded with; None if none is recorded."""
    query = select(func.max(_ADMISSIONS.c.group_period_us)).where(_ADMISSIONS.c.group_name == group)
    found: int | None = connection.execute(query).scalar()
    return found


def feeds_known(connection: Connection) -> list[str]:
    """Return the names of all feeds that ever delivered, also of those that are no longer declared."""
    return list(connection.execute(select(schema.feeds.c.feed).order_by(schema.feeds.c.feed)).scalars())


def parts_of(connection: Connection, load: LoadKey) -> tuple[LoadPart, ...]:
    """Return the current rows and files of `load` by table, without copies that a compaction replaced."""
    query = (
        select(_FILES.c.table_name, total(_PARTS.c.rows), func.count(_FILES.c.path.distinct()))
        .join(_FILES, _FILES.c.path == _PARTS.c.path)
        .where(of_load(_PARTS, load), not_removed(_FILES, _PARTS))
        .group_by(_FILES.c.table_name)
        .order_by(_FILES.c.table_name)
    )
    return tuple(LoadPart(*row) for row in connection.execute(query))


def files_of(connection: Connection, table: str, loads: Sequence[LoadKey]) -> list[FileFacts]:
    """Return the current files of `table` with rows of `loads`, each limited to the row groups of these loads."""
    found: list[FileFacts] = []
    for load in loads:
        query = (
            select(_FILES, _PARTS.c.row_group, _PARTS.c.rows.label("of_load"))
            .join(_PARTS, _FILES.c.path == _PARTS.c.path)
            .where(of_load(_PARTS, load), _FILES.c.table_name == table)
            .where(not_removed(_FILES, _PARTS))
            .order_by(_FILES.c.path, _PARTS.c.row_group)
        )
        for row in connection.execute(query):
            groups = None if row.of_load == row.rows else (row.row_group,)
            found.append(FileFacts(row.path, table, row.of_load, row.bytes, row.sha256, groups))
    return found


def remove(connection: Connection, loads: Sequence[LoadKey], *, reason: str, now_us: int) -> int:
    """Remove the rows of `loads` from every table, in the caller's transaction; return the new table version.

    A file that has rows of other loads stays.

    Parameters
    ----------
    connection
        The caller's transaction.
    loads
        The loads to remove.
    reason
        The reason of the table version; at most 64 characters are kept.
    now_us
        The current time, microseconds since 1970 UTC.

    Raises
    ------
    ConflictError
        HF304 if one of the loads is no longer live.
    """
    version = batches.new_version(connection, reason, now_us)
    for load in loads:
        changed = connection.execute(
            update(_BATCHES).where(of_load(_BATCHES, load), LIVE).values(state=BACKED_OUT)
        )
        if changed.rowcount != 1:
            feed, batch, epoch = load
            raise ConflictError(
                "HF304",
                f"removal of load {epoch} of {feed}/{batch} failed: it is no longer loaded",
                state="nothing was written",
                next_command="the same command again",
            )
        paths = select(_PARTS.c.path).where(of_load(_PARTS, load))
        gone = update(_PARTS).where(of_load(_PARTS, load), not_removed(_PARTS))
        connection.execute(gone.values(removed_version=version))
        others = exists().where(_PARTS.c.path == _FILES.c.path, not_removed(_PARTS))
        connection.execute(
            update(_FILES)
            .where(_FILES.c.path.in_(paths), not_removed(_FILES), ~others)
            .values(removed_version=version)
        )
    return version
