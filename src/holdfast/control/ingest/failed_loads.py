"""Report loads that were killed or failed, and the load that ends the failures (R2).

A refused delivery is judged and recorded elsewhere. What is reported here was not judged: its process was killed, its
source could not be read, the disk was full.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from holdfast.control.ingest.outcome import RefusalError
from holdfast.errors import ConflictError, HoldfastError, RefusedError
from holdfast.feeds import Feed
from holdfast.formatting import counted, first_line, timestamp
from holdfast.records import HOUR_US, NAME, BatchId, canonical_json
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.ledger import LedgerError, Transaction
from holdfast.store.files import staging

INTERRUPTED: Final = "load.interrupted"
FAILED: Final = "load.failed"
RECOVERED: Final = "load.recovered"
"""The kinds of the events, whose subject is the batch."""
REPEATED_US: Final = HOUR_US
"""The same failure of a batch is reported once in this time, microseconds."""
EVERY_US: Final = 10_000_000
_MOST: Final = 100

_log = logging.getLogger(__name__)


def note_of(feed: Feed, batch: str, begun_at_us: int) -> str:
    """Return the note of an attempt to load `batch`."""
    return canonical_json({"feed": feed.name, "batch": batch, "begun_at_us": begun_at_us})


def report_interrupted(store: Store, *, now_us: int) -> None:
    """Append an event for each load that was killed, once, and sweep what it left."""
    for dead in staging.dead_attempts(store.root):
        found = _read_note(dead.note)
        if found is None:
            continue
        batch, begun_at_us = found
        explanation = (
            f"the process that began to load it at {timestamp(begun_at_us)} ended without a result "
            f"(attempt {dead.attempt[:12]}); nothing of it is visible; the same command loads it"
        )
        with store.ledger.write() as connection:
            subject = str(batch)
            if not events.is_reported(connection, subject=subject, kind=INTERRUPTED, explanation=explanation):
                events.append(
                    connection, at_us=now_us, kind=INTERRUPTED, subject=subject, explanation=explanation
                )
    staging.sweep_dead_attempts(store)


class InterruptedLoads:
    """A concern of the control loop: reports killed loads, also when no other load follows."""

    def __init__(self) -> None:
        self._looked_at_us = 0

    def __call__(self, store: Store, _model: str, _lease: object, *, now_us: int) -> None:
        """Look every ten seconds."""
        if not 0 <= now_us - self._looked_at_us < EVERY_US:
            self._looked_at_us = now_us
            report_interrupted(store, now_us=now_us)


@contextmanager
def reported(store: Store, batch: BatchId, clock_us: Callable[[], int]) -> Iterator[None]:
    """Report an error of the block that is no judgement of the delivery, and raise it."""
    try:
        yield
    except (RefusalError, RefusedError, ConflictError):
        raise
    except Exception as error:
        report_failed(store, batch, error, now_us=clock_us())
        raise


def report_failed(store: Store, batch: BatchId, error: Exception, *, now_us: int) -> None:
    """Append an event that a load of `batch` failed; nothing if the ledger cannot be written either."""
    what = f"{error.code} {error.what}" if isinstance(error, HoldfastError) else first_line(error)
    explanation = f"the load failed: {what}"
    try:
        with store.ledger.write() as connection:
            last = events.newest(connection, subject=str(batch), kind=FAILED, limit=1)
            is_new = not last or last[0].explanation != explanation
            if is_new or now_us - last[0].at_us >= REPEATED_US:
                events.append(
                    connection, at_us=now_us, kind=FAILED, subject=str(batch), explanation=explanation
                )
    except (HoldfastError, LedgerError, OSError) as second:
        _log.warning("that the load of %s failed is in no event: %s", batch, second)


def record_recovery(connection: Transaction, batch: BatchId, *, now_us: int) -> None:
    """Append an event that `batch` is loaded after killed or failed attempts, in the transaction of the load."""
    subject = str(batch)
    if not events.is_any(connection, subject=subject, kinds=(INTERRUPTED, FAILED)):
        return
    before = [
        each
        for kind in (INTERRUPTED, FAILED)
        for each in events.newest(connection, subject=subject, kind=kind, limit=_MOST)
    ]
    ended = events.newest(connection, subject=subject, kind=RECOVERED, limit=1)
    open_ones = [each for each in before if not ended or each.event_id > ended[0].event_id]
    if open_ones:
        first = min(open_ones, key=lambda each: each.event_id)
        explanation = (
            f"it is loaded after {counted(len(open_ones), 'reported failure')} since {timestamp(first.at_us)}"
        )
        events.append(connection, at_us=now_us, kind=RECOVERED, subject=subject, explanation=explanation)


def _read_note(note: str) -> tuple[BatchId, int] | None:
    """Return the batch and the time of a note; None if it is of something else, or is incomplete."""
    try:
        found = json.loads(note)
        feed, batch, begun_at_us = str(found["feed"]), str(found["batch"]), int(found["begun_at_us"])
    except (ValueError, KeyError, TypeError):
        return None
    return (BatchId(feed, batch), begun_at_us) if NAME.match(feed) and NAME.match(batch) else None
