"""Every command of docs/tutorial.md runs, in the order of the page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.project import Project

pytestmark = [pytest.mark.process, pytest.mark.sqlite]

PAGE = ROOT / "docs" / "tutorial.md"
DONE = "the command ended with"
PLAIN = re.compile(r"holdfast [^$&<>|;`\n]*")
"""A command that needs no shell: it runs in this process, which has imported already what a new one would import."""


def commands(page: str) -> list[str]:
    """Return the commands of the console blocks: lines after `$ `, continued by lines after `> `."""
    found: list[str] = []
    for block in re.findall(r"^```console\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(line[2:])
            elif line.startswith("> "):
                found[-1] += "\n" + line[2:]
    return found


class Shell:
    """One shell that runs every command, as a reader's terminal does, with jobs and variables that go on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, command: str) -> str:
        """Run `command` and return what it printed; fails unless its exit status is 0."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\necho; echo {DONE} $?\n")
        self._process.stdin.flush()
        lines = []
        for line in self._process.stdout:
            if line.startswith(DONE):
                assert line.split()[-1] == "0", f"{command}: {''.join(lines)}"
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"{command}: the shell ended: {''.join(lines)}")


@contextmanager
def shell(directory: Path, environment: dict[str, str]) -> Iterator[Shell]:
    """A shell in `directory`, which knows the command `holdfast`."""
    (directory / "bin").mkdir()
    shim = directory / "bin" / "holdfast"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m holdfast "$@"\n')
    shim.chmod(0o755)
    with subprocess.Popen(
        ["bash"],
        cwd=directory,
        env=environment | {"PATH": f"{shim.parent}:{os.environ['PATH']}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        made = Shell(process)
        made.run("set -o pipefail; trap 'kill $(jobs -p) 2>/dev/null' EXIT")
        yield made
        made.run("wait")


def test_every_command_of_the_tutorial_runs(tmp_path: Path) -> None:
    project = Project(tmp_path / "parcels")
    printed: dict[str, str] = {}
    with shell(tmp_path, project.environment) as terminal:
        for command in commands(PAGE.read_text(encoding="utf-8")):
            if PLAIN.fullmatch(command):
                assert terminal.run("pwd").strip() == str(project.directory)
                words = shlex.split(command)[1:]
                printed[words[0]] = project.run(*words)
            else:
                for documented, free in (("8080", project.port), ("8081", project.page_port)):
                    command = command.replace(f"localhost:{documented}", f"localhost:{free}")
                terminal.run(command)
    assert "done" in printed["rollback"]
    pushes = {each["rollout_id"]: each for each in project.document("rollout", "history")["pushes"]}
    assert pushes[1]["state"] == "promoted"
    assert pushes[2]["state"] in ("rolled_back", "rolling_back", "cancelled")
