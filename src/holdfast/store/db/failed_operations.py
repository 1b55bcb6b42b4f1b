"""Rows of `failed_operations`: when a load or a training that failed began, and what it read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, insert, select

from holdfast.records import HOUR_US
from holdfast.store.db import events, rows, schema
from holdfast.store.db.events import EventRow

REPEATED_US: Final = HOUR_US
"""The same failure of a batch or a model is reported once in this time, microseconds."""
_MOST: Final = 100
_FAILED: Final = schema.failed_operations


@dataclass(frozen=True, slots=True)
class Operation:
    """When an operation began, microseconds since 1970 UTC, and what it reads: a source or a snapshot, by name."""

    begun_at_us: int
    source: str = ""


def put(connection: Connection, event: int, operation: Operation) -> None:
    """Insert what the event of a failure does not state, in the transaction of the event."""
    values = {"event_id": event, "begun_at_us": operation.begun_at_us, "source": operation.source}
    connection.execute(insert(_FAILED).values(values))


def find(connection: Connection, event: int) -> Operation | None:
    """Return the operation that failed by an event; None for a failure of an earlier release."""
    return rows.first(connection, select(_FAILED).where(_FAILED.c.event_id == event), Operation)


def append(
    connection: Connection, *, at_us: int, kind: str, subject: str, explanation: str, operation: Operation
) -> None:
    """Append the event of a failure, and its row; nothing if the newest one is equal and younger than an hour.

    The parameters are those of `events.append`; `operation` is what failed.
    """
    last = events.newest(connection, subject=subject, kind=kind, limit=1)
    if last and last[0].explanation == events.as_written(explanation) and at_us - last[0].at_us < REPEATED_US:
        return
    event = events.append(connection, at_us=at_us, kind=kind, subject=subject, explanation=explanation)
    put(connection, event, operation)


def is_reported(connection: Connection, subject: str, kind: str, operation: Operation) -> bool:
    """Return True if an event of `kind` about `subject` is of that operation."""
    query = (
        select(_FAILED.c.event_id)
        .join(schema.events, schema.events.c.event_id == _FAILED.c.event_id)
        .where(
            schema.events.c.subject == subject,
            schema.events.c.kind == kind,
            _FAILED.c.begun_at_us == operation.begun_at_us,
            _FAILED.c.source == operation.source,
        )
    )
    return connection.execute(query.limit(1)).first() is not None


def unended(connection: Connection, subject: str, kinds: tuple[str, ...], ended: str) -> list[EventRow]:
    """Return the failures of `kinds` about `subject` since the last event `ended`, the oldest first, at most a hundred each."""
    found = [
        each for kind in kinds for each in events.newest(connection, subject=subject, kind=kind, limit=_MOST)
    ]
    last = events.newest(connection, subject=subject, kind=ended, limit=1)
    since = last[0].event_id if last else 0
    return sorted((each for each in found if each.event_id > since), key=lambda each: each.event_id)
