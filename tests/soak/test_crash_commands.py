"""A short run of the soak of commands; the long one is `crash_commands.py` itself (P1, R6, R8)."""

from __future__ import annotations

import pytest

from tests.support.smoke import Smoke

pytestmark = pytest.mark.crash


def test_a_command_that_is_killed_and_run_again_ends_as_if_nothing_had_happened(smoke: Smoke) -> None:
    """Eight kills of compactions, vacuums, back-outs, collections and decisions of rollouts."""
    outcome = smoke("tests.soak.crash_commands")
    assert outcome["broken"] == []
    assert outcome["kills"] >= 8
