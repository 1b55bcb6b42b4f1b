"""Real days of three feeds with a broken contract planted into each: every one is caught and named, and no clean day is
(R18, R20-R28, R32, R37, R41-R44). The whole year is a command: tests/soak/planted_breaks.py.
"""

from __future__ import annotations

from tests.support.smoke import Smoke


def test_every_break_is_caught_and_named_and_no_clean_day_is_taken_for_one(smoke: Smoke) -> None:
    outcome = smoke("tests.soak.planted_breaks")
    assert outcome["missed"] == []
    assert outcome["alarms"] == []
    assert outcome["clean_violations"].get("warning", 0) <= 3
    assert (outcome["breaks"], outcome["planted"], outcome["caught"]) == (48, 48, 48)
