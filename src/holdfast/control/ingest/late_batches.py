"""Late batches: a batch that fills a reported gap withdraws the violation that reported it."""

from __future__ import annotations

from holdfast.feeds import Feed, admission
from holdfast.feeds.admission import History
from holdfast.feeds.measurements import DeliveryFacts
from holdfast.records import BatchId
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import admissions, feed_states, violations
from holdfast.store.feeds.admissions import HistoryQuery

WITHDRAWN = "violation.withdrawn"
"""The kind of the event that withdraws a violation."""


def withdraw_filled(connection: Transaction, feed: Feed, batch: BatchId, now_us: int) -> int:
    """Withdraw the violations of other batches of `feed` that reported as missing what `batch` now fills.

    Runs in the transaction that loads `batch`, judges each violation by the batches that are loaded now, and returns how
    many it withdrew. The feed flows again when no batch of it is suspect any more.
    """
    if feed.expects.interval is None and feed.expects.sequence is None:
        return 0
    filled = 0
    for place in violations.open_places(connection, feed.name, batch.batch):
        counted = place.sequence
        facts = DeliveryFacts(0, 0, place.event_time_min_us, place.event_time_min_us, "", sequence=counted)
        query = HistoryQuery(
            "", low_us=place.event_time_min_us, number=None if counted is None else counted.low
        )
        history: History = admissions.history(connection, feed.name, query)
        if any(each.check == place.check_name for each in admission.in_place(feed, facts, history)):
            continue
        violations.withdraw(connection, place.violation_id, now_us=now_us)
        explanation = (
            f"batch {batch.batch} came and nothing is missing any more; withdrawn: {place.explanation}"
        )
        subject = str(BatchId(feed.name, place.batch))
        events.append(connection, at_us=now_us, kind=WITHDRAWN, subject=subject, explanation=explanation)
        filled += 1
    if filled:
        reason = f"batch {batch.batch} filled what was missing"
        feed_states.settle(connection, feed.name, reason=reason, now_us=now_us)
    return filled
