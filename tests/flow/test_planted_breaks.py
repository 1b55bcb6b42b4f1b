"""Real days of three feeds with a broken contract planted into each: every one is caught and named, and no clean day is
(R18, R20-R28, R32, R37, R41-R44). The whole year is a command: tests/soak/planted_breaks.py.
"""

from __future__ import annotations

import importlib.util
import sys
from datetime import date
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    path = Path(__file__).parents[1] / "soak" / "planted_breaks.py"
    spec = importlib.util.spec_from_file_location("planted_breaks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted_breaks"] = module
    spec.loader.exec_module(module)
    return module


def test_every_break_is_caught_and_named_and_no_clean_day_is_taken_for_one(
    soak: ModuleType, tmp_path: Path
) -> None:
    outcome = soak.run(tmp_path, date(2013, 6, 1), 32, [30])
    assert outcome["missed"] == []
    assert outcome["alarms"] == []
    assert outcome["clean_violations"].get("warning", 0) <= 2
    assert (outcome["breaks"], outcome["planted"], outcome["caught"]) == (48, 48, 48)
