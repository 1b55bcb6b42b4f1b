"""Rows of `event_cursors`: the read position of each consumer of the event log."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from holdfast.store.db import schema
from holdfast.store.db.statements import inserting

_CURSORS: Final = schema.event_cursors


def position(connection: Connection, reader: str) -> int | None:
    """Return the last event that `reader` has processed; None before its first."""
    query = select(_CURSORS.c.event_id).where(_CURSORS.c.reader == reader)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else int(found)


def advance(connection: Connection, reader: str, event: int) -> None:
    """Note that `reader` has processed every event up to number `event`; the position never goes back."""
    statement = inserting(connection, _CURSORS).values(reader=reader, event_id=event)
    statement = statement.on_conflict_do_update(
        index_elements=("reader",),
        set_={"event_id": statement.excluded.event_id},
        where=_CURSORS.c.event_id < statement.excluded.event_id,
    )
    connection.execute(statement)
