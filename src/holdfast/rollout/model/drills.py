"""Kinds of drills, their results, and how long these are valid.

A drill exercises a rollback or a recovery while nothing is wrong, and states when it must be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from holdfast.errors import InputError
from holdfast.field_types import checked
from holdfast.formatting import hours
from holdfast.records import HOUR_US, Verdict, duration


class DrillKind(StrEnum):
    """A kind of drill."""

    ROLLBACK = "rollback"
    RESTORE = "restore"
    STALE_LEADER = "stale-leader"
    DEAD_DATABASE = "dead-database"
    BAD_PUSH = "bad-push"


DESCRIPTIONS: Final[Mapping[DrillKind, str]] = {
    DrillKind.ROLLBACK: "servers follow a new plan, serve a probe with the version that a rollback returns to, and return",
    DrillKind.RESTORE: "a backup is made, restored next to the store, compared row for row, and removed",
    DrillKind.STALE_LEADER: "a lease is taken over, and writes of its former holder must be refused",
    DrillKind.DEAD_DATABASE: "a separate server loses its ledger, and must keep serving, also after kill -9",
    DrillKind.BAD_PUSH: "a broken version bypasses the gates into a separate canary, and must be rolled back",
}
"""What each drill does."""

VALID_FOR: Final = timedelta(days=30)
"""How long the result of a drill is valid by default."""
RETRY_US: Final = HOUR_US
"""Time until a drill that did not pass is due again, microseconds."""


@dataclass(frozen=True)
@checked()
class Drills:
    """Which drills the control loop runs, and how often.

    Parameters
    ----------
    interval
        Maximum age of a drill before it is due again. Default 7 days.
    kinds
        Which are run: "rollback", "restore", "stale-leader", "dead-database", "bad-push". Default all of them.
    rollback_timeout
        How long traffic may take to return. Default 250 ms.

    None is run while a rollout is under way, except the rollback drill that a pending rollout waits for.

    Raises `InputError` HF107 for an invalid value.

    >>> Drills(interval="1d", kinds=("rollback",)).kinds
    (<DrillKind.ROLLBACK: 'rollback'>,)
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
                raise InputError("HF107", f"{name} of drills must be above 0: {span}")

    @property
    def interval_us(self) -> int:
        """Return the maximum age of a drill, in microseconds."""
        return duration(self.interval) // timedelta(microseconds=1)

    @property
    def rollback_timeout_us(self) -> int:
        """Return how long traffic may take to return, in microseconds."""
        return duration(self.rollback_timeout) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class DrillResult:
    """The result of a drill. `measured_duration_us` is what its kind measures; None without a result."""

    verdict: Verdict
    explanation: str
    measured_duration_us: int | None = None
    evidence: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill.

    `measured_duration_us` is what its kind measures, None without a result. Timestamps are microseconds since 1970 UTC.
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
    """Whether a kind of drill is ready, that is, passed and still valid; until when, and why."""

    kind: DrillKind
    ready: bool
    until_us: int | None
    explanation: str


def kind_of(name: str) -> DrillKind:
    """Return the kind of that name. Raises `InputError` HF101 for an unknown one."""
    try:
        return DrillKind(name)
    except ValueError as error:
        raise InputError(
            "HF101",
            f"unknown drill: {name!r}; known are {', '.join(DrillKind)}",
            state="nothing was drilled",
            next_command="holdfast drill --list",
        ) from error


def ready(drills: Iterable[Drill], kind: DrillKind, now_us: int, *, within_us: int | None = None) -> Standing:
    """Return whether `kind` has passed and is still valid at `now_us`.

    A later drill that failed ends what an earlier one showed. One that was inconclusive (an error, nothing to drill) counts
    neither for nor against.

    Parameters
    ----------
    drills
        The drills that were run, in any order.
    kind
        The kind in question.
    now_us
        The current time, microseconds since 1970 UTC.
    within_us
        If given, a result is valid for at most that long, in microseconds. It can only shorten the validity of a drill.

    >>> ready([], DrillKind.RESTORE, 0).explanation
    'restore was never drilled'
    """
    conclusive = [
        each for each in drills if each.kind is kind and each.verdict in (Verdict.PASS, Verdict.FAIL)
    ]
    last = max(conclusive, key=lambda each: (each.ended_at_us, each.drill_id), default=None)
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


def due_for_rollout(drills: Iterable[Drill], within_us: int, now_us: int) -> tuple[DrillKind, ...]:
    """Return the kinds that a pending rollout waits for: the rollback drill, unless it is ready or was just tried.

    Parameters
    ----------
    drills
        The drills that were run, in any order.
    within_us
        The maximum age of a passed drill by the rollout's policy, in microseconds.
    now_us
        The current time, microseconds since 1970 UTC.

    >>> due_for_rollout([], 3_600_000_000, 0)
    (<DrillKind.ROLLBACK: 'rollback'>,)
    """
    known = [each for each in drills if each.kind is DrillKind.ROLLBACK]
    last = max(known, key=lambda each: each.drill_id, default=None)
    tried = (
        last is not None and last.verdict is not Verdict.PASS and abs(now_us - last.started_at_us) < RETRY_US
    )
    is_ready = ready(known, DrillKind.ROLLBACK, now_us, within_us=within_us).ready
    return () if tried or is_ready else (DrillKind.ROLLBACK,)


def due(schedule: Drills, drills: Iterable[Drill], now_us: int) -> tuple[DrillKind, ...]:
    """Return the kinds of `schedule` that are due: never drilled, too old, or not passed within the last hour.

    A clock that was set back makes no drill due twice: only the absolute age counts.
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
