"""Benchmarks and soaks in their smallest size, with the figures of their last line."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest

Smoke = Callable[[str], dict[str, Any]]


@pytest.fixture
def smoke(capsys: pytest.CaptureFixture[str]) -> Smoke:
    """Run a command with `--smoke` in this process; it must succeed, and its figures are returned."""

    def run(module: str) -> dict[str, Any]:
        status = importlib.import_module(module).main(["--smoke"])
        printed = capsys.readouterr().out
        last = json.loads(printed.splitlines()[-1])
        assert status == 0, printed
        figures = last["figures"]
        assert isinstance(figures, dict)
        return figures

    return run
