"""Rows of `batches`, and the one transaction that makes a load exist.

Before it a load is files that nothing names; after it the batch, its files, the version of the tables, the
values that servers read and the event are all there. There is nothing in between to repair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, literal_column, select
from sqlalchemy.exc import IntegrityError as UniqueError
from sqlalchemy.exc import SQLAlchemyError

from holdfast.errors import ConflictError, IntegrityError, UnavailableError
from holdfast.feeds import AlreadyLoaded, Load, Manifest, Publish, decide
from holdfast.records import BatchId
from holdfast.store.catalog import online_features as online
from holdfast.store.catalog.online_features import Definition, OnlineValue
from holdfast.store.db import events, schema
from holdfast.store.db.predicates import LIVE, PUBLISHED
from holdfast.store.db.statements import Prepared
from holdfast.store.db.store import Store
from holdfast.store.durability.failpoints import fault_point
from holdfast.store.files import staging
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
_ELSEWHERE: Final = Prepared(
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
    insert(_VERSIONS).returning(_VERSIONS.c.table_version), ("committed_at_us", "reason")
)
_NEW_BATCH: Final = Prepared(insert(_BATCHES))
_NEW_FILES: Final = Prepared(insert(_FILES))
_NEW_FILE_BATCHES: Final = Prepared(insert(_FILE_BATCHES))


@dataclass(frozen=True, slots=True)
class Publication:
    """Everything that one load puts into the ledger.

    `event_time_min_us` and `event_time_max_us` bound the event times of the valid rows. `basis` is the table version
    at which `online` was computed and what came before was looked up, None when there is nothing that depends on
    other batches. `outdated` says, in that transaction, whether what the load was judged by holds no more. `beside` writes
    what else is to be true with the load, in the same transaction.
    """

    manifest: Manifest
    files: tuple[FileFacts, ...]
    rows_loaded: int
    rows_quarantined: int
    event_time_min_us: int | None
    event_time_max_us: int | None
    source: str
    explanation: str
    online: tuple[OnlineValue, ...] = ()
    definitions: tuple[Definition, ...] = ()
    basis: int | None = None
    outdated: Callable[[Connection], bool] | None = None
    beside: Callable[[Connection], None] | None = None

    @property
    def batch(self) -> BatchId:
        """The batch that is published."""
        return BatchId(self.manifest.feed, self.manifest.batch)


@dataclass(frozen=True, slots=True)
class Published:
    """The load exists since `table_version`."""

    table_version: int


@dataclass(frozen=True, slots=True)
class Overtaken:
    """Another batch of the feed was published after `basis`, or what the load was judged by is outdated: what was found must
    be found again.
    """


@dataclass(frozen=True, slots=True)
class Swept:
    """A file of the load is gone: a sweep took its loader for dead, as can be where the file system has no locks. Write
    them again.
    """


Outcome = Published | AlreadyLoaded | Overtaken | Swept


def loads(connection: Connection, batch: BatchId) -> list[Load]:
    """Every load of `batch`, the oldest first."""
    of = {"of_feed": batch.feed, "of_batch": batch.batch}
    return [_load(row) for row in _LOADS.rows(connection, of)]


def answer(connection: Connection, batch: BatchId, digest: str) -> Publish | AlreadyLoaded:
    """What a delivery with `digest` means to what is loaded now; raises as `feeds.decide` does."""
    of = {"of_feed": batch.feed, "of_batch": batch.batch, "of_digest": digest}
    elsewhere = _ELSEWHERE.value(connection, of)
    return decide(batch, digest, loads(connection, batch), elsewhere=elsewhere)


def current_version(connection: Connection) -> int:
    """The newest table version, 0 before the first load."""
    return int(_CURRENT_VERSION.value(connection, {}))


def publish(store: Store, publication: Publication, *, now_us: int) -> Outcome:
    """Make the load exist, all of it or nothing, and say what is true afterwards.

    Parameters
    ----------
    now_us
        The moment of the load, microseconds since 1970 UTC.

    However often and from however many processes the same content is published, one publication wins and
    the others return `AlreadyLoaded`. Raises `ConflictError` HF203 when the id is live with other content or
    the content under another id,
    `IntegrityError` HF301 when a file has not the size that was written and HF302 when what was to be written breaks a
    rule of the ledger, and `UnavailableError` HF205 when the answer
    to the commit was lost and the ledger cannot be asked; after any other failure of the database the
    ledger was asked and what it says is returned, or the load is not there and `UnavailableError` HF302
    says so.
    """
    try:
        return _transaction(store, publication, now_us)
    except UniqueError as error:  # PostgreSQL: another transaction published the id while ours was open
        return _settle(store, publication, error)
    except (SQLAlchemyError, UnavailableError, OSError) as error:
        return _reread(store, publication, error)


def _transaction(store: Store, publication: Publication, now_us: int) -> Outcome:
    batch, manifest = publication.batch, publication.manifest
    with store.ledger.write() as connection:
        fault_point("publish.begun")
        found = answer(connection, batch, manifest.digest)
        if isinstance(found, AlreadyLoaded):
            return found
        if found.epoch != manifest.epoch:
            raise ConflictError(
                "HF304",
                f"batch {batch} was loaded and backed out while this load was under way",
                state="nothing was loaded",
                next_command="the same command again",
            )
        if _moved_on(connection, publication):
            return Overtaken()
        if not staging.are_there(store.root, publication.files):
            return Swept()
        version = new_version(connection, f"load {batch}", now_us)
        _insert_batch(connection, publication, version)
        _insert_files(connection, publication, version)
        online.upsert(connection, publication.online, version)
        online.register(connection, publication.definitions, version)
        events.append(
            connection,
            at_us=now_us,
            kind="batch.published",
            subject=str(batch),
            explanation=publication.explanation,
        )
        if publication.beside is not None:
            publication.beside(connection)
        fault_point("publish.before_commit")
    fault_point("publish.after_commit")
    return Published(version)


def _settle(store: Store, publication: Publication, error: UniqueError) -> Outcome:
    """What to answer after a race was lost: the same as if the other load had been there before. When there is no
    other load, a constraint was broken by what we wrote, and trying again would break it again.
    """
    with store.ledger.read() as connection:
        found = answer(connection, publication.batch, publication.manifest.digest)
        overtaken = _moved_on(connection, publication)
    if isinstance(found, AlreadyLoaded):
        return found
    if overtaken:
        return Overtaken()
    raise IntegrityError(
        "HF309",
        f"the ledger refuses batch {publication.batch}: {error.orig}",
        state="nothing was loaded",
    ) from error


def _reread(store: Store, publication: Publication, error: Exception) -> Outcome:
    """Whether a commit that failed did happen: its own files say so, because no other attempt has their
    names.
    """
    paths = [fact.path for fact in publication.files]
    try:
        # As a writer: a commit that is still under way somewhere holds the writers' lock until it is over.
        with store.ledger.write() as connection:
            query = select(_FILES.c.added_version).where(_FILES.c.path.in_(paths)).limit(1)
            version = connection.execute(query).scalar_one_or_none()
    except (SQLAlchemyError, UnavailableError, OSError) as second:
        raise UnavailableError(
            "HF205",
            f"whether batch {publication.batch} was loaded is unknown: the answer was lost ({error})",
            state="the batch is loaded completely or not at all",
            next_command="the same command again: it loads the batch only if it is not there",
        ) from second
    if version is None:
        raise UnavailableError(
            "HF302",
            f"the ledger did not take batch {publication.batch}: {error}",
            state="nothing was loaded",
            next_command="the same command again",
        ) from error
    return Published(int(version))


def publish_values(
    store: Store,
    feed: str,
    values: Sequence[OnlineValue],
    definitions: Sequence[Definition],
    *,
    basis: int,
    now_us: int,
) -> Published | Overtaken:
    """Add `values` of aggregates over `feed`, computed from the rows at table version `basis`, in one transaction."""
    with store.ledger.write() as connection:
        if _feed_moved_on(connection, feed, basis):
            return Overtaken()
        version = new_version(connection, f"aggregates over {feed}", now_us)
        online.upsert(connection, values, version)
        online.register(connection, definitions, version)
    return Published(version)


def rows_since(connection: Connection, feed: str, version: int) -> bool:
    """Whether rows of `feed` came or went after table version `version`."""
    values = {"of_feed": feed, "since": version}
    if any(query.rows(connection, values) for query in _CHANGES):
        return True
    return any(row.feed == feed for row in _PARTS_GONE.rows(connection, values))


def _moved_on(connection: Connection, publication: Publication) -> bool:
    if publication.outdated is not None and publication.outdated(connection):
        return True
    return publication.basis is not None and _feed_moved_on(
        connection, publication.manifest.feed, publication.basis
    )


def _feed_moved_on(connection: Connection, feed: str, basis: int) -> bool:
    # An aggregate that was added meanwhile does not hold what is about to be published either.
    kept = online.definitions(connection, feed)
    return rows_since(connection, feed, basis) or any(reached > basis for _, reached in kept)


def new_version(connection: Connection, reason: str, now_us: int) -> int:
    """A new version of the tables, in the caller's transaction, which says what makes it."""
    values = {"committed_at_us": now_us, "reason": reason[:64]}
    return int(_NEW_VERSION.value(connection, values))


