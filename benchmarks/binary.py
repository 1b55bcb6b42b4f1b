"""What callers see while `holdfast up` replaces its server by another binary, and while it starts a killed one again.

A small model, `holdfast up` as users start it, and clients in a process of their own that ask all the time: some over kept
connections, some over a new one for each request. Two builds of this installation take turns: each is pushed by a plan, as
`holdfast runtime use` does it. Then the server is killed (SIGKILL) now and then. For each the slowest request that was under
way at some time between the decision and its end is told, and every request that failed, whatever the reason.

Run: python -m benchmarks.binary --swaps 10 --kills 5
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

from benchmarks.command import Command
from holdfast.cli.demo.sandbox import free_port
from holdfast.control.http.server_client import FAILURES, ServerClient
from holdfast.control.probing import convergence
from holdfast.control.runtimes import runtime as pushing
from holdfast.records import Verdict
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store.models import runtimes, serving_configs
from holdfast.store.models.runtimes import CompatibilityResult, RuntimeRow
from holdfast.store.serving import servers
from holdfast.store.serving.servers import Server
from tests.support.serving_world import MODEL, World, row, tensors

HOLDFAST: Final = (sys.executable, "-m", "holdfast")
KEPT, FRESH = 6, 2
"""How many clients keep their connection, and how many open one for each request."""
MOST_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was sent and how it ended, seconds of `time.monotonic`; `failed` is empty for an answer."""

    sent: float
    ended: float
    fresh: bool
    failed: str

    @property
    def ms(self) -> float:
        return 1000 * (self.ended - self.sent)


