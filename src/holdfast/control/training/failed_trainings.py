"""Report trainings that failed, and the training that ends the failures: a version that is never trained grows old unseen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from holdfast.control.interrupted_operations import TRAINING_FAILED, training_note
from holdfast.errors import HoldfastError
from holdfast.formatting import counted, first_line, timestamp
from holdfast.store import Store
from holdfast.store.db import events, failed_operations
from holdfast.store.db.events import EventRow
from holdfast.store.db.failed_operations import Operation
from holdfast.store.db.ledger import LedgerError, Transaction
from holdfast.store.files import staging

RECOVERED: Final = "training.recovered"
"""The kind of the event that ends failures; its subject is the model."""

_log = logging.getLogger(__name__)


@contextmanager
def reported(store: Store, model: str, operation: Operation, clock_us: Callable[[], int]) -> Iterator[None]:
    """Report an error or an interrupt of the block, the training `operation` of `model`, and raise it.

    While the block runs, a note holds a file lock. If the process is killed, the lock ends and the note stays: the next
    command that loads or trains, or the control loop, reports it. Raises `UnavailableError` HF307 if no note can be written.
    """
    with staging.noted(store.root, training_note(model, operation)):
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            _report(store, model, error, operation, now_us=clock_us())
            raise


def _report(store: Store, model: str, error: BaseException, operation: Operation, *, now_us: int) -> None:
    """Append an event that a training failed; nothing if the ledger cannot be written either."""
    if isinstance(error, HoldfastError):
        what = f"{error.code} {error.what}"
    else:
        what = first_line(error) if isinstance(error, Exception) else "it was interrupted"
    explanation = f"training on snapshot {operation.source} failed: {what}"
    try:
        with store.ledger.write() as connection:
            failed_operations.append(
                connection,
                at_us=now_us,
                kind=TRAINING_FAILED,
                subject=model,
                explanation=explanation,
                operation=operation,
            )
    except (HoldfastError, LedgerError, OSError) as second:
        _log.warning("that a training of %s failed is in no event: %s", model, second)


def record_recovery(connection: Transaction, model: str, *, now_us: int) -> None:
    """Append an event that `model` is trained after failures, in the transaction that registers the version."""
    failures = failed_operations.unended(connection, model, (TRAINING_FAILED,), RECOVERED)
    if failures:
        since = timestamp(failures[0].at_us)
        explanation = f"it is trained after {counted(len(failures), 'reported failure')} since {since}"
        events.append(connection, at_us=now_us, kind=RECOVERED, subject=model, explanation=explanation)


def last_failure(connection: Transaction, model: str) -> EventRow | None:
    """Return the newest failure of a training of `model` that no later training has ended; None without one."""
    failures = failed_operations.unended(connection, model, (TRAINING_FAILED,), RECOVERED)
    return failures[-1] if failures else None
