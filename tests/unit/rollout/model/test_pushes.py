"""What each push is called: the whole table, and what may never be called good."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from holdfast.rollout import TRANSITIONS, Canary, Event, PushOutcome, State
from holdfast.rollout.model.pushes import Turn, outcome_of, replaced

BAD, ESCAPED, CENSORED, OPEN = PushOutcome.BAD, PushOutcome.ESCAPED, PushOutcome.CENSORED, PushOutcome.OPEN
TURN = Turn(State.CANARY, State.ROLLING_BACK, "v1", "", "", by_person=False, reason="because")
PROMOTED = replace(TURN, before=State.VERIFYING, after=State.PROMOTED)


@pytest.mark.parametrize(
    ("turn", "outcome", "words"),
    [
        (replace(TURN, harm="errors"), BAD, "before its promotion: errors"),
        (replace(TURN, before=State.PAUSED, harm="errors"), BAD, "before its promotion"),
        (replace(TURN, before=State.VERIFYING, harm="slow"), BAD, "before its promotion"),
        (replace(TURN, before=State.SHADOWING, after=State.CANCELLED, harm="x"), BAD, "before its promotion"),
        (replace(TURN, before=State.PROMOTED, harm="errors"), ESCAPED, "after its promotion: errors"),
        (
            replace(TURN, before=State.PROMOTED, by_person=True),
            CENSORED,
            "an operator ended it without evidence",
        ),
        (replace(TURN, by_person=True), CENSORED, "an operator ended it without evidence of harm: because"),
        (replace(TURN, by_person=True, harm="errors"), BAD, "before its promotion"),
        (TURN, CENSORED, "it ended without evidence of harm: because"),
        (replace(TURN, before=State.PENDING, after=State.CANCELLED), CENSORED, "it ended without evidence"),
        (replace(TURN, tainted="batch 3"), CENSORED, "not for its predictions: batch 3"),
        (replace(TURN, tainted="batch 3", harm="errors"), BAD, "before its promotion"),
        (PROMOTED, OPEN, "baking for 72 h"),
        (replace(PROMOTED, champion=None), CENSORED, "no champion to compare it with"),
        (replace(TURN, before=State.PENDING, after=State.CANARY), OPEN, "under way"),
    ],
)
def test_each_turn_has_its_label(turn: Turn, outcome: PushOutcome, words: str) -> None:
    """R128, R129."""
    label, why = outcome_of(turn, Canary())
    assert label is outcome
    assert words in why


def test_no_transition_makes_a_push_good() -> None:
    """Only a watch that was survived does."""
    for ((before, event), after), harm, person in product(TRANSITIONS.items(), ("", "errors"), (True, False)):
        turn = Turn(before, after, "v1", harm, "", by_person=person, reason="r")
        label, why = outcome_of(turn, Canary())
        assert label is not PushOutcome.GOOD
        assert why
        if event is Event.ROLLBACK:
            assert label is not OPEN


def test_a_promotion_that_is_not_observed_is_censored() -> None:
    assert outcome_of(PROMOTED, Canary(bake="0s"))[0] is CENSORED
    assert replaced(9, 7_200_000_000, Canary())[0] is CENSORED
