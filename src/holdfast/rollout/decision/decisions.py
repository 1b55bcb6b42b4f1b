"""What can follow from a rollout, and what a decision looks at: values only, so that both can be told and kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from holdfast.records import Verdict
from holdfast.rollout.evidence.verdict import Verdicts
from holdfast.rollout.model.drills import DrillKind, Standing, ready
from holdfast.rollout.model.policy import Canary
from holdfast.rollout.model.state_machine import Event, State

_NEVER: Final = ready((), DrillKind.ROLL_BACK, 0)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What must be there before a challenger gets traffic.

    Parameters
    ----------
    replay, replayed
        How the newest replay of recorded requests ended, and of how many; None when there was none.
    drill
        Whether a drill of roll-back is believed for as long as the policy asks.
    can_drill
        Whether anything stands beside the champion that a drill of roll-back could return to.
    """

    replay: Verdict | None = None
    replayed: int = 0
    drill: Standing = _NEVER
    can_drill: bool = True


@dataclass(frozen=True, slots=True)
class RolloutState:
    """A rollout as the decision sees it.

    `returns_to` is the version that a roll-back would restore: the champion, or the fallback when the model
    had none; None when there is neither. While it rolls back, the version that the committed plan restores.
    `plan` is the number of the model's newest traffic plan. `ready` is read while it is pending only.
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


@dataclass(frozen=True, slots=True)
class ProbeSeen:
    """What the last probe of one server saw: the plan that it follows and the version that answered."""

    server: str
    plan_id: int | None
    observed_version: str | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class BeginShadow:
    """The challenger gets copies of requests; nobody sees what it answers."""

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
    """The challenger answers everything; a probe has to confirm it before it is the declared champion."""

    reason: str
    verdicts: Verdicts = ()
    event: Event = Event.COMPLETE


@dataclass(frozen=True, slots=True)
class Confirm:
    """Probes saw the version that should answer, answer."""

    reason: str
    verdicts: Verdicts = ()
    event: Event = Event.CONFIRM


@dataclass(frozen=True, slots=True)
class RollBack:
    """The traffic returns. `verdict` is fail when harm was shown, inconclusive when patience ran out."""

    verdict: Verdict
    reason: str
    verdicts: Verdicts = ()
    event: Event = Event.ROLL_BACK


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is done now."""

    reason: str
    verdicts: Verdicts = ()


Decision: TypeAlias = BeginShadow | Start | Advance | Complete | Confirm | RollBack | Wait
