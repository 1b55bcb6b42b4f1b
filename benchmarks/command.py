"""The command line of a benchmark or of a soak: its sizes, its last line, and the record of its figures.

`--smoke` gives every size that is not named its smallest value, so that the whole command runs in a few seconds; the test
suite runs each command so. `--record` keeps the figures in `benchmarks/records/`, with the commit, the date, the machine
and its load before and after. `benchmarks.results` makes RESULTS.md of these files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RECORDS: Final = ROOT / "benchmarks" / "records"


class Command:
    """The options of one command, and what it does with its figures.

    Parameters
    ----------
    module
        The module that `python -m` runs, such as `benchmarks.verify`.
    description
        The docstring of the module.
    records
        Where records are kept.
    """

    def __init__(self, module: str, description: str | None, *, records: Path = RECORDS) -> None:
        self.module = module
        self._records = records
        self._smallest: dict[str, object] = {}
        self._arguments: Sequence[str] = ()
        self._recording = False
        self._parser = argparse.ArgumentParser(
            prog=f"python -m {module}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._parser.add_argument("--smoke", action="store_true", help="the smallest sizes: a few seconds")
        self._parser.add_argument(
            "--record", action="store_true", help="keep the figures in benchmarks/records/"
        )
        self.option = self._parser.add_argument

    def size(self, flag: str, default: object, smoke: object, **how: Any) -> None:
        """Add an option that `--smoke` makes small; its type is that of the default unless `how` has another."""
        if not {"type", "action"} & how.keys():
            how["type"] = type(default)
        help_text = f"{how.pop('help', '')} (default %(default)s)".strip()
        action = self._parser.add_argument(flag, default=default, help=help_text, **how)
        self._smallest[action.dest] = smoke

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Read the options; the time of the record begins here."""
        self._arguments = sys.argv[1:] if arguments is None else arguments
        options = self._parser.parse_args(self._arguments)
        if options.smoke and options.record:
            self._parser.error("the figures of --smoke are not to be kept")
        if options.smoke:
            self._parser.set_defaults(**self._smallest)
            options = self._parser.parse_args(self._arguments)
        self._recording = options.record
        self._began = time.perf_counter()
        self._cpu_began = _cpu_seconds()
        self._load_began = os.getloadavg()[0]
        return options

    def finish(self, figures: Mapping[str, object], *, passed: bool = True) -> int:
        """Print the last line, keep the record if that is wished, and return the exit status."""
        folder, *_, last = parts = self.module.split(".")
        word = "benchmark" if folder == "benchmarks" else "soak"
        name = parts[-2] if last == "run" else last
        sys.stdout.write(json.dumps({word: name, "figures": figures}) + "\n")
        if self._recording:
            self._keep({"module": self.module, "passed": passed, "figures": figures})
        return 0 if passed else 1

    def _keep(self, record: dict[str, object]) -> None:
        command = " ".join(each for each in self._arguments if each != "--record")
        record |= {
            "command": f"python -m {self.module} {command}".rstrip(),
            "commit": _commit(),
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "seconds": round(time.perf_counter() - self._began, 1),
            "cpu_seconds": round(_cpu_seconds() - self._cpu_began, 1),
            "load": [round(self._load_began, 1), round(os.getloadavg()[0], 1)],
            "machine": {
                "cores": len(os.sched_getaffinity(0)),
                "processor": platform.machine(),
                "system": platform.system(),
                "python": platform.python_version(),
            },
        }
        self._records.mkdir(exist_ok=True)
        path = self._records / f"{self.module}.json"
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _cpu_seconds() -> float:
    """Return the processor time of this process and of those of its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _commit() -> str:
    """Return the short id of the commit, with a plus sign if files differ from it; empty outside of a repository."""
    try:
        head = _git("rev-parse", "--short=8", "HEAD")
        changes = _git("status", "--porcelain", "--", "src", "tests", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.strip() + ("+" if changes.strip() else "")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
