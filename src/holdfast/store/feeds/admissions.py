"""Rows of `admissions`: the facts of admitted batches, which the next deliveries are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, exists, func, select
from sqlalchemy import insert as insert_into

from holdfast.feeds import measurements
from holdfast.feeds.admission import History, Past, describe
from holdfast.feeds.state_machine import Event
from holdfast.records import BatchId, Violation
from holdfast.store.db import events, schema
from holdfast.store.db.predicates import LIVE, UNACCEPTED_ERROR, same_load
from holdfast.store.db.statements import Prepared
from holdfast.store.feeds import feed_states, violations

_ADMISSIONS: Final = schema.admissions
_BATCHES: Final = schema.batches
_VIOLATIONS: Final = schema.violations
_INSERT: Final = Prepared(insert_into(_ADMISSIONS))
_OF_BATCH: Final = same_load(_BATCHES, _ADMISSIONS)
_SUSPECT: Final = exists().where(
    same_load(_VIOLATIONS, _BATCHES),
    UNACCEPTED_ERROR,
)
_PAST: Final = Prepared(
    select(_BATCHES.c.batch, _BATCHES.c.rows_received, _BATCHES.c.event_time_min_us)
    .where(_BATCHES.c.feed == bindparam("of_feed"), LIVE, ~_SUSPECT)
    .order_by(_BATCHES.c.table_version.desc())
    .limit(bindparam("most"))
)
_BEFORE: Final = Prepared(
    select(func.max(_BATCHES.c.event_time_max_us)).where(
        _BATCHES.c.feed == bindparam("of_feed"), LIVE, _BATCHES.c.event_time_min_us < bindparam("low_us")
    )
)
_COUNTED: Final = Prepared(
    select(func.max(_ADMISSIONS.c.sequence_max))
    .join(_BATCHES, _OF_BATCH)
    .where(_ADMISSIONS.c.feed == bindparam("of_feed"), LIVE, _ADMISSIONS.c.sequence_min < bindparam("number"))
)
_SAME: Final = {
    column.name: Prepared(
        select(_BATCHES.c.batch)
        .join(_ADMISSIONS, _OF_BATCH)
        .where(_ADMISSIONS.c.feed == bindparam("of_feed"), LIVE, column == bindparam("digest"))
        .limit(1)
    )
    for column in (_ADMISSIONS.c.rows_digest, _ADMISSIONS.c.values_digest)
}
_PROFILES: Final = Prepared(
    select(_BATCHES.c.batch, _ADMISSIONS.c.profile_json)
    .join(_ADMISSIONS, _OF_BATCH)
    .where(_BATCHES.c.feed == bindparam("of_feed"), LIVE, ~_SUSPECT)
    .order_by(_BATCHES.c.table_version.desc())
    .limit(bindparam("most"))
)


@dataclass(frozen=True, slots=True)
class Admission:
    """What is kept of an admitted delivery; `profile_json` is canonical JSON.

    `group_name` (empty for a feed of its own) and `event_time` are its feed's at the time of the load. A back-out goes by
    them, whatever is declared later.
    """

    rows_expected: int | None
    profile_json: str
    rows_digest: str
    values_digest: str
    sequence: measurements.Sequence | None = None
    group_name: str | None = None
    event_time: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """The parts of the history that a delivery is compared with; what is None or 0 is not looked up.

    `batches` is how many of the newest batches; `low_us` the delivery's first event, microseconds UTC; `number` the lowest
    number that it counts.
    """

    rows_digest: str
    values_digest: str = ""
    batches: int = 0
    low_us: int | None = None
    number: int | None = None


def history(connection: Connection, feed: str, query: HistoryQuery) -> History:
    """Return what came before a delivery of `feed`.

    Suspect batches are left out: they are no measure for others.
    """
    of = {"of_feed": feed}
    past: tuple[Past, ...] = ()
    if query.batches:
        rows = _PAST.rows(connection, {**of, "most": query.batches})
        past = tuple(
            Past(row.batch, row.rows_received, row.event_time_min_us)
            for row in rows
            if row.event_time_min_us is not None
        )
    before = sequence = same_rows = same_values = None
    if query.low_us is not None:
        before = _BEFORE.value(connection, {**of, "low_us": query.low_us})
    if query.number is not None:
        sequence = _COUNTED.value(connection, {**of, "number": query.number})
    if query.rows_digest:
        given = {**of, "digest": query.rows_digest}
        same_rows = _SAME["rows_digest"].value(connection, given)
    if query.values_digest:
        given = {**of, "digest": query.values_digest}
        same_values = _SAME["values_digest"].value(connection, given)
    return History(past, before, sequence, same_rows, same_values)


def profiles(connection: Connection, feed: str, most: int) -> list[str]:
    """Return the profiles (canonical JSON) of the newest loaded batches that are not suspect, the oldest first."""
    rows = _PROFILES.rows(connection, {"of_feed": feed, "most": most})
    return [row.profile_json for row in reversed(rows)]


def insert(connection: Connection, batch: BatchId, epoch: int, admission: Admission) -> None:
    """Insert what is kept of the delivery that became load `epoch` of `batch`."""
    counted = admission.sequence
    _INSERT.put(
        connection,
        {
            "feed": batch.feed,
            "batch": batch.batch,
            "epoch": epoch,
            "rows_expected": admission.rows_expected,
            "profile_json": admission.profile_json,
            "rows_digest": admission.rows_digest,
            "values_digest": admission.values_digest,
            "sequence_min": None if counted is None else counted.low,
            "sequence_max": None if counted is None else counted.high,
            "sequence_gaps": None if counted is None else counted.holes,
            "group_name": admission.group_name,
            "event_time": admission.event_time,
        },
    )


def refuse(
    connection: Connection,
    batch: BatchId,
    found: Sequence[Violation],
    *,
    contract_hash: str,
    now_us: int,
) -> None:
    """Record that a delivery of `batch` was refused, and why: its feed refuses from now on.

    The violations and the event are added unless they are those of the last refusal.

    Parameters
    ----------
    found
        The violations of the delivery.
    contract_hash
        The contract that the delivery was judged by.
    now_us
        Microseconds since 1970 UTC.
    """
    explanation = describe(found)
    feed_states.move(
        connection,
        batch.feed,
        Event.REFUSED,
        contract_hash=contract_hash,
        reason=f"batch {batch.batch}: {explanation}",
        now_us=now_us,
    )
    last = events.newest(connection, subject=str(batch), limit=1)
    if last and last[0].explanation == explanation:
        return
    violations.add(connection, batch, None, found, now_us=now_us)
    events.append(connection, at_us=now_us, kind="batch.refused", subject=str(batch), explanation=explanation)
