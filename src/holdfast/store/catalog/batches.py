"""Rows of `batches`, `files`, `file_row_groups` and `table_versions`: the loads of each batch and their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, literal_column, select
from sqlalchemy import insert as insert_into

from holdfast.feeds import AlreadyLoaded, Load, Manifest, Publish, decide
from holdfast.records import BatchId
from holdfast.store.catalog import online_features
from holdfast.store.db import schema
from holdfast.store.db.statements import LIVE, PUBLISHED, Prepared
from holdfast.store.files.data_files import FileFacts

_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_FILE_BATCHES: Final = schema.file_row_groups
_VERSIONS: Final = schema.table_versions

# Built once: putting a statement together costs more than running it on a small batch.
_LOADS: Final = Prepared(
    select(_BATCHES)
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
_NEW_BATCH: Final = Prepared(insert_into(_BATCHES))
_NEW_FILES: Final = Prepared(insert_into(_FILES))
_NEW_FILE_BATCHES: Final = Prepared(insert_into(_FILE_BATCHES))


def loads(connection: Connection, batch: BatchId) -> list[Load]:
    """Return every load of `batch`, the oldest first."""
    of = {"of_feed": batch.feed, "of_batch": batch.batch}
    return [_load(row) for row in _LOADS.rows(connection, of)]


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


def insert(connection: Connection, manifest: Manifest, found: Sequence[FileFacts], version: int) -> None:
    """Insert a load that exists from table version `version` on: its batch, its files, and its part of each file."""
    _NEW_BATCH.put(
        connection,
        {
            **manifest.load(),
            "state": PUBLISHED,
            "rows_received": manifest.rows_loaded + manifest.rows_quarantined,
            "rows_loaded": manifest.rows_loaded,
            "rows_quarantined": manifest.rows_quarantined,
            "event_time_min_us": manifest.event_time_min_us,
            "event_time_max_us": manifest.event_time_max_us,
            "table_version": version,
            "source": manifest.source,
        },
    )
    _NEW_FILES.put(
        connection,
        *(
            {
                "path": fact.path,
                "table_name": fact.table,
                "feed": manifest.feed,
                "rows": fact.rows,
                "bytes": fact.bytes,
                "sha256": fact.sha256,
                "event_time_min_us": _or(fact.event_time_min_us, manifest.event_time_min_us),
                "event_time_max_us": _or(fact.event_time_max_us, manifest.event_time_max_us),
                "added_version": version,
                "removed_version": None,
            }
            for fact in found
        ),
    )
    _NEW_FILE_BATCHES.put(
        connection,
        *(
            {
                "path": fact.path,
                "row_group": 0,
                "feed": manifest.feed,
                "batch": manifest.batch,
                "epoch": manifest.epoch,
                "rows": fact.rows,
                "removed_version": None,
            }
            for fact in found
        ),
    )


def _or(found: int | None, otherwise: int | None) -> int | None:
    return otherwise if found is None else found


def _load(row: Any) -> Load:
    return Load(
        epoch=row.epoch,
        digest=row.digest,
        live=row.state == PUBLISHED,
        rows_received=row.rows_received,
        rows_loaded=row.rows_loaded,
        rows_quarantined=row.rows_quarantined,
        table_version=row.table_version,
    )


@dataclass(frozen=True, slots=True)
class FeedTotals:
    """The loads of one feed; event times in microseconds UTC, None without a valid row."""

    feed: str
    batches: int
    newest_batch: str
    rows_loaded: int
    rows_quarantined: int
    event_time_min_us: int | None
    event_time_max_us: int | None


def totals(connection: Connection) -> tuple[FeedTotals, ...]:
    """Return what is loaded of every feed, by feed; batches that were backed out do not count."""
    query = (
        select(
            _BATCHES.c.feed,
            func.count(),
            func.max(_BATCHES.c.batch),
            func.sum(_BATCHES.c.rows_loaded),
            func.sum(_BATCHES.c.rows_quarantined),
            func.min(_BATCHES.c.event_time_min_us),
            func.max(_BATCHES.c.event_time_max_us),
        )
        .where(LIVE)
        .group_by(_BATCHES.c.feed)
        .order_by(_BATCHES.c.feed)
    )
    return tuple(
        FeedTotals(feed, int(count), newest, int(loaded), int(quarantined), low, high)
        for feed, count, newest, loaded, quarantined, low, high in connection.execute(query)
    )
