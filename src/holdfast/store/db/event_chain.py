"""The hash chain of the event log: each event's digest covers the event before it and its own fields.

A process that can write the ledger can write a whole new chain, and nothing inside it shows that. The head, number and digest,
is therefore printed to be stored elsewhere: a stored head that still matches proves every event up to it. Source of the idea:
S. Haber and W. S. Stornetta, J. Cryptology 3 (1991), doi 10.1007/BF00196791.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from json.encoder import encode_basestring as _quoted
from typing import Final, TypeAlias

from sqlalchemy import Connection, select

from holdfast.errors import InputError
from holdfast.records import sha256_hex
from holdfast.store.db import schema

_EVENTS: Final = schema.events
_READ: Final = select(
    _EVENTS.c.event_id,
    _EVENTS.c.at_us,
    _EVENTS.c.kind,
    _EVENTS.c.subject,
    _EVENTS.c.actor,
    _EVENTS.c.explanation,
    _EVENTS.c.digest,
)
EventTuple: TypeAlias = tuple[int, int, str, str, str, str, str]
"""An event: number, timestamp, kind, subject, actor, explanation, digest."""

_AT_ONCE: Final = 5000
_DIGITS: Final = frozenset("0123456789abcdef")

FIRST: Final = "0" * 64
"""The digest before the first event."""


def chain_digest(before: str, at_us: int, kind: str, subject: str, actor: str, explanation: str) -> str:
    """Return the digest of an event: SHA-256 over the digest of the event before it and its fields.

    >>> chain_digest(FIRST, 1, "batch.published", "flights/b1", "holdfast", "10 rows")[:8]
    'e4a15484'
    """
    # As `canonical_json` writes the list of the five, four times as fast: an audit does it for every event there is.
    fields = ",".join(map(_quoted, (kind, subject, actor, explanation)))
    return sha256_hex(f"{before}[{at_us},{fields}]")


@dataclass(frozen=True, slots=True)
class Head:
    """One event by number and digest. Its digest covers all events before it."""

    event_id: int
    digest: str

    def __str__(self) -> str:
        """Return the stored form: number, colon, digest."""
        return f"{self.event_id}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Parse what `str` wrote; `InputError` HF101 for anything else.

        >>> Head.parse("7:" + "ab" * 32).event_id
        7
        """
        number, _, digest = text.strip().partition(":")
        if not (number.isascii() and number.isdigit() and len(digest) == 64 and set(digest) <= _DIGITS):
            raise InputError(
                "HF101",
                f"{text[:80]!r} is no head of the event log: it is NUMBER:DIGEST, the digest in 64 hexadecimal digits",
                next_command="holdfast audit --head",
            )
        return cls(int(number), digest)


@dataclass(frozen=True, slots=True)
class Break:
    """The first event that does not match its digest, and why."""

    event_id: int
    explanation: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The result of a check: how many events, the newest one that matches, the first that does not."""

    events: int
    head: Head | None
    broken: Break | None


def check(connection: Connection, *, since: int = 0) -> Chain:
    """Check every event after number `since`, page by page. The digest of event `since` itself is trusted.

    An event that was changed, inserted, removed or moved is found, unless it is the newest or all events after it were
    rewritten: `head_mismatch` finds that by a stored head.
    """
    before = FIRST
    if since:
        found = digest_of(connection, since)
        if found is None:
            return Chain(0, None, Break(since, f"there is no event {since}"))
        before = found
    last, count, head = since, 0, None
    while True:
        query = _READ.where(_EVENTS.c.event_id > last).order_by(_EVENTS.c.event_id).limit(_AT_ONCE)
        page = connection.execute(query).all()
        held, broken = count_chained(page, before)
        count += held
        if held:
            head = Head(page[held - 1][0], page[held - 1][-1])
            before = head.digest
        if broken is not None or len(page) < _AT_ONCE:
            return Chain(count, head, broken)
        last = page[-1][0]


def count_chained(rows: Iterable[EventTuple], before: str) -> tuple[int, Break | None]:
    """Return how many of `rows`, in order, follow an event with digest `before`, and the first that does not."""
    count = 0
    for event, at_us, kind, subject, actor, explanation, digest in rows:
        if digest != chain_digest(before, at_us, kind, subject, actor, explanation):
            return count, Break(
                event,
                f"event {event} ({kind} {subject}) does not match its digest: it, or the one before it, was changed, inserted "
                "or removed",
            )
        before = digest
        count += 1
    return count, None


def head_mismatch(connection: Connection, kept: Head) -> str:
    """Return why a stored head does not match any more; empty if it does. `check` covers the events before it."""
    found = digest_of(connection, kept.event_id)
    if found is None:
        newest = newest_head(connection)
        if newest is None or newest.event_id < kept.event_id:
            end = "there is none" if newest is None else f"the newest is {newest.event_id}"
            return f"event {kept.event_id} is missing, and {end}: the event log was truncated"
        return f"event {kept.event_id} was removed"
    if found != kept.digest:
        return f"event {kept.event_id} has another digest than the stored head: it, or one before it, was changed"
    return ""


def newest_head(connection: Connection) -> Head | None:
    """Return the head of the event log; None before its first event."""
    query = select(_EVENTS.c.event_id, _EVENTS.c.digest).order_by(_EVENTS.c.event_id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else Head(row.event_id, row.digest)


def digest_of(connection: Connection, event: int) -> str | None:
    """Return the digest of event number `event`; None if there is none."""
    query = select(_EVENTS.c.digest).where(_EVENTS.c.event_id == event)
    found: str | None = connection.execute(query).scalar_one_or_none()
    return found
