"""Rows of `events`: the event log, written in the transactions of the operations that it reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, func, insert, or_, select

from holdfast.formatting import visible
from holdfast.records import shortened
from holdfast.store.db import schema
from holdfast.store.db.event_chain import FIRST, chain_digest
from holdfast.store.db.statements import Prepared

SYSTEM: Final = "holdfast"
"""The actor of operations that no user requested."""
_LONGEST_SUBJECT: Final = 127
_LONGEST_WHOLE: Final = 100_000
_LONGEST_ACTOR: Final = 63

_EVENTS: Final = schema.events
_APPEND: Final = Prepared(
    insert(_EVENTS).returning(_EVENTS.c.event_id),
    ("at_us", "kind", "subject", "actor", "explanation", "digest"),
)
_NEWEST: Final = select(func.max(_EVENTS.c.event_id)).scalar_subquery()
_ANY: Final = Prepared(
    select(_EVENTS.c.event_id)
    .where(
        _EVENTS.c.subject == bindparam("of_subject"),
        or_(_EVENTS.c.kind == bindparam("first_kind"), _EVENTS.c.kind == bindparam("second_kind")),
    )
    .limit(1)
)
_LAST: Final = Prepared(select(_EVENTS.c.digest).where(_EVENTS.c.event_id == _NEWEST))


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event. `event_id` rises; `subject` is what it is about ("flights/2013-01-05", a model, a version).

    `digest` chains it to the event before.
    """

    event_id: int
    at_us: int
    kind: str
    subject: str
    actor: str
    explanation: str
    digest: str


def as_written(explanation: str) -> str:
    """Return the explanation that an event has: a text from outside in it neither ends the line nor hides anything."""
    return visible(explanation)


def _subject(subject: str) -> str:
    return shortened(visible(subject, _LONGEST_WHOLE), _LONGEST_SUBJECT)


def append(
    connection: Connection, *, at_us: int, kind: str, subject: str, explanation: str, actor: str = SYSTEM
) -> int:
    """Append an event in the caller's transaction and return its number. It exists only if the transaction commits.

    Parameters
    ----------
    at_us
        When it happened, microseconds since 1970 UTC.
    kind
        What happened, as `<noun>.<past participle>`: "batch.published", "rollout.rolled_back".
    subject
        What it happened to, up to 127 characters.
    explanation
        Why it happened, with numbers; shown to users as `as_written` returns it.
    """
    subject, actor, explanation = _subject(subject), visible(actor, _LONGEST_ACTOR), as_written(explanation)
    values = {"at_us": at_us, "kind": kind, "subject": subject, "actor": actor, "explanation": explanation}
    # One writer at a time, on PostgreSQL by its lock: no other event is appended after the one that is read here.
    before = _LAST.value(connection, {}) or FIRST
    values["digest"] = chain_digest(before, at_us, kind, subject, actor, explanation)
    return int(_APPEND.value(connection, values))


def append_once(connection: Connection, *, at_us: int, kind: str, subject: str, explanation: str) -> None:
    """Append an event unless one of this kind about `subject` exists: for a state that lasts, such as damage.

    The parameters are those of `append`.
    """
    if not newest(connection, subject=subject, kind=kind, limit=1):
        append(connection, at_us=at_us, kind=kind, subject=subject, explanation=explanation)


def is_reported(connection: Connection, *, subject: str, kind: str, explanation: str) -> bool:
    """Return True if an event of this kind about `subject` has this explanation, however many others came since."""
    text = as_written(explanation)
    same = (_EVENTS.c.subject == _subject(subject), _EVENTS.c.kind == kind, _EVENTS.c.explanation == text)
    return connection.execute(select(_EVENTS.c.event_id).where(*same).limit(1)).first() is not None


def is_any(connection: Connection, *, subject: str, kinds: tuple[str, str]) -> bool:
    """Return True if an event of one of `kinds` is about `subject`."""
    first, second = kinds
    values = {"of_subject": _subject(subject), "first_kind": first, "second_kind": second}
    return _ANY.value(connection, values) is not None


def newest(
    connection: Connection, *, subject: str | None = None, kind: str | None = None, limit: int = 100
) -> list[EventRow]:
    """Return the newest events first, at most `limit`, of one subject or kind if given."""
    query = select(_EVENTS).order_by(_EVENTS.c.event_id.desc()).limit(limit)
    if subject is not None:
        query = query.where(_EVENTS.c.subject == _subject(subject))
    if kind is not None:
        query = query.where(_EVENTS.c.kind == kind)
    return [EventRow(**row) for row in connection.execute(query).mappings()]


def since(connection: Connection, event: int, *, limit: int = 1000) -> list[EventRow]:
    """Return events after number `event`, oldest first: how a consumer reads on."""
    query = select(_EVENTS).where(_EVENTS.c.event_id > event).order_by(_EVENTS.c.event_id).limit(limit)
    return [EventRow(**row) for row in connection.execute(query).mappings()]
