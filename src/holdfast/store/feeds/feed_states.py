"""Rows of `feeds`: the state of each feed, changed in the transaction that changes what is loaded of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, insert, select, update

from holdfast.feeds.state_machine import Event, State, next_state
from holdfast.store.db import events, schema
from holdfast.store.db.statements import Prepared
from holdfast.store.feeds import violations

_FEEDS: Final = schema.feeds
_FIND: Final = Prepared(select(_FEEDS).where(_FEEDS.c.feed == bindparam("of_feed")))
_INSERT: Final = insert(_FEEDS)
_UPDATE: Final = (
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


def find(connection: Connection, feed: str) -> FeedRow | None:
    """Return the row of `feed`; None if it never delivered."""
    found = _FIND.rows(connection, {"of_feed": feed})
    if not found:
        return None
    (row,) = found
    return FeedRow(row.feed, State(row.state), row.contract_hash, row.reason, row.changed_at_us)


def everything(connection: Connection) -> list[FeedRow]:
    """Return every feed that ever delivered, by name."""
    rows = connection.execute(select(_FEEDS).order_by(_FEEDS.c.feed))
    return [FeedRow(row.feed, State(row.state), *row[2:]) for row in rows]


def move(
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
    before = find(connection, feed)
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
        connection.execute(_INSERT, {"feed": feed, **values})
    else:
        connection.execute(_UPDATE, {"of_feed": feed, **values})
    if moved and not (before is None and state is State.FLOWING):
        events.append(connection, at_us=now_us, kind=f"feed.{state}", subject=feed, explanation=reason)
    return before is None or before.contract_hash != contract


def settle_refusals(connection: Connection, feed: str, *, reason: str, now_us: int) -> None:
    """Let `feed` leave the refusing state if no refusal of it stands. Call it after an operator accepted one."""
    row = find(connection, feed)
    if row is None or row.state is not State.REFUSING:
        return
    if all(each.epoch is not None for each in violations.open_ones(connection, feed=feed)):
        move(connection, feed, Event.CLEARED, contract_hash=None, reason=reason, now_us=now_us)


def settle(connection: Connection, feed: str, *, reason: str, now_us: int) -> None:
    """Let `feed` flow again if no loaded batch of it is suspect any more.

    Call it after a back-out, and after an operator accepted what was wrong with a batch.
    """
    row = find(connection, feed)
    if row is not None and row.state is State.SUSPECT and not violations.suspect_batches(connection, feed):
        move(connection, feed, Event.CLEARED, contract_hash=None, reason=reason, now_us=now_us)
