"""What comes next of a rollout is one sentence with a time, whatever is known."""

import pytest

from holdfast.rollout.decision.forecast import Forecast, describe_next

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
