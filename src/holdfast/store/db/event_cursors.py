"""Rows of `followers`: how far each reader of the events has come, so that it goes on from where it was."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from holdfast.store.db import schema
from holdfast.store.db.dialects import inserting

_FOLLOWERS: Final = schema.event_cursors


def reached(connection: Connection, follower: str) -> int | None:
    """The last event that `follower` has dealt with; None when it never read any."""
    query = select(_FOLLOWERS.c.event_id).where(_FOLLOWERS.c.reader == follower)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else int(found)


def follow(connection: Connection, follower: str, event: int) -> None:
    """`follower` has dealt with every event up to number `event`; it never goes back."""
    statement = inserting(connection, _FOLLOWERS).values(reader=follower, event_id=event)
    statement = statement.on_conflict_do_update(
        index_elements=("reader",),
        set_={"event_id": statement.excluded.event_id},
        where=_FOLLOWERS.c.event_id < statement.excluded.event_id,
    )
    connection.execute(statement)
