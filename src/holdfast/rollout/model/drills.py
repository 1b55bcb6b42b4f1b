"""What is exercised so that it works on the day: kinds of drills, what one showed, and until when that is believed.

A roll-back that was never tried is a hope. A drill tries it while nothing is wrong, and says by when it must be tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from holdfast.errors import InputError
from holdfast.formatting import hours
from holdfast.records import HOUR_US, Verdict, duration


class DrillKind(StrEnum):
    """What can be drilled."""

    ROLL_BACK = "roll-back"
    RESTORE = "restore"
    STALE_LEADER = "stale-leader"
    DEAD_DATABASE = "dead-database"
    BAD_PUSH = "bad-push"


DEEDS: Final[Mapping[DrillKind, str]] = {
    DrillKind.ROLL_BACK: "servers follow a new plan, answer a probe by what a roll-back returns to, and follow one back",
    DrillKind.RESTORE: "a backup is taken, restored beside the store, compared row for row, and removed",
    DrillKind.STALE_LEADER: "a lease is taken over, and the old holder's writes must be refused",
    DrillKind.DEAD_DATABASE: "a server of its own loses its ledger, and must go on answering, also after kill -9",
    DrillKind.BAD_PUSH: "a broken version goes past the gates into a canary of its own, and must be rolled back",
}
"""What each drill does, in words."""

LASTS: Final = timedelta(days=30)
"""How long a drill is believed when nobody says otherwise."""
RETRY_US: Final = HOUR_US
"""After how many microseconds a drill that did not pass is due again."""


@dataclass(frozen=True)
class Drills:
    """Which drills the control loop runs by itself, and how often.

    Parameters
    ----------
    interval
        How old a drill may become before it is due again. Default 7 days.
    kinds
        Which are run: "roll-back", "restore", "stale-leader", "dead-database", "bad-push". Default all of them.
    rollback_timeout
        How long the traffic may take to be back. Default 250 ms.

    None is run while a rollout is under way. Raises `InputError` HF107 when a value cannot mean what it says.

    >>> Drills(every="1d", kinds=("roll-back",)).kinds
    (<DrillKind.ROLL_BACK: 'roll-back'>,)
    """

    interval: timedelta | str = timedelta(days=7)
    kinds: Sequence[str] = tuple(DrillKind)
    rollback_timeout: timedelta | str = timedelta(milliseconds=250)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", tuple(kind_of(each) for each in self.kinds))
        for name in ("interval", "rollback_timeout"):
            span = duration(getattr(self, name), name)
            object.__setattr__(self, name, span)
            if span <= timedelta(0):
                raise InputError("HF107", f"{name} of drills is longer than nothing, and it is {span}")

    @property
    def interval_us(self) -> int:
        """How old a drill may become, in microseconds."""
        return duration(self.interval) // timedelta(microseconds=1)

    @property
    def rollback_timeout_us(self) -> int:
        """How long the traffic may take to be back, in microseconds."""
        return duration(self.rollback_timeout) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill. `measured_duration_us` is what its kind measures, None without a result. Timestamps are microseconds since
    1970, UTC.
    """

    drill_id: int
    kind: DrillKind
    model: str
    verdict: Verdict
    measured_duration_us: int | None
    evidence: Mapping[str, object]
    explanation: str
    actor: str
    started_at_us: int
    ended_at_us: int
    expires_at_us: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a kind of drill is believed now, until when, and why."""

    kind: DrillKind
    ready: bool
    until_us: int | None
    explanation: str


def kind_of(name: str) -> DrillKind:
    """The kind of that name; `InputError` HF101 names those that there are."""
    try:
        return DrillKind(name)
    except ValueError as error:
        raise InputError(
            "HF101",
            f"{name!r} is no drill; there are {', '.join(DrillKind)}",
            state="nothing was drilled",
            next_command="holdfast drill --list",
        ) from error


def ready(drills: Iterable[Drill], kind: DrillKind, now_us: int, *, within_us: int | None = None) -> Standing:
    """Whether `kind` has passed and is still believed at `now_us`, by the drills that there were, in any order.

    A later drill that failed ends what an earlier one showed. One that could not be judged (an error, nothing to drill) says
    nothing, neither for nor against. With `within_us` it is believed for no longer than that, in microseconds: whoever asks
    may be stricter than whoever drilled, and never less strict.

    >>> ready([], DrillKind.RESTORE, 0).explanation
    'restore was never drilled'
    """
    told = [each for each in drills if each.kind is kind and each.verdict in (Verdict.PASS, Verdict.FAIL)]
    last = max(told, key=lambda each: (each.ended_at_us, each.drill_id), default=None)
    if last is None:
        return Standing(kind, False, None, f"{kind} was never drilled")
    if last.verdict is Verdict.FAIL:
        return Standing(kind, False, None, f"{kind} failed its last drill: {last.explanation}")
    until_us = (
        last.expires_at_us if within_us is None else min(last.expires_at_us, last.ended_at_us + within_us)
    )
    if until_us <= now_us:
        return Standing(
            kind, False, until_us, f"{kind} was drilled too long ago, {hours(now_us - last.ended_at_us)}"
        )
    return Standing(kind, True, until_us, f"{kind} is ready: {last.explanation}")


def due(schedule: Drills, drills: Iterable[Drill], now_us: int) -> tuple[DrillKind, ...]:
    """The kinds of `schedule` that are to be drilled now: never drilled, too long ago, or not passed an hour ago.

    A clock that was set back makes nothing due twice: only the age counts, whichever way.
    """
    known = tuple(drills)
    found = []
    for kind in map(kind_of, schedule.kinds):
        last = max(
            (each for each in known if each.kind is kind), key=lambda each: each.drill_id, default=None
        )
        wait_us = RETRY_US if last is not None and last.verdict is not Verdict.PASS else schedule.interval_us
        if last is None or abs(now_us - last.started_at_us) >= min(wait_us, schedule.interval_us):
            found.append(kind)
    return tuple(found)
