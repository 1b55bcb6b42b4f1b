"""A short run of the soak of commands; the long one is `crash_commands.py` itself (P1, R6, R8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.crash_commands import soak

pytestmark = pytest.mark.crash

SEED = 20132


def test_a_command_that_is_killed_and_run_again_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Eight kills of compactions, vacuums, back-outs, collections and decisions of rollouts."""
    outcome = soak(8, SEED, tmp_path)
    assert outcome["broken"] == []
    assert outcome["kills"] >= 8
