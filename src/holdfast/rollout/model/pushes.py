"""Label each push by its outcome.

A push whose outcome was not observed is censored, never good: a canary that was rolled back too early, one that an operator
rolled back for another reason, one that a newer push replaced within its bake time (R128, R129). A rate of bad pushes that
counts those as good, or as bad, measures how pushes end rather than the pushes.

Evidence decides what was harmful, not the actor that ended it: if an operator rolls back a version whose evidence is
at its bound, that version is bad.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from holdfast.formatting import hours, set_hours
from holdfast.rollout.model.policy import Canary
from holdfast.rollout.model.state_machine import State


class PushOutcome(StrEnum):
    """The label of a push."""

    OPEN = "open"  # under way, or baking
    GOOD = "good"  # promoted, and its bake time ended without harm
    BAD = "bad"  # harm was shown before it was promoted
    ESCAPED = "escaped"  # harm was shown after it was promoted: the canary missed it
    CENSORED = "censored"  # it ended before there was enough evidence


@dataclass(frozen=True, slots=True)
class Turn:
    """A push that goes from `before` to `after`, and what is known then.

    `harm` names the metrics that show harm, empty if none does; `tainted` why its version is tainted, empty for a clean one;
    `by_person` is True if an operator moved it; `reason` is the explanation of the event.
    """

    before: State
    after: State
    champion: str | None
    harm: str
    tainted: str
    by_person: bool
    reason: str


def outcome_of(turn: Turn, policy: Canary) -> tuple[PushOutcome, str]:
    """Return the label of a push after `turn`, with its reason.

    >>> turn = Turn(State.CANARY, State.ROLLING_BACK, "v1", "errors 9 of 50", "", False, "harm")
    >>> outcome_of(turn, Canary())[0]
    <PushOutcome.BAD: 'bad'>
    """
    match turn.after:
        case State.PROMOTED if turn.champion is None:
            return PushOutcome.CENSORED, "a first version: there was no champion to compare it with"
        case State.PROMOTED if policy.bake_us == 0:
            return PushOutcome.CENSORED, "promoted, and the policy has no bake time"
        case State.PROMOTED:
            return PushOutcome.OPEN, f"promoted, baking for {set_hours(policy.bake_us)}"
        case State.ROLLING_BACK | State.CANCELLED:
            return _ended(turn)
        case _:
            return PushOutcome.OPEN, f"under way: {turn.after}"


def _ended(turn: Turn) -> tuple[PushOutcome, str]:
    if turn.harm and turn.before is State.PROMOTED:
        return PushOutcome.ESCAPED, f"harm was shown after its promotion: {turn.harm}"
    if turn.harm:
        return PushOutcome.BAD, f"harm was shown before its promotion: {turn.harm}"
    if turn.tainted:
        return (
            PushOutcome.CENSORED,
            f"ended for the rows that it was made from, not for its predictions: {turn.tainted}",
        )
    how = (
        "an operator ended it without evidence of harm"
        if turn.by_person
        else "it ended without evidence of harm"
    )
    return PushOutcome.CENSORED, f"{how}: {turn.reason}"


def replaced(by: int, baked_us: int, policy: Canary) -> tuple[PushOutcome, str]:
    """Return the label of a baking promotion that rollout number `by` replaced after `baked_us` microseconds.

    >>> replaced(7, 3_600_000_000, Canary())
    (<PushOutcome.CENSORED: 'censored'>, 'rollout 7 replaced it after 1.0 h of a bake time of 72 h')
    """
    baked = f"{hours(baked_us)} of a bake time of {set_hours(policy.bake_us)}"
    return PushOutcome.CENSORED, f"rollout {by} replaced it after {baked}"
