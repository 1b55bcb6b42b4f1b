"""Report loads and trainings whose process was killed: each leaves a note whose lock ends with the process."""

from __future__ import annotations

import json
from typing import Any, Final

from holdfast.formatting import timestamp
from holdfast.records import NAME, BatchId, canonical_json
from holdfast.store import Store
from holdfast.store.db import events, failed_operations
from holdfast.store.db.failed_operations import Operation
from holdfast.store.files import staging
from holdfast.store.models import versions

LOAD_INTERRUPTED: Final = "load.interrupted"
TRAINING_FAILED: Final = "training.failed"
"""The kinds of the events. The subject is the batch, or the model."""

EVERY_US: Final = 10_000_000
"""How often the control loop looks for killed operations, microseconds."""


def load_note(batch: BatchId, operation: Operation) -> str:
    """Return the note of an attempt to load `batch`."""
    about = {"begun_at_us": operation.begun_at_us, "source": operation.source}
    return canonical_json({"feed": batch.feed, "batch": batch.batch, **about})


def training_note(model: str, operation: Operation) -> str:
    """Return the note of a training of `model`, whose source is the name of a snapshot."""
    about = {"begun_at_us": operation.begun_at_us, "source": operation.source}
    return canonical_json({"model": model, **about})


def report_interrupted(store: Store, *, now_us: int) -> None:
    """Append an event for each load and each training that was killed, once, and sweep what it left."""
    for dead in staging.dead_attempts(store.root):
        match _read_note(dead.note):
            case BatchId() as batch, operation:
                _report_load(store, batch, operation, dead.attempt, now_us)
            case str() as model, operation:
                _report_training(store, model, operation, now_us)
            case None:
                pass
        staging.forget(store.root, dead)
    staging.sweep_dead_attempts(store)


class InterruptedOperations:
    """A concern of the control loop: reports what was killed, also when no other operation follows."""

    def __init__(self) -> None:
        self._looked_at_us = 0

    def __call__(self, store: Store, _model: str, _lease: object, *, now_us: int) -> None:
        """Look every ten seconds."""
        if not 0 <= now_us - self._looked_at_us < EVERY_US:
            self._looked_at_us = now_us
            report_interrupted(store, now_us=now_us)


def _read_note(note: str) -> tuple[BatchId | str, Operation] | None:
    """Return the batch or the model of a note, and its operation; None if it is of something else, or is incomplete."""
    try:
        found: dict[str, Any] = json.loads(note)
        operation = Operation(int(found["begun_at_us"]), str(found.get("source", "")))
        names = [str(found["model"])] if "model" in found else [str(found["feed"]), str(found["batch"])]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not all(NAME.match(name) for name in names):
        return None
    return (names[0] if len(names) == 1 else BatchId(*names)), operation


def _report_load(store: Store, batch: BatchId, operation: Operation, attempt: str, now_us: int) -> None:
    explanation = (
        f"the process that began to load it at {timestamp(operation.begun_at_us)} ended without a result "
        f"(attempt {attempt[:12]}); nothing of it is visible; the same command loads it"
    )
    with store.ledger.write() as connection:
        kind, subject = LOAD_INTERRUPTED, str(batch)
        if not events.is_reported(connection, subject=subject, kind=kind, explanation=explanation):
            event = events.append(
                connection, at_us=now_us, kind=kind, subject=subject, explanation=explanation
            )
            failed_operations.put(connection, event, operation)


def _report_training(store: Store, model: str, operation: Operation, now_us: int) -> None:
    """Append the event, unless the training had ended before its process was killed."""
    explanation = (
        f"training on snapshot {operation.source} ended without a result: the process that began it at "
        f"{timestamp(operation.begun_at_us)} was killed; no version was registered; the same command trains it"
    )
    with store.ledger.write() as connection:
        is_trained = versions.is_trained(connection, model, operation.source, operation.begun_at_us)
        if is_trained or failed_operations.is_reported(connection, model, TRAINING_FAILED, operation):
            return
        event = events.append(
            connection, at_us=now_us, kind=TRAINING_FAILED, subject=model, explanation=explanation
        )
        failed_operations.put(connection, event, operation)
