"""What the tests of the whole load share: a feed's deliveries, and its loader as a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

LOADER = Path(__file__).with_name("loader.py")
ROWS = 300
BAD_ROW = 7


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
            "left": [moment + timedelta(minutes=5) for moment in times],
        }
    ).write_parquet(path)
    return path


@pytest.fixture
def delivery(tmp_path: Path) -> Callable[[int], Path]:
    """Makes the delivery of a day: a file of 300 rows, one of them bad."""
    directory = tmp_path / "deliveries"
    directory.mkdir()
    return lambda day: _delivery(directory, day)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def loader() -> ModuleType:
    """The loader's module, for its feed and its aggregate."""
    return _module(LOADER)


@pytest.fixture(scope="session")
def backout_world() -> ModuleType:
    """What the tests of backing out share."""
    return _module(Path(__file__).with_name("backout_world.py"))


@pytest.fixture(scope="session")
def rollout_world() -> ModuleType:
    """What the tests of rollouts share."""
    return _module(Path(__file__).with_name("rollout_world.py"))


@pytest.fixture
def hook_server() -> Iterator[Any]:
    """A hook on a port of its own; `start()` gives its URL."""
    made = _module(Path(__file__).with_name("hook_server.py")).HookServer()
    yield made
    made.stop()


@pytest.fixture
def start_loader() -> Callable[..., subprocess.Popen[str]]:
    """Starts a loader process: `start_loader(root, point, *files)`."""

    def start(root: Path, point: str, *paths: Path) -> subprocess.Popen[str]:
        command = [sys.executable, str(LOADER), str(root), point, *map(str, paths)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    return start
