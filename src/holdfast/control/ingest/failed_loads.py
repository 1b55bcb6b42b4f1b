"""Report loads that were killed or failed, and the load that ends the failures (R2).

A refused delivery is judged and recorded elsewhere. What is reported here was not judged: its process was killed, its
source could not be read, the disk was full. A source that does not exist is a fault of the command, and no load.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from holdfast.control import interrupted_operations
from holdfast.control.ingest.outcome import RefusalError
from holdfast.control.interrupted_operations import LOAD_INTERRUPTED
from holdfast.errors import ConflictError, HoldfastError, RefusedError
from holdfast.feeds import Feed
from holdfast.formatting import counted, first_line, timestamp
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.db import events, failed_operations
from holdfast.store.db.failed_operations import Operation
from holdfast.store.db.ledger import LedgerError, Transaction
from holdfast.store.sources import AbsentError

FAILED: Final = "load.failed"
RECOVERED: Final = "load.recovered"
"""The kinds of the events, whose subject is the batch; that of a killed load is `LOAD_INTERRUPTED`."""

_log = logging.getLogger(__name__)


def note_of(feed: Feed, batch: str, operation: Operation) -> str:
    """Return the note of an attempt to load `batch`, for `control.interrupted_operations`."""
    return interrupted_operations.load_note(BatchId(feed.name, batch), operation)


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
    if not events.is_any(connection, subject=subject, kinds=(LOAD_INTERRUPTED, FAILED)):
        return
    failures = failed_operations.unended(connection, subject, (LOAD_INTERRUPTED, FAILED), RECOVERED)
    if failures:
        since = timestamp(failures[0].at_us)
        explanation = f"it is loaded after {counted(len(failures), 'reported failure')} since {since}"
        events.append(connection, at_us=now_us, kind=RECOVERED, subject=subject, explanation=explanation)
