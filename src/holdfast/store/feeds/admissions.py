"""Rows of `admissions` and `feeds`: the facts of admitted batches, and the state of each feed that its deliveries lead to.

The next deliveries are compared with the facts. The state is changed in the transaction that changes what is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import Connection, bindparam, exists, func, select
from sqlalchemy import insert as insert_into

from holdfast.feeds import measurements
from holdfast.feeds.admission import History, Past, describe
from holdfast.feeds.state_machine import Event, State, next_state
from holdfast.records import BatchId, Violation
from holdfast.store.db import events, failed_operations, rows, schema
from holdfast.store.db.failed_operations import Operation
from holdfast.store.db.statements import LIVE, UNACCEPTED_ERROR, Prepared, same_load
from holdfast.store.feeds import violations

_ADMISSIONS: Final = schema.admissions
_BATCHES: Final = schema.batches
_VIOLATIONS: Final = schema.violations
_INSERT: Final = Prepared(insert_into(_ADMISSIONS))
_OF_BATCH: Final = same_load(_BATCHES, _ADMISSIONS)
_SUSPECT: Final = exists().where(same_load(_VIOLATIONS, _BATCHES), UNACCEPTED_ERROR)
_NEWEST: Final = (
    select(_BATCHES)
    .where(_BATCHES.c.feed == bindparam("of_feed"), LIVE, ~_SUSPECT)
    .order_by(_BATCHES.c.table_version.desc())
    .limit(bindparam("most"))
)
_PAST: Final = Prepared(
    _NEWEST.with_only_columns(_BATCHES.c.batch, _BATCHES.c.rows_received, _BATCHES.c.event_time_min_us)
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
_SAME: Final = tuple(
    Prepared(
        select(_BATCHES.c.batch)
        .join(_ADMISSIONS, _OF_BATCH)
        .where(_ADMISSIONS.c.feed == bindparam("of_feed"), LIVE, column == bindparam("digest"))
        .limit(1)
    )
    for column in (_ADMISSIONS.c.rows_digest, _ADMISSIONS.c.values_digest)
)
_PROFILES: Final = Prepared(
    _NEWEST.join(_ADMISSIONS, _OF_BATCH).with_only_columns(_ADMISSIONS.c.profile_json)
)
_COMPARABLE: Final = Prepared(_NEWEST.join(_ADMISSIONS, _OF_BATCH).with_only_columns(_BATCHES.c.batch))

_FEEDS: Final = schema.feeds
_FIND_FEED: Final = Prepared(select(_FEEDS).where(_FEEDS.c.feed == bindparam("of_feed")))


@dataclass(frozen=True, slots=True)
class Admission:
    """What is kept of an admitted delivery; `profile_json` is canonical JSON.

    `group_name` (empty for a feed of its own), `event_time` and the periods are its feed's at the time of the load. A back-out
    goes by them, whatever is declared later.
    """

    rows_expected: int | None
    profile_json: str
    rows_digest: str
    values_digest: str
    sequence: measurements.Sequence | None = None
    group_name: str | None = None
    event_time: str | None = None
    group_period_us: int | None = None
    group_zone: str | None = None


_PLAIN: Final = tuple(field.name for field in fields(Admission) if field.name != "sequence")


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
    newest = _PAST.rows(connection, {**of, "most": query.batches}) if query.batches else ()
    past = tuple(Past(*row) for row in newest if row.event_time_min_us is not None)
    before = sequence = None
    if query.low_us is not None:
        before = _BEFORE.value(connection, {**of, "low_us": query.low_us})
    if query.number is not None:
        sequence = _COUNTED.value(connection, {**of, "number": query.number})
    same_rows, same_values = (
        same.value(connection, {**of, "digest": digest}) if digest else None
        for same, digest in zip(_SAME, (query.rows_digest, query.values_digest), strict=True)
    )
    return History(past, before, sequence, same_rows, same_values)


def profiles(connection: Connection, feed: str, most: int) -> list[str]:
    """Return the profiles (canonical JSON) of the newest loaded batches that are not suspect, the oldest first."""
    newest = _PROFILES.rows(connection, {"of_feed": feed, "most": most})
    return [row.profile_json for row in reversed(newest)]


def count_profiles(connection: Connection, feed: str, most: int) -> int:
    """Return how many batches `profiles` would return, without reading them."""
    return len(_COMPARABLE.rows(connection, {"of_feed": feed, "most": most}))


def insert(connection: Connection, batch: BatchId, epoch: int, admission: Admission) -> None:
    """Insert what is kept of the delivery that became load `epoch` of `batch`."""
    counted = admission.sequence
    _INSERT.put(
        connection,
        {
            **{name: getattr(admission, name) for name in _PLAIN},
            "feed": batch.feed,
            "batch": batch.batch,
            "epoch": epoch,
            "sequence_min": None if counted is None else counted.low,
            "sequence_max": None if counted is None else counted.high,
            "sequence_gaps": None if counted is None else counted.holes,
        },
    )


def refuse(
    connection: Connection,
    batch: BatchId,
    found: Sequence[Violation],
    *,
    contract_hash: str,
    now_us: int,
    operation: Operation | None = None,
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
    operation
        The load that ends with it; None if it is not known.
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
    if last and last[0].explanation == events.as_written(explanation):
        return
    violations.add(connection, batch, None, found, now_us=now_us)
    event = events.append(
        connection, at_us=now_us, kind="batch.refused", subject=str(batch), explanation=explanation
    )
    if operation is not None:
        failed_operations.put(connection, event, operation)


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
    return next((FeedRow(row.feed, State(row.state), *row[2:]) for row in found), None)


def feed_rows(connection: Connection) -> list[FeedRow]:
    """Return every feed that ever delivered, by name."""
    return rows.read(connection, select(_FEEDS).order_by(_FEEDS.c.feed), FeedRow)


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
    values = {"state": state, "contract_hash": contract, "reason": reason, "changed_at_us": now_us}
    if before is not None and not moved:
        values |= {"reason": before.reason, "changed_at_us": before.changed_at_us}
    rows.put(connection, _FEEDS, {"feed": feed, **values})
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
