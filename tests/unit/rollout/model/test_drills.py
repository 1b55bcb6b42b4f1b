"""Until when a drill is believed, and when the next is due (R120, R121)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.records import Verdict
from holdfast.rollout.model.drills import (
    HOUR_US,
    RETRY_US,
    Drill,
    DrillKind,
    Drills,
    due,
    due_for_rollout,
    kind_of,
    ready,
)

DAY_US = 86_400_000_000
BACK = DrillKind.ROLLBACK


def drill(
    number: int, verdict: Verdict, *, at_us: int = 0, lasts_us: int = DAY_US, kind: DrillKind = BACK
) -> Drill:
    return Drill(number, kind, "m", verdict, 1, {}, f"drill {number}", "ann", at_us, at_us, at_us + lasts_us)


def test_what_was_never_drilled_is_not_ready() -> None:
    assert not ready([], BACK, 0).ready
    assert not ready([drill(1, Verdict.PASS, kind=DrillKind.RESTORE)], BACK, 1).ready


def test_a_pass_is_believed_until_it_expires() -> None:
    passed = [drill(1, Verdict.PASS, at_us=5)]
    assert ready(passed, BACK, 5).until_us == 5 + DAY_US
    assert ready(passed, BACK, 4 + DAY_US).ready
    after = ready(passed, BACK, 5 + DAY_US)
    assert (after.ready, "too long ago" in after.explanation) == (False, True)


def test_a_policy_may_be_stricter_than_the_drill_and_never_less_strict() -> None:
    """R120: a policy accepts nothing that the page calls not ready."""
    passed = [drill(1, Verdict.PASS, at_us=5)]
    assert ready(passed, BACK, 4 + DAY_US, within_us=7 * DAY_US).until_us == 5 + DAY_US
    assert not ready(passed, BACK, 5 + DAY_US, within_us=7 * DAY_US).ready
    assert ready(passed, BACK, 5 + HOUR_US, within_us=2 * HOUR_US).until_us == 5 + 2 * HOUR_US
    strict = ready(passed, BACK, 5 + 2 * HOUR_US, within_us=2 * HOUR_US)
    assert (strict.ready, strict.explanation) == (False, "rollback was drilled too long ago, 2.0 h")


def test_a_later_failure_ends_what_a_pass_showed_and_an_error_reports_nothing() -> None:
    passed, failed, odd = (
        drill(1, Verdict.PASS, at_us=1),
        drill(2, Verdict.FAIL, at_us=2),
        drill(3, Verdict.ERROR, at_us=3),
    )
    assert ready([passed, odd], BACK, 4).ready
    standing = ready([passed, failed, odd], BACK, 4)
    assert (standing.ready, "failed its last drill: drill 2" in standing.explanation) == (False, True)
    assert ready([passed, failed, drill(4, Verdict.PASS, at_us=4)], BACK, 5).ready


@given(
    st.lists(st.tuples(st.sampled_from(list(Verdict)), st.integers(0, 10**13)), max_size=6),
    st.randoms(use_true_random=False),
    st.integers(0, 10**13),
)
def test_the_order_of_rows_does_not_matter(reported: list[tuple[Verdict, int]], chance, now_us: int) -> None:
    rows = [drill(number, verdict, at_us=at_us) for number, (verdict, at_us) in enumerate(reported)]
    mixed = chance.sample(rows, len(rows))
    assert ready(rows, BACK, now_us) == ready(mixed, BACK, now_us)
    assert due(Drills(), rows, now_us) == due(Drills(), mixed, now_us)


def test_what_is_due() -> None:
    schedule = Drills(interval="7d", kinds=("rollback", "restore"))
    assert due(schedule, [], 0) == (BACK, DrillKind.RESTORE)
    rows = [drill(1, Verdict.PASS), drill(2, Verdict.FAIL, kind=DrillKind.RESTORE)]
    assert due(schedule, rows, RETRY_US - 1) == ()
    assert due(schedule, rows, RETRY_US) == (DrillKind.RESTORE,)
    assert due(schedule, rows, 7 * DAY_US) == (BACK, DrillKind.RESTORE)
    assert due(schedule, rows, -60_000_000) == ()  # a clock that was set back


def test_a_pending_rollout_is_given_the_drill_that_it_waits_for() -> None:
    """Nothing else could: a rollout that waits for a drill, and a drill that waits for the end of the rollout."""
    assert due_for_rollout([], HOUR_US, 0) == (BACK,)
    passed = drill(1, Verdict.PASS, at_us=0)
    assert due_for_rollout([passed], HOUR_US, HOUR_US - 1) == ()
    assert due_for_rollout([passed], HOUR_US, HOUR_US) == (BACK,)
    failed = drill(2, Verdict.FAIL, at_us=5)
    assert due_for_rollout([passed, failed], HOUR_US, 4 + RETRY_US) == ()
    assert due_for_rollout([passed, failed], HOUR_US, 5 + RETRY_US) == (BACK,)


def test_a_declaration_must_mean_something() -> None:
    with pytest.raises(InputError, match="HF107"):
        Drills(interval="0s")
    with pytest.raises(InputError, match="unknown drill: 'swimming'"):
        Drills(kinds=("swimming",))
    with pytest.raises(InputError, match="holdfast drill --list"):
        kind_of("nothing")
    assert Drills(rollback_timeout="0.1s").rollback_timeout_us == 100_000
