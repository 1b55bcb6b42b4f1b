"""Rows of `admissions` and `feeds`: the facts of admitted batches, and the state of each feed that its deliveries lead to.

The next deliveries are compared with the facts. The state is changed in the transaction that changes what is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, exists, func, select, update
from sqlalchemy import insert as insert_into

from holdfast.feeds import measurements
from holdfast.feeds.admission import History, Past, describe
from holdfast.feeds.state_machine import Event, State, next_state
from holdfast.records import BatchId, Violation
from holdfast.store.db import events, schema
from holdfast.store.db.statements import LIVE, UNACCEPTED_ERROR, Prepared, same_load
from holdfast.store.feeds import violations

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
    move_feed(
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


_FEEDS: Final = schema.feeds
_FIND_FEED: Final = Prepared(select(_FEEDS).where(_FEEDS.c.feed == bindparam("of_feed")))
_INSERT_FEED: Final = insert_into(_FEEDS)
_UPDATE_FEED: Final = (
    update(_FEEDS)
    .where(_FEEDS.c.feed == bindparam("of_feed"))
    .values({name: bindparam(name) for name in ("state", "contract_hash", "reason", "changed_at_us")})
)


@dataclass(frozen=True, slots=True)
class FeedRow:
    """One feed that ever delivered. `reason` is why it is in its state since `changed_at_us`, microseconds UTC."""

    feed: str
    state: State
    contract_hash: str
    reason: str
    changed_at_us: int


def feed_row(connection: Connection, feed: str) -> FeedRow | None:
    """Return the row of `feed`; None if it never delivered."""
    found = _FIND_FEED.rows(connection, {"of_feed": feed})
    if not found:
        return None
    (row,) = found
    return FeedRow(row.feed, State(row.state), row.contract_hash, row.reason, row.changed_at_us)


def feed_rows(connection: Connection) -> list[FeedRow]:
    """Return every feed that ever delivered, by name."""
    rows = connection.execute(select(_FEEDS).order_by(_FEEDS.c.feed))
    return [FeedRow(row.feed, State(row.state), *row[2:]) for row in rows]


def move_feed(
    connection: Connection,
    feed: str,
    event: Event,
    *,
    contract_hash: str | None,
    reason: str,
    now_us: int,
) -> bool:
    """Move `feed` to the state that `event` leads to, in the caller's transaction, and report a change of state.

    Nothing is written when neither state nor contract change. Returns True if the contract differs from that of the
    delivery before.

    Parameters
    ----------
    contract_hash
        The contract of the delivery, None to leave that of the feed.
    reason
        Why the feed is in its new state.
    now_us
        Microseconds since 1970 UTC.
    """
    before = feed_row(connection, feed)
    state = next_state(State.FLOWING if before is None else before.state, event)
    contract = contract_hash or ("" if before is None else before.contract_hash)
    if before is not None and (before.state, before.contract_hash) == (state, contract):
        return False
    moved = before is None or before.state is not state
    if before is not None and not moved:
        reason, changed_at_us = before.reason, before.changed_at_us
    else:
        changed_at_us = now_us
    values = {"state": state, "contract_hash": contract, "reason": reason, "changed_at_us": changed_at_us}
    if before is None:
        connection.execute(_INSERT_FEED, {"feed": feed, **values})
    else:
        connection.execute(_UPDATE_FEED, {"of_feed": feed, **values})
    if moved and not (before is None and state is State.FLOWING):
        events.append(connection, at_us=now_us, kind=f"feed.{state}", subject=feed, explanation=reason)
    return before is None or before.contract_hash != contract


def settle_refusals(connection: Connection, feed: str, *, reason: str, now_us: int) -> None:
    """Let `feed` leave the refusing state if no refusal of it stands. Call it after an operator accepted one."""
    row = feed_row(connection, feed)
    if row is None or row.state is not State.REFUSING:
        return
    if all(each.epoch is not None for each in violations.open_ones(connection, feed=feed)):
        move_feed(connection, feed, Event.CLEARED, contract_hash=None, reason=reason, now_us=now_us)


def settle_feed(connection: Connection, feed: str, *, reason: str, now_us: int) -> None:
    """Let `feed` flow again if no loaded batch of it is suspect any more.

    Call it after a back-out, and after an operator accepted what was wrong with a batch.
    """
    row = feed_row(connection, feed)
    if row is not None and row.state is State.SUSPECT and not violations.suspect_batches(connection, feed):
        move_feed(connection, feed, Event.CLEARED, contract_hash=None, reason=reason, now_us=now_us)
