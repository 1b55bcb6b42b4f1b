"""Decisions about a rollout and their inputs. Plain values, so that they can be reported and stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from holdfast.records import Verdict
from holdfast.rollout.evidence.verdict import Verdicts
from holdfast.rollout.model.drills import DrillKind, Standing, ready
from holdfast.rollout.model.policy import Canary
from holdfast.rollout.model.state_machine import Event, State

_NEVER: Final = ready((), DrillKind.ROLLBACK, 0)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a challenger needs before it gets traffic.

    Parameters
    ----------
    replay, replayed
        The verdict of the newest replay of recorded requests, and their number; None without a replay.
    drill
        Whether a rollback drill is recent enough for the policy.
    can_drill
        True if there is a version besides the champion that a rollback drill could return to.
    """

    replay: Verdict | None = None
    replayed: int = 0
    drill: Standing = _NEVER
    can_drill: bool = True


@dataclass(frozen=True, slots=True)
class RolloutState:
    """A rollout as the decision sees it.

    `returns_to` is the version that a rollback restores: the champion, or the fallback if the model had none; None without
    either. During a rollback it is the version that the committed plan restores. `plan_id` is the number of the model's newest
    traffic plan. `ready` is read only while the rollout is pending. `champion_requests` are the champion's recent requests that
    a bound on latency can be frozen from; they are read only before the challenger has traffic.
    """

    challenger: str
    champion: str | None
    returns_to: str | None
    state: State
    step: int
    policy: Canary
    step_started_at_us: int
    plan_id: int | None
    ready: Readiness = Readiness()
    champion_requests: int = 0


@dataclass(frozen=True, slots=True)
class ProbeSeen:
    """The last probe of one server: the plan that it follows and the version that responded."""

    server: str
    plan_id: int | None
    observed_version: str | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class BeginShadow:
    """The challenger gets copies of requests; no caller gets its predictions."""

    share_ppm: int
    reason: str
    verdicts: Verdicts = ()
    event: Event = Event.SHADOW


@dataclass(frozen=True, slots=True)
class Start:
    """The challenger gets its first traffic."""

    share_ppm: int
    reason: str
    verdicts: Verdicts = ()
    event: Event = Event.START


@dataclass(frozen=True, slots=True)
class Advance:
    """The challenger's share grows to that of `step`."""

    step: int
    share_ppm: int
    reason: str
    verdicts: Verdicts
    event: Event = Event.ADVANCE


@dataclass(frozen=True, slots=True)
class Complete:
    """The challenger gets all traffic; a probe must confirm it before it is the declared champion."""

    reason: str
    verdicts: Verdicts = ()
    event: Event = Event.COMPLETE


@dataclass(frozen=True, slots=True)
class Confirm:
    """Probes confirmed that the intended version serves."""

    reason: str
    verdicts: Verdicts = ()
    event: Event = Event.CONFIRM


@dataclass(frozen=True, slots=True)
class RollBack:
    """Traffic returns. `verdict` is fail if harm was shown, inconclusive after a timeout."""

    verdict: Verdict
    reason: str
    verdicts: Verdicts = ()
    event: Event = Event.ROLLBACK


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is done now."""

    reason: str
    verdicts: Verdicts = ()


Decision: TypeAlias = BeginShadow | Start | Advance | Complete | Confirm | RollBack | Wait
