"""The corruption matrix, with one flipped bit of each kind (P3); more bits by the command."""

from __future__ import annotations

from pathlib import Path

from tests.durability import corruption

SEED = 7


def test_every_damage_is_found_and_no_wrong_row_read(tmp_path: Path) -> None:
    """{empty, half, one bit, missing, swapped} x every kind of file."""
    cells = corruption.matrix(tmp_path, SEED, bits=1)
    table = "\n".join(corruption.lines(cells))
    assert len(cells) >= 17 * len(corruption.DAMAGES)
    assert all(cell.wrong_rows == 0 for cell in cells.values()), table
    assert all(cell.found == cell.done for cell in cells.values()), table
