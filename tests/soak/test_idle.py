"""What an idle system costs, in the smallest size: the benchmark runs, and finds every process small."""

from __future__ import annotations

import pytest

from tests.support.smoke import Smoke

pytestmark = pytest.mark.process


def test_up_with_one_small_model_is_within_its_memory(smoke: Smoke) -> None:
    """Issue 13: at most 450 MB in all processes; the share of a core needs minutes: `python -m benchmarks.idle`."""
    found = smoke("benchmarks.idle")
    assert set(found["process"]) == {"up", "serve", "control", "page"}
    assert 0 < found["up_mb"] <= 450
    assert found["server_cpu"] >= 0
