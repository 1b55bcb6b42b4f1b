"""Every command of docs/tutorial.md runs, in the order of the page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli.demo.sandbox import free_port

pytestmark = [pytest.mark.process, pytest.mark.sqlite]

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
SECONDS = 600


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


def test_every_command_of_the_tutorial_runs(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "holdfast"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m holdfast "$@"\n')
    shim.chmod(0o755)
    ports = {"8080": str(free_port(0)), "8081": str(free_port(0))}
    script = "set -e -o pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
    for command in commands(PAGE.read_text(encoding="utf-8")):
        for documented, free in ports.items():
            command = command.replace(f"localhost:{documented}", f"localhost:{free}")
        script += f"{command}\n"
    script += "wait\n"
    environment = {
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "HOLDFAST_PORT": ports["8080"],
        "HOLDFAST_PAGE_PORT": ports["8081"],
    }
    done = subprocess.run(
        ["bash", "-x", "-c", script],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "done" in done.stdout
    history = subprocess.run(
        [str(shim), "rollout", "history", "--json"],
        cwd=tmp_path / "parcels",
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    pushes = {each["rollout_id"]: each for each in json.loads(history.stdout)["pushes"]}
    assert pushes[1]["state"] == "promoted"
    assert pushes[2]["state"] in ("rolled_back", "rolling_back", "cancelled")
