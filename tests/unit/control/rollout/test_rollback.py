"""What a rollback is about, and what each part returns to: decided without a ledger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.control.rollout.plan_parts import Part
from holdfast.control.rollout.rollback import (
    History,
    Request,
    Rollouts,
    Step,
    plan_rollback,
    rollout_to_undo,
)
from holdfast.errors import RefusedError
from holdfast.rollout import State
from holdfast.rollout.model.abort import REPEATED_US
from holdfast.store.rollout.rollouts import RolloutRow

ANY = Request("m", "ann", "bad")
PROMOTED = RolloutRow(1, "m", "v2", "v1", State.PROMOTED, 0, "{}", 10, 10, 10, "fine", "holdfast")
CANARY = replace(PROMOTED, rollout_id=2, challenger="v3", champion="v2", state=State.CANARY)
ROLLED_BACK = replace(CANARY, state=State.ROLLED_BACK, changed_at_us=1_000)
KNOWN = Rollouts(champion="v2", running=None, promotion=PROMOTED, of_version=None, rolled_back=None)
UNCHANGED = History((), "c-default", is_rolled_back=False)
LATER = 1_000 + REPEATED_US


@pytest.mark.parametrize(
    ("version", "known", "row"),
    [
        (None, KNOWN, PROMOTED),
        (None, replace(KNOWN, running=CANARY), CANARY),
        (None, replace(KNOWN, rolled_back=ROLLED_BACK), PROMOTED),
        ("v2", KNOWN, PROMOTED),
        ("v3", replace(KNOWN, running=CANARY), CANARY),
        ("v3", replace(KNOWN, of_version=ROLLED_BACK), ROLLED_BACK),
    ],
    ids=["promotion", "running", "long after another", "named champion", "named", "named again"],
)
def test_a_rollback_is_about_one_rollout(version: str | None, known: Rollouts, row: RolloutRow) -> None:
    assert rollout_to_undo(replace(ANY, version=version), known, now_us=LATER) == row


@pytest.mark.parametrize(
    ("version", "known", "reason"),
    [
        (None, replace(KNOWN, rolled_back=ROLLED_BACK), "rolled back only if it is named"),
        (None, replace(KNOWN, champion=None, promotion=None), "no version serves"),
        (None, replace(KNOWN, promotion=None), "v2 was not promoted by a rollout"),
        ("v2", replace(KNOWN, running=CANARY), "comes first"),
        ("v9", KNOWN, "v9 has no traffic of 'm'"),
        ("v3", replace(KNOWN, of_version=replace(CANARY, state=State.PROMOTED)), "v3 has no traffic"),
    ],
)
def test_what_would_undo_another_version_is_refused(
    version: str | None, known: Rollouts, reason: str
) -> None:
    with pytest.raises(RefusedError, match=rf"HF404.*{reason}"):
        rollout_to_undo(replace(ANY, version=version), known, now_us=LATER - 1)


def test_all_that_was_pushed_since_the_rollout_began_goes_back_with_it() -> None:
    config = History(((7, "c-new"), (3, "c-old")), "c-default", is_rolled_back=False)
    runtime = History(((8, "b-new"), (2, "b-old")), None, is_rolled_back=False)
    histories = {Part.SERVING_CONFIG: config, Part.RUNTIME: runtime}
    steps = plan_rollback(ANY, CANARY, "v2", 6, histories)
    assert [(step.part, step.undone, step.returns_to, step.is_done) for step in steps] == [
        (Part.MODEL, "v3", "v2", False),
        (Part.SERVING_CONFIG, "c-new", "c-old", False),
        (Part.RUNTIME, "b-new", "b-old", False),
    ]
    assert "rollout 2" in steps[1].describe()
    assert [step.part for step in plan_rollback(ANY, CANARY, "v2", 7, histories)] == [
        Part.MODEL,
        Part.RUNTIME,
    ]


def test_before_the_first_serving_config_stand_the_defaults_and_before_the_first_runtime_nothing() -> None:
    first = ((7, "new"),)
    histories = {
        Part.SERVING_CONFIG: History(first, "c-default", is_rolled_back=False),
        Part.RUNTIME: History(first, None, is_rolled_back=False),
    }
    [step] = plan_rollback(replace(ANY, only=Part.SERVING_CONFIG), None, "", 0, histories)
    assert (step.undone, step.returns_to) == ("new", "c-default")


def test_a_part_that_is_rolled_back_is_not_rolled_back_twice() -> None:
    history = History(((9, "b-old"), (8, "b-new")), None, is_rolled_back=True)
    steps = plan_rollback(replace(ANY, only=Part.RUNTIME), None, "", 0, {Part.RUNTIME: history})
    assert steps == (Step(Part.RUNTIME, "b-new", "b-old", steps[0].reason, is_done=True),)
    assert "before" in steps[0].describe()


def test_a_rollback_of_a_part_that_was_never_pushed_is_refused() -> None:
    with pytest.raises(RefusedError, match="no serving-config of 'm' was pushed"):
        plan_rollback(replace(ANY, only=Part.SERVING_CONFIG), None, "", 0, {Part.SERVING_CONFIG: UNCHANGED})


def test_a_rollout_that_is_rolling_back_is_done() -> None:
    rolling = replace(CANARY, state=State.ROLLING_BACK)
    [step] = plan_rollback(replace(ANY, only=Part.MODEL), rolling, "v2", 0, {})
    assert step.is_done
