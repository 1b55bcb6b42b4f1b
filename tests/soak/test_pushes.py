"""Pushes in small: two bad versions of two kinds and a good one; the long run is a command (R111, R117, R128)."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from tests.soak import pushes

SEED = 20131
KINDS = ("raises", "slow path")


def test_bad_pushes_come_back_and_a_good_one_is_promoted(tmp_path: Path) -> None:
    """One version is stopped by the guard of its shadow, one by its canary; no person touches either."""
    faults = [fault for fault in pushes.FAULTS if fault.kind in KINDS]
    extent = pushes.Extent(
        first=date(2013, 3, 1), last=date(2013, 3, 20), live_days=2, trees=30, holdout="6d"
    )
    found = pushes.soak(
        2,
        1,
        SEED,
        tmp_path / "stage",
        extent=extent,
        faults=faults,
        labelled=300,
        rate=400.0,
        latency_slack="4ms",
    )
    assert found["right"], found["pushes"]
    assert (found["bad_right"], found["good_right"]) == (2, 1)
    assert found["statuses"].keys() == {"200"}
    ledger = found["ledger"]
    assert (ledger["bad"] + ledger["escaped"], ledger["good"], ledger["false_rollbacks"]) == (2, 1, 0)
    by_kind = {each["planned"]["kind"]: each for each in found["pushes"]}
    raises = by_kind["raises"]
    assert raises["planned"]["waits"]
    assert (raises["state"], raises["challenger"], raises["bad_answers"]) == ("cancelled", 0, 0)
    assert raises["found_by"] == ["shadow.errors"]
    assert "latency" in by_kind["slow path"]["found_by"]
