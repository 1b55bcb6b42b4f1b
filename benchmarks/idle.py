"""What `holdfast up` costs when nothing happens: processor time of each process, and memory of all of them.

A project of the sample data with one small version is served. After `--settle` seconds, in which nothing is requested, the
processor time of each process is read from the kernel over `--seconds`: server and control loop may use at most 1 % of a core
each. Memory is the sum over the processes of what is theirs alone and their part of what they share (PSS), at most 450 MB; the
sum of what each has resident (RSS) counts shared pages once for each process. `viewed` is after some predictions, a label and
three views of the page, which draw its charts.

Run: python -m benchmarks.idle --seconds 300
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.command import Command
from tests.cli.test_first_project import INFER, REQUEST, children_of, command_line
from tests.support.project import Project
from tests.support.waiting import wait_until

MODEL: Final = "parcels"
MOST_CPU_PERCENT: Final = 1.0
MOST_MB: Final = 450.0
SHORTEST_SECONDS: Final = 60.0
"""A shorter measurement holds too few polls to be held to a bound."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def processes(up: int) -> dict[str, int]:
    """Return the processes of `holdfast up` by their names."""
    return {
        "up": up,
        **{(words := command_line(pid))[words.index("holdfast") + 1]: pid for pid in children_of(up)},
    }


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process until now, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mb(pid: int) -> tuple[float, float]:
    """Return a process's part of the memory that it uses (PSS), and what it has resident (RSS), in MB of 2^20 bytes."""
    found = dict(line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(found["Pss:"]) / 1024, int(found["Rss:"]) / 1024


def use(project: Project) -> None:
    """Request predictions, label one, and look at the page."""
    for _ in range(20):
        status, response = project.request("POST", INFER, REQUEST)
        assert status == 200, response
    project.run("feedback", response["parameters"]["prediction_id"], "true")
    for _ in range(3):
        project.page("/")


def measure(seconds: float, settle: float, directory: Path) -> dict[str, Any]:
    """Serve one small version in `directory`, and return the figures."""
    project = Project(directory)
    for command in (f"init --name {MODEL}", "ingest rows parcels.csv", "train", "qualify", "rollout start"):
        project.run(*command.split())
    with project.running("up") as up:
        project.wait_for_server(MODEL)
        wait_until(lambda: project.page("/health")[0] == 200, "the page responds")
        wait_until(lambda: '"promoted"' in project.run("status", "--json"), "the version is promoted")
        time.sleep(settle)
        found = processes(up.pid)
        idle = {name: memory_mb(pid) for name, pid in found.items()}
        before, began = {name: cpu_seconds(pid) for name, pid in found.items()}, time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - began
        cpu = {name: 100 * (cpu_seconds(pid) - before[name]) / elapsed for name, pid in found.items()}
        use(project)
        time.sleep(settle)
        viewed = {name: memory_mb(pid) for name, pid in found.items()}
        assert processes(up.pid) == found, "a process was restarted"
    return {
        "control_cpu": round(cpu["control"], 2),
        "server_cpu": round(cpu["serve"], 2),
        "up_mb": round(sum(pss for pss, _ in idle.values())),
        "up_rss_mb": round(sum(rss for _, rss in idle.values())),
        "viewed_mb": round(sum(pss for pss, _ in viewed.values())),
        "viewed_rss_mb": round(sum(rss for _, rss in viewed.values())),
        "measured_seconds": round(elapsed),
        "process": {
            name: {
                "cpu %": round(cpu[name], 2),
                "PSS MB": round(idle[name][0]),
                "RSS MB": round(idle[name][1]),
                "PSS MB viewed": round(viewed[name][0]),
                "RSS MB viewed": round(viewed[name][1]),
            }
            for name in found
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    command = Command("benchmarks.idle", __doc__)
    command.size("--seconds", 300.0, 2.0, help="how long nothing happens")
    command.size("--settle", 20.0, 1.0, help="how long a start may take to be over")
    given = command.parse(arguments)
    with tempfile.TemporaryDirectory(prefix="holdfast-idle-") as directory:
        found = measure(given.seconds, given.settle, Path(directory))
    for name, figures in found["process"].items():
        print(f"{name:<10}" + "".join(f"{value:>10} {what}" for what, value in figures.items()))
    is_held = found["up_mb"] <= MOST_MB and (
        given.seconds < SHORTEST_SECONDS or max(found["control_cpu"], found["server_cpu"]) <= MOST_CPU_PERCENT
    )
    return command.finish(found, passed=is_held)


if __name__ == "__main__":
    sys.exit(main())
