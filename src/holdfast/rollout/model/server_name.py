"""Whose a server's name is: which of the processes that state it has it, and what the others do, as a table.

Two processes state one name if a log directory was copied or a machine was cloned. No clock of another machine decides:
the holder of the name follows from boot ids, from the heartbeats of its holder by number and random text, and from how long one
observer has seen them unchanged by its own clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

HEARTBEAT_SECONDS: Final = 5.0
"""How often a server writes its heartbeat."""
QUIET_SECONDS: Final = 15.0
"""How long the heartbeats of a holder must stay unchanged before a later process of its log directory takes the name."""
GAP_SECONDS: Final = 6.0
"""The longest time between two looks of an observer. A ledger that is away keeps heartbeats from it while the holder lives."""


class Stated(StrEnum):
    """What a process states of itself with a heartbeat."""

    SERVING = "serving"
    DRAINING = "draining"  # it takes no new connection
    ENDED = "ended"


class Relation(StrEnum):
    """The holder of the name, as one process sees it."""

    FREE = "free"  # no process that has a boot id
    OWN = "own"  # this process
    TWIN = "twin"  # another process with the same boot id: the machine was cloned while it ran
    ANCESTOR = "ancestor"  # an earlier process of this log directory, or of the one that it was copied from
    STRANGER = "stranger"  # a process of another log directory, whose log has records that this one lacks


class Sign(StrEnum):
    """What is known of the life of the holder."""

    ENDED = "ended"  # it stated so, or its lock proves it
    LEAVING = "leaving"  # it states that it drains
    BEATING = "beating"  # it wrote a heartbeat while this process looked
    QUIET = "quiet"  # it wrote none for so long
    UNKNOWN = "unknown"  # this process has not looked for long enough


class Step(StrEnum):
    """What a process does about its name."""

    TAKE = "take"  # register as the holder
    BEAT = "beat"  # it is the holder: write a heartbeat
    WAIT = "wait"  # serve, and look again
    SECOND = "second"  # serve, and report that another process has the name


STEPS: Final[dict[tuple[Relation, Sign], Step]] = {
    **{(Relation.FREE, sign): Step.TAKE for sign in Sign},
    **{(Relation.OWN, sign): Step.BEAT for sign in Sign},
    # Its log goes on in another directory under the same numbers, whether it lives or not.
    **{(Relation.TWIN, sign): Step.SECOND for sign in Sign},
    **{(Relation.STRANGER, sign): Step.SECOND for sign in Sign},
    (Relation.ANCESTOR, Sign.ENDED): Step.TAKE,
    (Relation.ANCESTOR, Sign.QUIET): Step.TAKE,
    (Relation.ANCESTOR, Sign.LEAVING): Step.WAIT,
    (Relation.ANCESTOR, Sign.UNKNOWN): Step.WAIT,
    (Relation.ANCESTOR, Sign.BEATING): Step.SECOND,
}


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One heartbeat: its number, which rises by one, and a random text that no other process writes."""

    number: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has a name, with its last heartbeat, as the ledger has it. `boot_id` is None of an earlier release."""

    boot_id: str | None
    heartbeat: Heartbeat = Heartbeat()
    stated: Stated = Stated.SERVING


@dataclass(frozen=True, slots=True)
class Process:
    """One process that states a name.

    Parameters
    ----------
    boot_id
        Its boot id.
    boots
        Those of its log directory, with its own.
    written
        Its heartbeats that may be the newest of the ledger: the last one that was committed, and those after it of which it is
        not known.
    """

    boot_id: str
    boots: frozenset[str]
    written: frozenset[Heartbeat] = frozenset()


@dataclass(frozen=True, slots=True)
class Sighting:
    """Since when, by the observer's own clock in seconds, it has seen the holder's heartbeat unchanged, and whether it changed.

    `looked_seconds` is when it last looked.
    """

    holder: str | None
    heartbeat: Heartbeat
    since_seconds: float
    looked_seconds: float
    has_changed: bool = False


@dataclass(slots=True)
class NameClaim:
    """Decides for one process, look by look. Once it is the second, it stays so: its log is not that of the holder."""

    process: Process
    is_second: bool = False
    _seen: Sighting | None = field(default=None, init=False)

    def decide(self, holder: Holder | None, now_seconds: float, *, has_ended: bool = False) -> Step:
        """Return the next step.

        Parameters
        ----------
        holder
            The holder in the ledger; None if the ledger knows no server of this name.
        now_seconds
            This process' clock, which never goes back.
        has_ended
            Whether the lock of the holder's log directory proves that it has ended.
        """
        if self.is_second:
            return Step.SECOND
        relation = relate(self.process, holder)
        self._seen = look(self._seen, holder, now_seconds)
        step = STEPS[relation, read_sign(holder, self._seen, now_seconds, has_ended=has_ended)]
        self.is_second = step is Step.SECOND
        return step


def relate(process: Process, holder: Holder | None) -> Relation:
    """Return what the holder of the name is to `process`.

    >>> process = Process("b2", frozenset({"b1", "b2"}), frozenset({Heartbeat(4, "x")}))
    >>> [relate(process, Holder(boot)).value for boot in (None, "b1", "b3")]
    ['free', 'ancestor', 'stranger']
    >>> [relate(process, Holder("b2", Heartbeat(number, text))).value for number, text in ((4, "x"), (4, "y"), (5, "z"))]
    ['own', 'twin', 'twin']

    A ledger that was restored has an earlier heartbeat, and no process wrote since:

    >>> relate(process, Holder("b2", Heartbeat(2, "w"))).value
    'own'
    """
    if holder is None or holder.boot_id is None:
        return Relation.FREE
    if holder.boot_id != process.boot_id:
        return Relation.ANCESTOR if holder.boot_id in process.boots else Relation.STRANGER
    newest = max((each.number for each in process.written), default=0)
    if holder.heartbeat in process.written or holder.heartbeat.number < newest:
        return Relation.OWN
    return Relation.TWIN


def look(before: Sighting | None, holder: Holder | None, now_seconds: float) -> Sighting:
    """Return what an observer knows after one look. With another holder it begins anew, and so it does after a gap."""
    boot_id = None if holder is None else holder.boot_id
    heartbeat = Heartbeat() if holder is None else holder.heartbeat
    if before is None or before.holder != boot_id:
        return Sighting(boot_id, heartbeat, now_seconds, now_seconds)
    if before.heartbeat != heartbeat:
        return Sighting(boot_id, heartbeat, now_seconds, now_seconds, has_changed=True)
    if now_seconds - before.looked_seconds > GAP_SECONDS:
        return Sighting(boot_id, heartbeat, now_seconds, now_seconds)
    return replace(before, looked_seconds=now_seconds)


def read_sign(holder: Holder | None, seen: Sighting, now_seconds: float, *, has_ended: bool) -> Sign:
    """Return what is known of the life of `holder`; `has_ended` as for `NameClaim.decide`."""
    if has_ended or (holder is not None and holder.stated is Stated.ENDED):
        return Sign.ENDED
    if now_seconds - seen.since_seconds >= QUIET_SECONDS:
        return Sign.QUIET
    if holder is not None and holder.stated is Stated.DRAINING:
        return Sign.LEAVING
    return Sign.BEATING if seen.has_changed else Sign.UNKNOWN
