"""A short run of the crash soak; the long one is a command (P1, R1-R4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import crash

pytestmark = pytest.mark.crash

SEED = 20131


def test_forty_kills_lose_nothing(tmp_path: Path) -> None:
    """40 loaders killed, half of them at named points: no row is lost, twice or torn, and `verify` is clean."""
    outcome = crash.soak(40, 4, SEED, tmp_path)
    assert outcome["broken"] == []
    assert outcome["kills"] >= 40
    assert outcome["batches_acknowledged"] > 10
