"""Every benchmark and every soak runs: each in its smallest size (P1, R126).

Those that another test runs by the same fixture are not run twice.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from benchmarks.command import ROOT
from tests.support.smoke import Smoke

BY_HAND: Final = {"tests.soak.nights"}
"""A night is a day of commands and processes: `--smoke` plays one, which takes a minute."""
FOLDERS: Final = ("benchmarks", "tests/soak", "tests/durability", "tests/simulation")


def commands() -> list[str]:
    """Return the modules that are commands with records."""
    return sorted(
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for folder in FOLDERS
        for path in (ROOT / folder).glob("*.py")
        if re.search(
            r"^def main\(.*^    \w+ = Command(?:Line)?\(", path.read_text(), re.MULTILINE | re.DOTALL
        )
    )


def elsewhere() -> set[str]:
    """Return the commands that other tests run."""
    others = (
        path for folder in FOLDERS for path in (ROOT / folder).glob("test_*.py") if path != Path(__file__)
    )
    return {found for path in others for found in re.findall(r'smoke\("([\w.]+)"\)', path.read_text())}


@pytest.mark.parametrize("command", sorted({*commands()} - elsewhere() - BY_HAND))
def test_a_command_runs_in_its_smallest_size(command: str, smoke: Smoke) -> None:
    assert smoke(command)


def test_every_command_can_be_run_so() -> None:
    """What `make soak` and `make bench` run, and whatever begins like a benchmark."""
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"-m (benchmarks\.\w+|tests\.(?:soak|durability|simulation)\.\w+)", makefile))
    soaks = re.search(r"^SOAKS := (.*)$", makefile, re.MULTILINE)
    assert soaks
    named |= {f"tests.soak.{name}" for name in soaks[1].split()}
    mains = {
        f"benchmarks.{path.stem}"
        for path in (ROOT / "benchmarks").glob("*.py")
        if "__main__" in path.read_text()
    }
    assert named | mains <= {*commands(), "benchmarks.results"}
