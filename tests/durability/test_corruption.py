"""The corruption matrix, with one flipped bit of each kind (P3); more bits by the command."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SEED = 7


@pytest.fixture(scope="module")
def corruption() -> ModuleType:
    path = Path(__file__).with_name("corruption.py")
    spec = importlib.util.spec_from_file_location("corruption", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["corruption"] = module
    spec.loader.exec_module(module)
    return module


def test_every_damage_is_found_and_no_wrong_row_read(corruption: ModuleType, tmp_path: Path) -> None:
    """{empty, half, one bit, missing, swapped} x every kind of file."""
    cells = corruption.matrix(tmp_path, SEED, bits=1)
    table = "\n".join(corruption.lines(cells))
    assert len(cells) >= 17 * len(corruption.DAMAGES)
    assert all(cell.wrong_rows == 0 for cell in cells.values()), table
    assert all(cell.found == cell.done for cell in cells.values()), table
