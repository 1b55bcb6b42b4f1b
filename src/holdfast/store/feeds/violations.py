"""Rows of `violations`: expectations that a delivery did not meet, and the operator that accepted them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, bindparam, exists, insert, or_, select, update

from holdfast.feeds import measurements
from holdfast.records import BatchId, Level, Violation, shortened
from holdfast.store.db import rows, schema
from holdfast.store.db.events import SYSTEM
from holdfast.store.db.statements import LIVE, UNACCEPTED_ERROR, Prepared, at_version, pieces, same_load
from holdfast.tables.snapshots import LoadKey

_VIOLATIONS: Final = schema.violations
_BATCHES: Final = schema.batches
_ADMISSIONS: Final = schema.admissions
_PARTS: Final = schema.file_row_groups

_INSERT: Final = insert(_VIOLATIONS)
_LONGEST_SUBJECT: Final = 127

REREGISTERED: Final = "reregistered"
"""The check of a load that was re-registered from its files: its violations are lost."""

_OF_BATCH: Final = same_load(_BATCHES, _VIOLATIONS)
_OPEN_GAPS: Final = Prepared(
    select(
        _VIOLATIONS.c.violation_id,
        _VIOLATIONS.c.batch,
        _VIOLATIONS.c.check_name,
        _VIOLATIONS.c.level,
        _VIOLATIONS.c.explanation,
        _BATCHES.c.event_time_min_us,
        _ADMISSIONS.c.sequence_min,
        _ADMISSIONS.c.sequence_max,
        _ADMISSIONS.c.sequence_gaps,
    )
    .join(_BATCHES, _OF_BATCH)
    .join(_ADMISSIONS, same_load(_ADMISSIONS, _BATCHES))
    .where(
        _VIOLATIONS.c.feed == bindparam("of_feed"),
        _VIOLATIONS.c.batch != bindparam("but"),
        # Written out, because a prepared statement takes no list.
        or_(_VIOLATIONS.c.check_name == "missing_batches", _VIOLATIONS.c.check_name == "sequence_gaps"),
        _VIOLATIONS.c.accepted_at_us.is_(None),
        LIVE,
        _BATCHES.c.event_time_min_us.is_not(None),
    )
    .order_by(_VIOLATIONS.c.violation_id)
)
_SUSPECT_BATCHES: Final = (
    select(_VIOLATIONS.c.batch)
    .join(_BATCHES, _OF_BATCH)
    .where(_VIOLATIONS.c.feed == bindparam("of_feed"), UNACCEPTED_ERROR, LIVE)
    .distinct()
    .order_by(_VIOLATIONS.c.batch)
)


_VERSIONS: Final = schema.table_versions
_AGAIN: Final = _VIOLATIONS.alias("again")
_LOADED_SINCE: Final = (
    select(_BATCHES.c.batch)
    .join(_VERSIONS, _VERSIONS.c.table_version == _BATCHES.c.table_version)
    .where(_BATCHES.c.feed == _VIOLATIONS.c.feed, _VERSIONS.c.committed_at_us >= _VIOLATIONS.c.found_at_us)
)
_IS_LOADED: Final = exists().where(_OF_BATCH, LIVE)
_STANDS_REFUSED: Final = and_(
    _VIOLATIONS.c.epoch.is_(None),
    ~_LOADED_SINCE.where(
        or_(_BATCHES.c.batch == _VIOLATIONS.c.batch, _VIOLATIONS.c.check_name == "duplicates")
    ).exists(),
    ~exists().where(
        _AGAIN.c.feed == _VIOLATIONS.c.feed,
        _AGAIN.c.batch == _VIOLATIONS.c.batch,
        _AGAIN.c.epoch.is_(None),
        _AGAIN.c.found_at_us > _VIOLATIONS.c.found_at_us,
    ),
)


@dataclass(frozen=True, slots=True)
class ViolationRow:
    """One violation of one delivery; `epoch` is None if the delivery was refused. Times are microseconds UTC."""

    violation_id: int
    feed: str
    batch: str
    epoch: int | None
    check_name: str
    subject: str
    level: Level
    observed: float | None
    bound: float | None
    explanation: str
    found_at_us: int
    accepted_at_us: int | None
    accepted_by: str | None


def add(
    connection: Connection, batch: BatchId, epoch: int | None, found: Sequence[Violation], *, now_us: int
) -> None:
    """Insert the violations of a delivery in the caller's transaction.

    Parameters
    ----------
    epoch
        The load that the delivery became, None if it was refused.
    now_us
        Microseconds since 1970 UTC.
    """
    if found:
        connection.execute(
            _INSERT,
            [
                {
                    "feed": batch.feed,
                    "batch": batch.batch,
                    "epoch": epoch,
                    "check_name": each.check,
                    "subject": shortened(each.subject, _LONGEST_SUBJECT),
                    "level": each.level,
                    "observed": each.observed,
                    "bound": each.bound,
                    "explanation": each.explanation,
                    "found_at_us": now_us,
                }
                for each in found
            ],
        )


def open_ones(
    connection: Connection, *, feed: str | None = None, batch: str | None = None, limit: int | None = None
) -> list[ViolationRow]:
    """Return the violations that stand, the newest first: of loads, and of refused deliveries.

    A refusal is over once its batch was loaded or refused anew. The refusal of a repetition is over once its feed was loaded
    at all: its rows were there before, so no corrected delivery will come.
    """
    query = select(_VIOLATIONS).where(
        _VIOLATIONS.c.accepted_at_us.is_(None), or_(_IS_LOADED, _STANDS_REFUSED)
    )
    if feed is not None:
        query = query.where(_VIOLATIONS.c.feed == feed)
    if batch is not None:
        query = query.where(_VIOLATIONS.c.batch == batch)
    query = query.order_by(_VIOLATIONS.c.violation_id.desc()).limit(limit)
    return rows.read(connection, query, ViolationRow)


@dataclass(frozen=True, slots=True)
class OpenGap:
    """An open violation that reports something missing before a loaded batch, and the place of that batch.

    The place is its first event, microseconds UTC, and the numbers that it counts.
    """

    violation_id: int
    batch: str
    check_name: str
    level: Level
    explanation: str
    event_time_min_us: int
    sequence: measurements.Sequence | None


def open_gaps(connection: Connection, feed: str, but: str) -> list[OpenGap]:
    """Return what is reported missing before the loaded batches of `feed`, without the batch `but`, by batch."""
    found = _OPEN_GAPS.rows(connection, {"of_feed": feed, "but": but})
    return [
        OpenGap(
            row.violation_id,
            row.batch,
            row.check_name,
            Level(row.level),
            row.explanation,
            row.event_time_min_us,
            None
            if row.sequence_min is None
            else measurements.Sequence(row.sequence_min, row.sequence_max, row.sequence_gaps),
        )
        for row in found
    ]


def withdraw(connection: Connection, violation: int, *, now_us: int) -> None:
    """Record that a violation no longer holds: the system accepts it, unless it is accepted already."""
    connection.execute(
        update(_VIOLATIONS)
        .where(_VIOLATIONS.c.violation_id == violation, _VIOLATIONS.c.accepted_at_us.is_(None))
        .values(accepted_at_us=now_us, accepted_by=SYSTEM)
    )


def suspect_batches(connection: Connection, feed: str) -> list[str]:
    """Return the loaded batches of `feed` that broke an expectation at level "error" and are not accepted."""
    return list(connection.execute(_SUSPECT_BATCHES, {"of_feed": feed}).scalars())


def suspect_loads(connection: Connection, feed: str) -> list[LoadKey]:
    """Return the loads of `suspect_batches` without those that are only re-registered: servers read no value of their rows."""
    query = _SUSPECT_BATCHES.with_only_columns(
        _VIOLATIONS.c.feed, _VIOLATIONS.c.batch, _VIOLATIONS.c.epoch
    ).where(_VIOLATIONS.c.check_name != REREGISTERED)
    return [(row.feed, row.batch, row.epoch) for row in connection.execute(query, {"of_feed": feed})]


def reregistered_batches(connection: Connection, feed: str) -> list[str]:
    """Return the loaded batches of `feed` that were re-registered and are not accepted."""
    query = _SUSPECT_BATCHES.where(_VIOLATIONS.c.check_name == REREGISTERED)
    return list(connection.execute(query, {"of_feed": feed}).scalars())


def suspects_in(connection: Connection, snapshot: str) -> list[ViolationRow]:
    """Return the violations at level "error", not accepted, of the loads in `snapshot`, by feed and batch."""
    snapshots, tables, held = schema.snapshots, schema.snapshot_tables, schema.snapshot_incomplete_loads
    query = (
        select(_VIOLATIONS)
        .join(_BATCHES, _OF_BATCH)
        .join(tables, tables.c.table_name == _VIOLATIONS.c.feed)
        .join(snapshots, snapshots.c.snapshot == tables.c.snapshot)
        .where(
            UNACCEPTED_ERROR,
            tables.c.snapshot == snapshot,
            _BATCHES.c.table_version <= snapshots.c.table_version,
            exists().where(same_load(_PARTS, _VIOLATIONS), at_version(_PARTS, snapshots.c.table_version)),
            ~exists().where(held.c.snapshot == snapshot, same_load(held, _VIOLATIONS)),
        )
        .order_by(_VIOLATIONS.c.feed, _VIOLATIONS.c.batch, _VIOLATIONS.c.violation_id)
    )
    return rows.read(connection, query, ViolationRow)


def accept(connection: Connection, batch: BatchId, *, actor: str, now_us: int) -> list[ViolationRow]:
    """Record that `actor` accepts the violations of `batch` that `open_ones` returns; return them as they were."""
    found = open_ones(connection, feed=batch.feed, batch=batch.batch)
    accepted = update(_VIOLATIONS).values(accepted_at_us=now_us, accepted_by=actor[:63])
    for some in pieces([row.violation_id for row in found]):
        connection.execute(accepted.where(_VIOLATIONS.c.violation_id.in_(some)))
    return found


def accept_reregistered(connection: Connection, feed: str, *, actor: str, now_us: int) -> int:
    """Record that `actor` accepts every re-registered batch of `feed` that is loaded; return how many."""
    here = (_VIOLATIONS.c.feed == feed, _VIOLATIONS.c.check_name == REREGISTERED)
    done = connection.execute(
        update(_VIOLATIONS)
        .where(*here, UNACCEPTED_ERROR, _IS_LOADED)
        .values(accepted_at_us=now_us, accepted_by=actor[:63])
    )
    return int(done.rowcount)
