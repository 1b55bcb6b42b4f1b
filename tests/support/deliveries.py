"""The deliveries of one feed, and its loader as a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tests.support import forking

ROWS = 300
BAD_ROW = 7
LOADER = "import sys; from tests.support import loader; loader.main(*sys.argv[1:])"


def _delivery(directory: Path, day: int) -> Path:
    """One day of rows as Parquet, in event order; row `BAD_ROW` breaks the contract."""
    first = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=day)
    times = [first + timedelta(minutes=4 * row) for row in range(ROWS)]
    path = directory / f"day-{day}.parquet"
    pl.DataFrame(
        {
            "id": [1000 * day + row for row in range(ROWS)],
            "origin": ["EWR" if row % 2 else "JFK" for row in range(ROWS)],
            "delay": [9e9 if row == BAD_ROW else float(row % 90) for row in range(ROWS)],
            "at": times,
            "left": [time + timedelta(minutes=5) for time in times],
        }
    ).write_parquet(path)
    return path


@pytest.fixture
def delivery(tmp_path: Path) -> Callable[[int], Path]:
    """Make the delivery of a day: a file of 300 rows, one of them bad."""
    directory = tmp_path / "deliveries"
    directory.mkdir()
    return lambda day: _delivery(directory, day)


@pytest.fixture
def start_loader() -> Callable[..., forking.Process]:
    """Start a loader process: `start_loader(root, point, *files)`."""

    def start(root: Path, point: str, *paths: Path) -> forking.Process:
        return forking.start(LOADER, root, point, *paths)

    return start