def _insert_batch(connection: Connection, publication: Publication, version: int) -> None:
    _NEW_BATCH.put(
        connection,
        {
            **publication.manifest.load(),
            "state": PUBLISHED,
            "rows_received": publication.rows_loaded + publication.rows_quarantined,
            "rows_loaded": publication.rows_loaded,
            "rows_quarantined": publication.rows_quarantined,
            "event_time_min_us": publication.event_time_min_us,
            "event_time_max_us": publication.event_time_max_us,
            "table_version": version,
            "source": publication.source,
        },
    )


def _insert_files(connection: Connection, publication: Publication, version: int) -> None:
    manifest = publication.manifest
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
                "event_time_min_us": _or(fact.event_time_min_us, publication.event_time_min_us),
                "event_time_max_us": _or(fact.event_time_max_us, publication.event_time_max_us),
                "added_version": version,
                "removed_version": None,
            }
            for fact in publication.files
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
            for fact in publication.files
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
    """What is loaded of one feed. `event_time_max_us` is the newest event of a valid row, None without one."""

    feed: str
    batches: int
    newest_batch: str
    rows_loaded: int
    rows_quarantined: int
    event_time_min_us: int | None
    event_time_max_us: int | None


def totals(store: Store) -> tuple[FeedTotals, ...]:
    """What is loaded of every feed, by feed; batches that were backed out do not count."""
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
    with store.ledger.read() as connection:
        return tuple(
            FeedTotals(feed, int(count), newest, int(loaded), int(quarantined), low, high)
            for feed, count, newest, loaded, quarantined, low, high in connection.execute(query)
        )
