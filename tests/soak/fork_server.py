"""A warm interpreter that forks loader processes, so that a thousand of them cost seconds and not half an hour.

Nothing of Polars or PyArrow has run before the fork, only their import; a child that hangs all the same is reported, not
waited for. One line of JSON comes in, one goes out:

    {"run": {"root", "jobs": [[batch, path], ...], "point", "passes", "acks"}}  ->  {"pid": 123}
    {"run": {"root", "command", "point", "passes"}}                               ->  {"pid": 123}
    {"wait": 123}                                                              ->  {"status": -9}, or null after a minute

A child appends a line to the file `acks` after each answer that it got, as a sender would that writes down what was
acknowledged to it. With a `point` it kills itself when it passes that point for the `passes`-th time.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from holdfast.contract import Category, Contract, Integer, Number, Timestamp
from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.verify import verify
from holdfast.errors import HoldfastError
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import Feed
from holdfast.store import Store
from holdfast.store.durability import failpoints
from tests.soak import commands

FEED = Feed(
    "flights",
    Contract(
        Integer("id", low=0),
        Category("origin"),
        Number("delay", unit="min", low=-60, high=600, missing="keep"),
        Timestamp("at", tz="UTC"),
        key="id",
        event_time="at",
    ),
)
AGGREGATE = Aggregate(
    "delay_3h",
    over="flights",
    by="origin",
    value="delay",
    known_at="at",
    window="3h",
    every="10min",
    available_after="15min",
)
HANG_SECONDS = 60.0


def kill_at(point: str, passes: int) -> failpoints.Hook:
    """A hook that kills this process when it passes `point` for the `passes`-th time."""
    left = passes

    def hook(name: str) -> None:
        nonlocal left
        left -= name == point
        if left == 0 and name == point:
            failpoints.kill_self()

    return hook


def load(task: dict[str, Any]) -> None:
    """Load the jobs in order and write down each answer."""
    acks = os.open(task["acks"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    store = Store.open(Path(task["root"]))
    for batch, path in task["jobs"]:
        content = Path(path).stem
        aggregates = [AGGREGATE] if task.get("aggregates") else []
        try:
            state = ingest(
                store, FEED, batch, Path(path), now_us=time.time_ns() // 1000, aggregates=aggregates
            ).state
        except HoldfastError as error:
            os.write(acks, f"{error.code} {batch} {content} {error.what}\n".encode())
        else:
            os.write(acks, f"ACK {batch} {content} {state}\n".encode())
    if task.get("verify"):
        for finding in verify(store).findings:
            os.write(acks, f"FOUND {finding.code} {finding.subject} {finding.explanation}\n".encode())


def run(task: dict[str, Any]) -> int:
    """Fork a child that does `task`; its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        if task.get("point"):
            failpoints.armed = kill_at(task["point"], task["passes"])
        (commands.run if "command" in task else load)(task)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(pid: int) -> int | None:
    """How `pid` ended (negative: by which signal); None when it does not end, and then it is killed."""
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None


def main() -> None:
    for line in sys.stdin:
        requested = json.loads(line)
        response = (
            {"pid": run(requested["run"])} if "run" in requested else {"status": wait(requested["wait"])}
        )
        sys.stdout.write(json.dumps(response) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
