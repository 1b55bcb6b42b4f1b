"""Report loads that were killed or failed, and the load that ends the failures (R2).

A refused delivery is judged and recorded elsewhere. What is reported here was not judged: its process was killed, its
source could not be read, the disk was full. A source that does not exist is a fault of the command, and no load.
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
from holdfast.records import NAME, BatchId, canonical_json
from holdfast.store import Store
from holdfast.store.db import events, failed_operations
from holdfast.store.db.failed_operations import Operation
from holdfast.store.db.ledger import LedgerError, Transaction
from holdfast.store.files import staging
from holdfast.store.sources import AbsentError

INTERRUPTED: Final = "load.interrupted"
FAILED: Final = "load.failed"
RECOVERED: Final = "load.recovered"
"""The kinds of the events, whose subject is the batch."""
EVERY_US: Final = 10_000_000

_log = logging.getLogger(__name__)


def note_of(feed: Feed, batch: str, operation: Operation) -> str:
    """Return the note of an attempt to load `batch`."""
    about = {"begun_at_us": operation.begun_at_us, "source": operation.source}
    return canonical_json({"feed": feed.name, "batch": batch, **about})


def report_interrupted(store: Store, *, now_us: int) -> None:
    """Append an event for each load that was killed, once, and sweep what it left."""
    for dead in staging.dead_attempts(store.root):
        found = _read_note(dead.note)
        if found is None:
            continue
        batch, operation = found
        explanation = (
            f"the process that began to load it at {timestamp(operation.begun_at_us)} ended without a result "
            f"(attempt {dead.attempt[:12]}); nothing of it is visible; the same command loads it"
        )
        with store.ledger.write() as connection:
            subject = str(batch)
            if not events.is_reported(connection, subject=subject, kind=INTERRUPTED, explanation=explanation):
                event = events.append(
                    connection, at_us=now_us, kind=INTERRUPTED, subject=subject, explanation=explanation
                )
                failed_operations.put(connection, event, operation)
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
def reported(
    store: Store, batch: BatchId, operation: Operation, clock_us: Callable[[], int]
) -> Iterator[None]:
    """Report an error of the block, the load `operation`, that is no judgement of the delivery, and raise it.

    A source that does not exist is not reported: nothing was delivered.
    """
    try:
        yield
    except (RefusalError, RefusedError, ConflictError, AbsentError):
        raise
    except Exception as error:
        report_failed(store, batch, error, operation, now_us=clock_us())
        raise


def report_failed(
    store: Store, batch: BatchId, error: Exception, operation: Operation, *, now_us: int
) -> None:
    """Append an event that a load of `batch` failed; nothing if the ledger cannot be written either."""
    what = f"{error.code} {error.what}" if isinstance(error, HoldfastError) else first_line(error)
    try:
        with store.ledger.write() as connection:
            failed_operations.append(
                connection,
                at_us=now_us,
                kind=FAILED,
                subject=str(batch),
                explanation=f"the load failed: {what}",
                operation=operation,
            )
    except (HoldfastError, LedgerError, OSError) as second:
        _log.warning("that the load of %s failed is in no event: %s", batch, second)


def record_recovery(connection: Transaction, batch: BatchId, *, now_us: int) -> None:
    """Append an event that `batch` is loaded after killed or failed attempts, in the transaction of the load."""
    subject = str(batch)
    if not events.is_any(connection, subject=subject, kinds=(INTERRUPTED, FAILED)):
        return
    failures = failed_operations.unended(connection, subject, (INTERRUPTED, FAILED), RECOVERED)
    if failures:
        since = timestamp(failures[0].at_us)
        explanation = f"it is loaded after {counted(len(failures), 'reported failure')} since {since}"
        events.append(connection, at_us=now_us, kind=RECOVERED, subject=subject, explanation=explanation)


def _read_note(note: str) -> tuple[BatchId, Operation] | None:
    """Return the batch and the load of a note; None if it is of something else, or is incomplete."""
    try:
        found = json.loads(note)
        feed, batch = str(found["feed"]), str(found["batch"])
        operation = Operation(int(found["begun_at_us"]), str(found.get("source", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (BatchId(feed, batch), operation) if NAME.match(feed) and NAME.match(batch) else None
