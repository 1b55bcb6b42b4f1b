"""A few rollback drills in every state, on a ledger that is healthy, killed, hung and full (R120, P7)."""

from __future__ import annotations

import pytest

from tests.support.smoke import Smoke

DRILLS = 12


def test_every_drill_brings_the_traffic_back(smoke: Smoke) -> None:
    """No drill fails, no request meets a 5xx, none that was sent after "done" is answered by the bad version; 300 and more
    drills, and how long they take: `python -m benchmarks.rollback`."""
    found = smoke("benchmarks.rollback")
    if found["drills"] < DRILLS:
        pytest.skip(str(found["skipped"]))
    assert (found["failed"], found["errors_5xx"], found["bad_after_done"]) == (0, 0, 0), found
    assert found["answered_by_bad"] > 0
    assert found["requests"] > DRILLS
