"""Whether the story is still the one that was told: each event's digest is over the event before it and what it says.

Who can write the ledger can write a whole new chain, and nothing inside it shows that. Its head, number and digest, is
therefore printed to be kept elsewhere: a kept head that still stands proves every event up to it. Source of the idea:
S. Haber and W. S. Stornetta, J. Cryptology 3 (1991), doi 10.1007/BF00196791.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlalchemy import Connection, select

from holdfast.errors import InputError
from holdfast.store.db import schema
from holdfast.store.db.events import FIRST, chained

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
Told: TypeAlias = tuple[int, int, str, str, str, str, str]
"""An event: number, moment, kind, subject, actor, explanation, digest."""

_AT_ONCE: Final = 5000
_DIGITS: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Head:
    """One event by number and digest; with its digest it stands for all before it."""

    event_id: int
    digest: str

    def __str__(self) -> str:
        """As it is kept: the number, a colon, the digest."""
        return f"{self.event_id}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The head that `str` wrote; `InputError` HF101 for anything else.

        >>> Head.parse("7:" + "ab" * 32).event_id
        7
        """
        number, _, digest = text.strip().partition(":")
        if not (number.isascii() and number.isdigit() and len(digest) == 64 and set(digest) <= _DIGITS):
            raise InputError(
                "HF101",
                f"{text[:80]!r} is no head of the story: it is NUMBER:DIGEST, the digest in 64 hexadecimal digits",
                next_command="holdfast audit --head",
            )
        return cls(int(number), digest)


@dataclass(frozen=True, slots=True)
class Break:
    """The first event that is not what its digest says, and why it is not."""

    event_id: int
    explanation: str


@dataclass(frozen=True, slots=True)
class Chain:
    """What a look at the chain found: how many events, the newest one that holds, the first that does not."""

    events: int
    head: Head | None
    broken: Break | None


def check(connection: Connection, *, since: int = 0) -> Chain:
    """Look at every event after number `since`, page by page.

    The digest of event `since` itself is taken at its word. Guarantee: an event that was changed, put in, taken out, or moved
    is found, unless it is the newest or all after it were written anew: `trouble_with` finds that by a head that was kept.
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
        held, broken = followed(page, before)
        count += held
        if held:
            head = Head(page[held - 1][0], page[held - 1][-1])
            before = head.digest
        if broken is not None or len(page) < _AT_ONCE:
            return Chain(count, head, broken)
        last = page[-1][0]


def followed(rows: Iterable[Told], before: str) -> tuple[int, Break | None]:
    """How many of `rows`, in the order of their numbers, follow on an event with digest `before`, and the first that does
    not.
    """
    count = 0
    for event, at_us, kind, subject, actor, explanation, digest in rows:
        if digest != chained(before, at_us, kind, subject, actor, explanation):
            return count, Break(
                event,
                f"event {event} ({kind} {subject}) is not what its digest says: it, or the one before it, was changed, "
                "put in or taken out",
            )
        before = digest
        count += 1
    return count, None


def trouble_with(connection: Connection, kept: Head) -> str:
    """Why a head that was kept before does not stand any more; empty when it does. What lies before it is `check`'s."""
    found = digest_of(connection, kept.event_id)
    if found is None:
        newest = newest_head(connection)
        if newest is None or newest.event_id < kept.event_id:
            end = "it has none" if newest is None else f"the newest is {newest.event_id}"
            return f"event {kept.event_id} was there, and {end}: the end of the story was cut off"
        return f"event {kept.event_id} was there, and was taken out"
    if found != kept.digest:
        return f"event {kept.event_id} has another digest than the one that was kept: it, or one before it, was changed"
    return ""


def newest_head(connection: Connection) -> Head | None:
    """The head of the story; None before its first event."""
    query = select(_EVENTS.c.event_id, _EVENTS.c.digest).order_by(_EVENTS.c.event_id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else Head(row.event_id, row.digest)


def digest_of(connection: Connection, event: int) -> str | None:
    """The digest of event number `event`; None when there is none."""
    query = select(_EVENTS.c.digest).where(_EVENTS.c.event_id == event)
    found: str | None = connection.execute(query).scalar_one_or_none()
    return found