def clients(port: int, pause_seconds: float, begun: Event, ending: Event, found: Any) -> None:
    """The clients' process: every request goes into `found` when it is over; `begun` is set after the first answer."""
    told: list[Asked] = []
    body = json.dumps(tensors([row()]))

    def ask(fresh: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not ending.is_set():
            sent, failed = time.monotonic(), ""
            try:
                connection.request("POST", f"/v2/models/{MODEL}/infer", body)
                answer = connection.getresponse()
                answer.read()
                failed = "" if answer.status == 200 else f"status {answer.status}"
            except (OSError, http.client.HTTPException) as error:
                failed = type(error).__name__
                connection.close()
            told.append(Asked(sent, time.monotonic(), fresh, failed))
            if not failed:
                begun.set()
            if fresh:
                connection.close()
            time.sleep(pause_seconds)

    threads = [threading.Thread(target=ask, args=(number >= KEPT,)) for number in range(KEPT + FRESH)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.put(told)


@contextmanager
def running(world: World, port: int, home: Path) -> Iterator[int]:
    """`holdfast up` for the world's model; its process id."""
    environment = {
        **os.environ,
        "HOLDFAST_ROOT": str(world.root),
        "HOLDFAST_PORT": str(port),
        "HOLDFAST_PAGE_PORT": str(free_port(0)),
    }
    project = str(home / "project")
    subprocess.run(
        [*HOLDFAST, "init", "--name", MODEL, "--project", project], check=True, stdout=subprocess.DEVNULL
    )
    up = subprocess.Popen([*HOLDFAST, "up", "--project", project], env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for(port, lambda status: bool(status.get("ready")))
        yield up.pid
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(30)


def wait_for(port: int, holds: Any) -> dict[str, Any]:
    """The server's status once it `holds`."""
    until = time.monotonic() + MOST_SECONDS
    while time.monotonic() < until:
        try:
            with ServerClient(Server("serve", MODEL, f"http://127.0.0.1:{port}", Path("/"), 0)) as client:
                status = client.status()
            if holds(status):
                return status
        except FAILURES:
            pass  # it may just be started; how long it may take is bounded
        time.sleep(0.02)
    raise SystemExit("the server is not as it should be")


def swap(world: World, present: RuntimeRow, wanted: RuntimeRow) -> tuple[float, float]:
    """Push a binary, and wait until every server was seen to be it; when that began and ended."""
    began = time.monotonic()
    with world.store.ledger.read() as connection:
        registered = servers.registered(connection, MODEL)
    number = pushing.push(
        world.store, MODEL, wanted.runtime, present.facts, actor="bench", reason="swap", now_us=now_us()
    )
    seen = convergence.on_plan(number, world.names["half"], runtime=wanted.runtime)
    done = convergence.wait(registered, seen, decided=began, seconds=MOST_SECONDS)
    if not done.has_converged:
        raise SystemExit(f"{wanted.runtime} did not take over: {done}")
    time.sleep(1.0)  # the old one ends what is under way
    return began, time.monotonic()


def kill(up: int, port: int) -> tuple[float, float]:
    """Kill the server of process `up`, and wait until it answers again; when that began and ended."""
    listed = [each for of in Path(f"/proc/{up}/task").glob("*/children") for each in of.read_text().split()]
    (server,) = [int(each) for each in listed if b"\0serve\0" in Path(f"/proc/{each}/cmdline").read_bytes()]
    began = time.monotonic()
    os.kill(server, signal.SIGKILL)
    wait_for(port, lambda status: bool(status.get("ready")))
    return began, time.monotonic()


def registered(world: World, build: str) -> RuntimeRow:
    """This installation under another build's name, tried with the version that serves."""
    limits, made = ConnectionLimits(), runtimes.here(build)
    command = ["env", f"HOLDFAST_BUILD={build}", *HOLDFAST] if build else list(HOLDFAST)
    with world.store.ledger.write() as connection:
        serving_configs.register(connection, limits, now_us=now_us())
        name = runtimes.register(connection, made, command, now_us=now_us())
        judged = CompatibilityResult(
            world.names["half"], name, limits.id, Verdict.PASS, "the same code", now_us()
        )
        runtimes.judge(connection, judged)
        return runtimes.get(connection, name)


def told(asked: list[Asked], windows: list[tuple[float, float]]) -> dict[str, Any]:
    """What the requests under way in `windows` came to."""
    within = [[each for each in asked if each.sent < end and each.ended > began] for began, end in windows]
    failed = [each for part in within for each in part if each.failed]
    return {
        "times": len(windows),
        "requests": sum(map(len, within)),
        "failed_kept": sum(not each.fresh for each in failed),
        "failed_fresh": sum(each.fresh for each in failed),
        "failures": sorted({each.failed for each in failed}),
        "took_ms": [round(1000 * (end - began)) for began, end in windows],
        "slowest_ms": [round(max(each.ms for each in part), 1) for part in within],
    }


def measure(swaps: int, kills: int, settle_seconds: float, pause_seconds: float) -> dict[str, Any]:
    """Swaps, then kills, under one load; clients ask for `settle_seconds` before and after each."""
    with tempfile.TemporaryDirectory() as directory:
        home, port = Path(directory), free_port(0)
        world = World(home / "root")
        world.version("half")
        world.plan("half")
        blue, green = registered(world, os.environ.get("HOLDFAST_BUILD", "")), registered(world, "green")
        context = multiprocessing.get_context("spawn")
        begun, ending, found = context.Event(), context.Event(), context.Queue()
        with running(world, port, home) as up:
            load = context.Process(target=clients, args=(port, pause_seconds, begun, ending, found))
            load.start()
            if not begun.wait(MOST_SECONDS):
                raise SystemExit("no client is answered")
            time.sleep(2 * settle_seconds)
            quiet = (time.monotonic() - settle_seconds, time.monotonic())
            swapped = []
            for _ in range(swaps):
                swapped.append(swap(world, blue, green))
                blue, green = green, blue
                time.sleep(settle_seconds)
            killed = []
            for _ in range(kills):
                killed.append(kill(up, port))
                time.sleep(settle_seconds)
            ending.set()
            asked: list[Asked] = found.get()
            load.join()
        world.store.ledger.close()
    calm = [each.ms for each in asked if quiet[0] < each.sent < quiet[1]]
    return {
        "requests": len(asked),
        "quiet_median_ms": round(statistics.median(calm), 1),
        "quiet_slowest_ms": round(max(calm), 1),
        "swaps": told(asked, swapped),
        "kills": told(asked, killed),
    }


def now_us() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("benchmarks.binary", __doc__)
    command.size("--swaps", 10, 1, help="times that the binary is replaced")
    command.size("--kills", 5, 1, help="times that the server is killed")
    command.size("--settle", 3.0, 1.0, help="seconds between them")
    command.size("--pause", 0.005, 0.1, help="seconds between two requests of a client")
    given = command.parse(arguments)
    return command.finish(measure(given.swaps, given.kills, given.settle, given.pause))


if __name__ == "__main__":
    sys.exit(main())
