"""What became of a push: the label that each rollout gets in the ledger of pushes.

A push that was not seen to its end is censored, never good: a canary that was rolled back too soon to tell, one that a
person took back for another reason, one that a newer push replaced before its watch was over (R128, R129). A rate of bad
pushes that counts those as good, or as bad, says more about how pushes end than about the pushes.

Who does harm is told by evidence, not by who ended it: a person who takes a version back while its evidence stands at the
bound has taken back a bad one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from holdfast.formatting import hours, set_hours
from holdfast.rollout.model.policy import Canary
from holdfast.rollout.model.state_machine import State


class PushOutcome(StrEnum):
    """The label of a push."""

    OPEN = "open"  # under way, or promoted and watched
    GOOD = "good"  # promoted, and watched to the end without harm
    BAD = "bad"  # harm was shown before it was promoted
    ESCAPED = "escaped"  # harm was shown after it was promoted: the canary let it through
    CENSORED = "censored"  # it ended before anybody could tell


@dataclass(frozen=True, slots=True)
class Turn:
    """A push that goes from `before` to `after`, and what is known then.

    `harm` says which metrics show harm, empty when none does; `tainted` why its version is tainted, empty for a clean one;
    `by_person` whether a person moved it; `reason` is what the story says.
    """

    before: State
    after: State
    champion: str | None
    harm: str
    tainted: str
    by_person: bool
    reason: str


def outcome_of(turn: Turn, policy: Canary) -> tuple[PushOutcome, str]:
    """The label of a push after `turn`, with its reason in words.

    >>> turn = Turn(State.CANARY, State.ROLLING_BACK, "v1", "errors 9 of 50", "", False, "harm")
    >>> outcome_of(turn, Canary())[0]
    <PushOutcome.BAD: 'bad'>
    """
    match turn.after:
        case State.PROMOTED if turn.champion is None:
            return PushOutcome.CENSORED, "a first version: there was nothing to compare it with"
        case State.PROMOTED if policy.bake_us == 0:
            return PushOutcome.CENSORED, "promoted, and the policy asks for no watch"
        case State.PROMOTED:
            return PushOutcome.OPEN, f"promoted, and watched for {set_hours(policy.bake_us)}"
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
            f"ended for the rows that it learnt from, not for its answers: {turn.tainted}",
        )
    who = (
        "a person ended it without evidence of harm"
        if turn.by_person
        else "it ended without evidence of harm"
    )
    return PushOutcome.CENSORED, f"{who}: {turn.reason}"


def replaced(by: int, watched_us: int, policy: Canary) -> tuple[PushOutcome, str]:
    """The label of a watched promotion that rollout number `by` replaced after `watched_us` microseconds.

    >>> replaced(7, 3_600_000_000, Canary())
    (<PushOutcome.CENSORED: 'censored'>, 'rollout 7 replaced it after 1.0 h of a watch of 72 h')
    """
    watched = f"{hours(watched_us)} of a watch of {set_hours(policy.bake_us)}"
    return PushOutcome.CENSORED, f"rollout {by} replaced it after {watched}"
