"""Rows of `batches`, `files`, `file_row_groups` and `table_versions`: the loads of each batch and their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import Connection, bindparam, case, func, literal_column, select
from sqlalchemy import insert as insert_into

from holdfast.feeds import AlreadyLoaded, Load, Manifest, Publish, decide
from holdfast.records import BatchId
from holdfast.store.catalog import online_features
from holdfast.store.db import schema
from holdfast.store.db.statements import LIVE, PUBLISHED, Prepared, load_columns, total
from holdfast.store.files.file_facts import FileFacts
from holdfast.tables.snapshots import LoadKey

_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_FILE_BATCHES: Final = schema.file_row_groups
_VERSIONS: Final = schema.table_versions

# Built once: putting a statement together costs more than running it on a small batch.
_LOADS: Final = Prepared(
    select(*(_BATCHES.c["state" if field.name == "live" else field.name] for field in fields(Load)))
    .where(_BATCHES.c.feed == bindparam("of_feed"), _BATCHES.c.batch == bindparam("of_batch"))
    .order_by(_BATCHES.c.epoch)
)
_SAME_CONTENT: Final = Prepared(
    select(_BATCHES.c.batch)
    .where(
        _BATCHES.c.feed == bindparam("of_feed"),
        _BATCHES.c.digest == bindparam("of_digest"),
        # Written out, because an index of live loads is not found by a parameter.
        _BATCHES.c.state == literal_column(f"'{PUBLISHED}'"),
        _BATCHES.c.batch != bindparam("of_batch"),
    )
    .limit(1)
)
_CHANGES: Final = tuple(
    Prepared(select(_FILES.c.path).where(_FILES.c.table_name == bindparam("of_feed"), changed).limit(1))
    for changed in (
        _FILES.c.added_version > bindparam("since"),
        _FILES.c.removed_version > bindparam("since"),
    )
)
"""Each finds what changed by an index of its own: files that came, files that went."""
_PARTS_GONE: Final = Prepared(
    select(_FILE_BATCHES.c.feed).where(_FILE_BATCHES.c.removed_version > bindparam("since"))
)
_CURRENT_VERSION: Final = Prepared(select(func.coalesce(func.max(_VERSIONS.c.table_version), 0)))
_NEW_VERSION: Final = Prepared(
    insert_into(_VERSIONS).returning(_VERSIONS.c.table_version), ("committed_at_us", "reason")
)
_OF_MANIFEST: Final = tuple(field.name for field in fields(Manifest) if field.name in _BATCHES.c)
_NEW_BATCH: Final = Prepared(insert_into(_BATCHES))
_NEW_FILES: Final = Prepared(insert_into(_FILES))
_NEW_FILE_BATCHES: Final = Prepared(insert_into(_FILE_BATCHES))


def loads(connection: Connection, batch: BatchId) -> list[Load]:
    """Return every load of `batch`, the oldest first."""
    of = {"of_feed": batch.feed, "of_batch": batch.batch}
    found = _LOADS.rows(connection, of)
    return [Load(epoch, digest, state == PUBLISHED, *counts) for epoch, digest, state, *counts in found]


def decide_load(connection: Connection, batch: BatchId, digest: str) -> Publish | AlreadyLoaded:
    """Decide whether a delivery with `digest` is new, given what is loaded now; raises as `feeds.decide` does."""
    of = {"of_feed": batch.feed, "of_batch": batch.batch, "of_digest": digest}
    elsewhere = _SAME_CONTENT.value(connection, of)
    return decide(batch, digest, loads(connection, batch), elsewhere=elsewhere)


def current_version(connection: Connection) -> int:
    """Return the newest table version, 0 before the first load."""
    return int(_CURRENT_VERSION.value(connection, {}))


def version_of(connection: Connection, found: Sequence[FileFacts]) -> int | None:
    """Return the table version that added the files of one load; None if the ledger names none of them."""
    query = select(_FILES.c.added_version).where(_FILES.c.path.in_([fact.path for fact in found])).limit(1)
    version: int | None = connection.execute(query).scalar_one_or_none()
    return version


def ids(connection: Connection, feed: str, prefix: str) -> list[str]:
    """Return the ids of `feed` that begin with `prefix`, those of backed-out loads among them."""
    query = select(_BATCHES.c.batch).where(_BATCHES.c.feed == feed, _BATCHES.c.batch.startswith(prefix))
    return list(connection.execute(query.distinct()).scalars())


def live_loads(connection: Connection, feed: str) -> list[LoadKey]:
    """Return every current load of `feed`."""
    query = select(*load_columns(_BATCHES)).where(_BATCHES.c.feed == feed, LIVE)
    return [(of, batch, epoch) for of, batch, epoch in connection.execute(query)]


def rows_since(connection: Connection, feed: str, version: int) -> bool:
    """Return True if rows of `feed` came or went after table version `version`."""
    values = {"of_feed": feed, "since": version}
    if any(query.rows(connection, values) for query in _CHANGES):
        return True
    return any(row.feed == feed for row in _PARTS_GONE.rows(connection, values))


def has_feed_changed(connection: Connection, feed: str, basis: int) -> bool:
    """Return True if rows of `feed`, or what is kept of them for servers, changed after table version `basis`."""
    # An aggregate that was added meanwhile does not hold what is about to be committed either.
    kept = online_features.definitions(connection, feed)
    return rows_since(connection, feed, basis) or any(reached > basis for _, reached in kept)


def new_version(connection: Connection, reason: str, now_us: int) -> int:
    """Add a version of the tables and return it; `reason` names what makes it, `now_us` is in microseconds UTC."""
    values = {"committed_at_us": now_us, "reason": reason[:64]}
    return int(_NEW_VERSION.value(connection, values))


def insert(
    connection: Connection,
    manifest: Manifest,
    found: Sequence[FileFacts],
    version: int,
    *,
    begun_at_us: int | None = None,
) -> None:
    """Insert a load that exists from table version `version` on: its batch, its files, and its part of each file.

    `begun_at_us` is when the load began, microseconds since 1970 UTC; None if it is not known.
    """
    _NEW_BATCH.put(
        connection,
        {
            **{name: getattr(manifest, name) for name in _OF_MANIFEST},
            "state": PUBLISHED,
            "rows_received": manifest.rows_loaded + manifest.rows_quarantined,
            "table_version": version,
            "begun_at_us": begun_at_us,
        },
    )
    load = (manifest.feed, manifest.batch, manifest.epoch)
    bounds = (manifest.event_time_min_us, manifest.event_time_max_us)
    insert_files(connection, [(fact, [(load, fact.rows)]) for fact in found], version, bounds)


def insert_files(
    connection: Connection,
    files: Sequence[tuple[FileFacts, Sequence[tuple[LoadKey, int]]]],
    version: int,
    bounds_us: tuple[int | None, int | None] = (None, None),
) -> None:
    """Insert files that exist from table version `version` on.

    Parameters
    ----------
    files
        At least one, each with the load and the number of rows of each of its row groups.
    bounds_us
        The first and the last event time of a file without times of its own, microseconds UTC.
    """
    low_us, high_us = bounds_us
    _NEW_FILES.put(
        connection,
        *(
            {
                "path": fact.path,
                "table_name": fact.table,
                "feed": parts[0][0][0],
                "rows": fact.rows,
                "bytes": fact.bytes,
                "sha256": fact.sha256,
                "event_time_min_us": low_us if fact.event_time_min_us is None else fact.event_time_min_us,
                "event_time_max_us": high_us if fact.event_time_max_us is None else fact.event_time_max_us,
                "added_version": version,
                "removed_version": None,
            }
            for fact, parts in files
        ),
    )
    _NEW_FILE_BATCHES.put(
        connection,
        *(
            {
                "path": fact.path,
                "row_group": place,
                "feed": feed,
                "batch": batch,
                "epoch": epoch,
                "rows": held,
                "removed_version": None,
            }
            for fact, parts in files
            for place, ((feed, batch, epoch), held) in enumerate(parts)
        ),
    )


@dataclass(frozen=True, slots=True)
class FeedTotals:
    """The loads of one feed; event times in microseconds UTC, None without a valid row.

    `newest_batch` is the one that was loaded last, whatever its name.
    """

    feed: str
    batches: int
    newest_batch: str
    rows_loaded: int
    rows_quarantined: int
    event_time_min_us: int | None
    event_time_max_us: int | None
    newest_load_at_us: int | None = None
    """When the newest load was published, by our own clock."""
    newest_event_us: int | None = None
    """The latest event time of the loads that have none later than themselves."""

    @property
    def event_time_ahead_us(self) -> int | None:
        """Return the latest event time if it is later than the load that brought it."""
        return None if self.event_time_max_us == self.newest_event_us else self.event_time_max_us


def totals(connection: Connection) -> tuple[FeedTotals, ...]:
    """Return what is loaded of every feed, by feed; batches that were backed out do not count."""
    newest_us = _BATCHES.c.event_time_max_us
    loaded_at_us = func.coalesce(_VERSIONS.c.committed_at_us, newest_us)
    each = (
        select(
            _BATCHES.c.feed,
            func.count().label("batches"),
            func.max(_BATCHES.c.table_version).label("newest"),
            total(_BATCHES.c.rows_loaded).label("rows_loaded"),
            total(_BATCHES.c.rows_quarantined).label("rows_quarantined"),
            func.min(_BATCHES.c.event_time_min_us).label("event_time_min_us"),
            func.max(newest_us).label("event_time_max_us"),
            func.max(case((newest_us <= loaded_at_us, newest_us))).label("newest_event_us"),
        )
        .select_from(_BATCHES)
        .outerjoin(_VERSIONS, _VERSIONS.c.table_version == _BATCHES.c.table_version)
        .where(LIVE)
        .group_by(_BATCHES.c.feed)
        .subquery()
    )
    # One transaction may publish several batches of a feed: then the last by name stands for them.
    newest_batch = (
        select(func.max(_BATCHES.c.batch))
        .where(LIVE, _BATCHES.c.feed == each.c.feed, _BATCHES.c.table_version == each.c.newest)
        .scalar_subquery()
        .label("newest_batch")
    )
    newest_load_at_us = (
        select(_VERSIONS.c.committed_at_us)
        .where(_VERSIONS.c.table_version == each.c.newest)
        .scalar_subquery()
        .label("newest_load_at_us")
    )
    looked_up = {"newest_batch": newest_batch, "newest_load_at_us": newest_load_at_us}
    columns = (
        looked_up[field.name] if field.name in looked_up else each.c[field.name]
        for field in fields(FeedTotals)
    )
    query = select(*columns).order_by(each.c.feed)
    return tuple(FeedTotals(*row) for row in connection.execute(query))
