"""What comes next of a rollout is one sentence with a time, whatever is known."""

import pytest

from holdfast.records import DAY_US, HOUR_US
from holdfast.rollout.decision.forecast import Forecast, describe_next, is_stalled

MINUTE = 60_000_000
TOO_SLOW = (
    "needs about 119 d more for enough evidence, and ends inconclusive in 3 d: "
    "send more requests, or set a longer timeout"
)
UNKNOWN = Forecast(None, None)


@pytest.mark.parametrize(
    ("found", "options", "sentence"),
    [
        (Forecast(150_000_000, None), {"timeout_us": 60 * MINUTE}, "decision in about 2 min"),
        (Forecast(9 * MINUTE, 0), {}, "is being decided now"),
        (
            UNKNOWN,
            {"waits_for": "inconclusive: 29 of 200 requests of v2 are known", "timeout_us": 120 * MINUTE},
            "waits: 29 of 200 requests of v2 are known; ends inconclusive in 2 h if nothing changes",
        ),
        (
            Forecast(17 * 7 * 1440 * MINUTE, None),
            {"timeout_us": 3 * 1440 * MINUTE},
            TOO_SLOW,
        ),
        (UNKNOWN, {"bake_us": 120 * MINUTE}, "the bake time ends in 2 h, unless harm is shown before"),
        (
            UNKNOWN,
            {"paused": True},
            "paused by an operator: evidence counts, the rollout does not advance",
        ),
        (UNKNOWN, {}, "waits for the control loop"),
    ],
)
def test_the_next_decision_is_one_sentence_with_a_time(found, options, sentence):
    assert describe_next(found, **options) == sentence


def test_an_evening_is_no_rate_of_a_rollout_of_days() -> None:
    """A step that began in the evening "needed 17 days, and ends in 11": it ended after four."""
    found, left = Forecast(17 * DAY_US, None), 11 * DAY_US
    evening = 8 * HOUR_US
    assert not is_stalled(found, timeout_us=left, step_us=evening)
    early = describe_next(found, timeout_us=left, step_us=evening)
    assert early == (
        "needs about 17 d more at the rate of its first 8 h, which is no whole day; ends inconclusive in 11 d if it stays so"
    )
    assert is_stalled(found, timeout_us=left, step_us=DAY_US)
    assert "send more requests" in describe_next(found, timeout_us=left, step_us=DAY_US)
    assert is_stalled(Forecast(3 * HOUR_US, None), timeout_us=HOUR_US, step_us=HOUR_US), (
        "a timeout of two hours"
    )
