"""A short run of the crash soak; the long one is a command (P1, R1-R4)."""

from __future__ import annotations

import pytest

from tests.support.smoke import Smoke

pytestmark = pytest.mark.crash


def test_forty_kills_lose_nothing(smoke: Smoke) -> None:
    """40 loaders killed, half of them at named points: no row is lost, twice or torn, and `verify` is clean."""
    outcome = smoke("tests.soak.crash")
    assert outcome["broken"] == []
    assert outcome["kills"] >= 40
    assert outcome["batches_acknowledged"] > 10
