"""Accept a suspect batch, or declare an incomplete batch final."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from holdfast.control.ingest.online_features import refresh
from holdfast.errors import NotFoundError
from holdfast.feeds.groups import FeedGroup, find_lacking_feeds
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.store.db import events
from holdfast.store.feeds import admissions, violations
from holdfast.store.feeds.violations import ViolationRow

ACCEPTED = "batch.accepted"
"""The kind of the event by which an operator accepts a suspect batch."""

ACCEPTED_INCOMPLETE: Final = "batch.accepted_incomplete"
"""The kind of the event by which an operator accepts a batch that waits for other feeds of its group."""

ALL_ACCEPTED: Final = "feed.accepted"
"""The kind of the event by which an operator accepts every re-registered batch of a feed."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The violations that were accepted, and the loaded batches of the feed that are still suspect."""

    batch: BatchId
    violations: tuple[ViolationRow, ...]
    suspect: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AcceptedAll:
    """The number of loads that were accepted together, and the loaded batches of the feed that stay suspect."""

    feed: str
    loads: int
    suspect: tuple[str, ...]


def accept(store: Store, batch: BatchId, *, reason: str, actor: str, now_us: int) -> Accepted:
    """Record in one transaction that `actor` accepts every open violation of `batch`, because of `reason`.

    The feed flows again when no other batch of it is suspect, and servers read the online values of its rows. Accepting a
    refused delivery loads nothing: it settles the refusal, and the feed refuses no more if it was the last. Raises
    `NotFoundError` HF410 when the batch has no open violation.

    Parameters
    ----------
    reason
        Why, in the words of the operator; kept with the event.
    actor
        Name of the operator.
    now_us
        Microseconds since 1970 UTC.
    """
    with store.ledger.write() as connection:
        open_ones = tuple(violations.accept(connection, batch, actor=actor, now_us=now_us))
        if not open_ones:
            raise NotFoundError(
                "HF410",
                f"batch {batch} broke no expectation that stands and is not accepted yet",
                state="nothing was changed",
                next_command=f"holdfast feeds {batch.feed}",
            )
        explanation = f"{reason}; accepted: {'; '.join(row.explanation for row in open_ones)}"
        events.append(
            connection, at_us=now_us, kind=ACCEPTED, subject=str(batch), explanation=explanation, actor=actor
        )
        by = f"{actor} accepted batch {batch.batch}: {reason}"
        admissions.settle_feed(connection, batch.feed, reason=by, now_us=now_us)
        admissions.settle_refusals(connection, batch.feed, reason=by, now_us=now_us)
        left = tuple(violations.suspect_batches(connection, batch.feed))
    refresh(store, [batch.feed], now_us=now_us)
    return Accepted(batch, open_ones, left)


def accept_all(store: Store, feed: str, *, reason: str, actor: str, now_us: int) -> AcceptedAll:
    """Record in one transaction that `actor` accepts every re-registered batch of `feed`, because of `reason`.

    Only that is accepted of them; other violations of a batch stay. Raises `NotFoundError` HF410 when there is none.

    Parameters
    ----------
    reason
        Why, in the words of the operator; kept with the event.
    actor
        Name of the operator.
    now_us
        Microseconds since 1970 UTC.
    """
    with store.ledger.write() as connection:
        count = violations.accept_reregistered(connection, feed, actor=actor, now_us=now_us)
        if not count:
            raise NotFoundError(
                "HF410",
                f"feed {feed} has no re-registered batch that is not accepted yet",
                state="nothing was changed",
                next_command=f"holdfast feeds {feed}",
            )
        explanation = f"{reason}; accepted: {count} loads that were re-registered from their files"
        events.append(
            connection, at_us=now_us, kind=ALL_ACCEPTED, subject=feed, explanation=explanation, actor=actor
        )
        admissions.settle_feed(
            connection, feed, reason=f"{actor} accepted the re-registered batches: {reason}", now_us=now_us
        )
        return AcceptedAll(feed, count, tuple(violations.suspect_batches(connection, feed)))


def accept_incomplete(
    store: Store,
    batch: BatchId,
    groups: Mapping[str, FeedGroup | None],
    *,
    reason: str,
    actor: str,
    now_us: int,
) -> tuple[str, ...]:
    """Record that `actor` wants the loaded batch in the next snapshots although feeds of its group lack it.

    Returns the feeds that lack the batch. Raises `NotFoundError` HF410 when the batch
    waits for no other feed.

    Parameters
    ----------
    groups
        The group of each feed, None for a feed of its own.
    reason
        Why, in the words of the operator; kept with the event.
    actor
        Name of the operator.
    now_us
        Microseconds since 1970 UTC.
    """
    with store.ledger.write() as connection:
        held = [
            load for load in snapshots.waiting(connection, groups) if load[:2] == (batch.feed, batch.batch)
        ]
        if not held:
            raise NotFoundError(
                "HF410",
                f"batch {batch} waits for no other feed: it is not loaded, or in every snapshot already",
                state="nothing was changed",
                next_command=f"holdfast feeds {batch.feed}",
            )
        group = groups[batch.feed]
        assert group is not None, "a feed of its own waits for no other"
        members = snapshots.group_loads(connection, groups, group.name, accepted=False)
        lacking = find_lacking_feeds(members, batch.feed, batch.batch)
        explanation = f"{reason}; accepted without {', '.join(lacking)}"
        snapshots.accept_incomplete(connection, held[0], explanation=explanation, actor=actor, now_us=now_us)
        events.append(
            connection,
            at_us=now_us,
            kind=ACCEPTED_INCOMPLETE,
            subject=str(batch),
            explanation=explanation,
            actor=actor,
        )
    refresh(store, list(members), now_us=now_us)
    return lacking
