"""Pushes in small: two bad versions of two kinds and a good one; the long run is a command (R111, R117, R128)."""

from __future__ import annotations

from tests.support.smoke import Smoke


def test_bad_pushes_come_back_and_a_good_one_is_promoted(smoke: Smoke) -> None:
    """One version is stopped by the guard of its shadow, one by its canary; no person touches either."""
    found = smoke("tests.soak.pushes")
    assert found["right"], found["pushes"]
    assert (found["bad_right"], found["good_right"]) == (2, 1)
    assert found["statuses"].keys() == {"200"}
    ledger = found["ledger"]
    assert (ledger["bad"] + ledger["escaped"], ledger["good"], ledger["false_rollbacks"]) == (2, 1, 0)
    by_kind = {name.partition(": ")[2]: each for name, each in found["pushes"].items()}
    raises = by_kind["raises"]
    assert raises["waits"]
    assert (raises["state"], raises["challenger"], raises["bad_answers"]) == ("cancelled", 0, 0)
    assert raises["found_by"] == ["shadow.errors"]
    assert "latency" in by_kind["slow path"]["found_by"]
