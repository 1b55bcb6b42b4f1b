"""A short run of the crash soak; the long one is a command (P1, R1-R4)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.crash

SEED = 20131


@pytest.fixture(scope="module")
def crash() -> ModuleType:
    path = Path(__file__).with_name("crash.py")
    spec = importlib.util.spec_from_file_location("crash", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["crash"] = module
    spec.loader.exec_module(module)
    return module


def test_forty_kills_lose_nothing(crash: ModuleType, tmp_path: Path) -> None:
    """40 loaders killed, half of them at named points: no row is lost, twice or torn, and `verify` is clean."""
    outcome = crash.soak(40, 4, SEED, tmp_path)
    assert outcome["broken"] == []
    assert outcome["kills"] >= 40
    assert outcome["batches_acknowledged"] > 10
