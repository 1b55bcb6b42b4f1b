"""Rollback drills: a server process under steady load, a good version and a bad one, every state, every way a ledger fails.

Each drill brings the bad version to a state of the rollout's machine by its real transitions, lets the ledger fail in one
way, gives the traffic back (through the ledger where it answers, by an abort where it does not), and is timed from the
commit, or the abort's fsync, until a probe was answered by the intended version. A client of its own process asks all the
time: its answers show 5xx, and requests that were sent after the drill said "done" and were answered by the bad version.
Then the ledger comes back and must agree with the traffic before the next drill begins.

How a ledger fails: killed (SQLite: its files are moved away; PostgreSQL: SIGKILL to the postmaster), hung (SQLite: another
process holds the write lock and is stopped; PostgreSQL: SIGSTOP to all its processes), full (SQLite: on a small tmpfs that is
filled to its last byte, logs and copies too). A full disk under PostgreSQL is not drilled: it needs a file system of its own
for a server that does not run as root. States without users of the bad version (pending, shadowing) are drilled too.

Run: python -m benchmarks.rollback --drills 300 --seed 20161
"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.command import Command
from benchmarks.failing_ledgers import KINDS, Ledger
from benchmarks.steady_load import Load
from holdfast.cli.commands.rollout.rollback import abort_of
from holdfast.control.probing import convergence
from holdfast.control.rollout import abort_sync, reconcile, start
from holdfast.control.rollout.reconcile import Transition
from holdfast.control.rollout.rollback import Request, rollback
from holdfast.rollout import Canary, Event, Shadow, State
from holdfast.rollout.model.abort import UnderWay
from holdfast.serve.follower.local_copy import LocalCopy
from holdfast.store import Store
from holdfast.store.db import leases
from holdfast.store.models import versions
from holdfast.store.rollout import rollouts, traffic_plans
from holdfast.store.serving import aborts, local_servers, servers
from tests.support.postgres import UnavailableHereError
from tests.support.serving_world import MODEL, World

SOURCE = Path(__file__).resolve().parents[1] / "src"
GOOD, BAD, HEURISTIC = "tenth", "half", "delay"
STATES = ("pending", "shadowing", "canary 0", "canary 1", "paused", "verifying", "promoted", "rolling back")
POLICY = Canary(steps=(10, 50, 100), shadow=Shadow())
SEEN_SECONDS = 10.0
SETTLE_SECONDS = 60.0
AFTER_SECONDS = 0.06
"""How long requests are still looked at after a drill said "done", before the bad version is given traffic again."""

SERVER = """
import sys
from pathlib import Path
from holdfast.serve.server import serve_forever
from holdfast.settings import Settings
serve_forever(Settings(Path(sys.argv[1]), sys.argv[2], "127.0.0.1", 0, 0), sys.argv[3], linger_seconds=0.0)
"""


@dataclass(frozen=True)
class Drill:
    """What one drill showed."""

    state: str
    ledger: str
    way: str
    took_ms: float
    done: bool
    bad_after: int


@dataclass
class Ground:
    """One store, one server process, one client process: where drills are played."""

    ledger: Ledger
    world: World
    server: subprocess.Popen[str]
    load: Load
    directory: Path
    rng: random.Random
    drills: list[Drill] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return self.world.store

    @property
    def bad(self) -> str:
        return self.world.names[BAD]

    def drill(self, state: str, way: str) -> None:
        self.bring_to(state)
        time.sleep(self.rng.uniform(0.0, 0.05))
        with self.ledger.failing(way):
            took_ms, done, reported = (self.by_ledger if way == "healthy" else self.by_abort)(state)
            time.sleep(AFTER_SECONDS)
            ended = time.monotonic()
        self.agree()
        bad_after = sum(
            reported < sent < ended and version == self.bad for sent, _, version in list(self.load.answers)
        )
        self.drills.append(Drill(state, self.ledger.name, way, took_ms, done, bad_after))

    def bring_to(self, state: str) -> None:
        """The bad version's rollout, by the machine's own transitions."""
        model: Any = SimpleNamespace(name=MODEL, rollout=POLICY)
        start.request(self.store, model, self.bad, actor="drill", now_us=now_us())
        for event, step in {
            "pending": (),
            "shadowing": ((Event.SHADOW, 0),),
            "canary 0": ((Event.START, 0),),
            "canary 1": ((Event.START, 0), (Event.ADVANCE, 1)),
            "paused": ((Event.START, 0), (Event.ADVANCE, 1), (Event.PAUSE, 1)),
            "verifying": ((Event.START, 0), (Event.ADVANCE, 1), (Event.COMPLETE, 1)),
            "promoted": ((Event.START, 0), (Event.COMPLETE, 0), (Event.CONFIRM, 0)),
            "rolling back": ((Event.START, 0), (Event.ADVANCE, 1), (Event.ROLLBACK, 1)),
        }[state]:
            self.move(event, step)
        with self.store.ledger.read() as connection:
            plan = traffic_plans.newest(connection, MODEL)
        assert plan is not None
        self.until(
            lambda status: status["plan"] == plan.plan_id and not status["aborts"], f"plan {plan.plan_id}"
        )
        copy = LocalCopy(aborts.directory_of(self.store.root, MODEL))
        self.until(lambda _: self.is_kept(copy, plan.plan_id), "the copy")
        self.until(lambda _: aborts.is_reserved(copy.directory), "room for an abort")

    def is_kept(self, copy: LocalCopy, plan: int) -> bool:
        kept = copy.load()
        with self.store.ledger.read() as connection:
            row = rollouts.newest(connection, MODEL)
        under_way = UnderWay(row.rollout_id, row.challenger) if row.running else None
        return kept is not None and kept.plan.plan_id == plan and kept.under_way == under_way

    def move(self, event: Event, step: int) -> None:
        with self.store.ledger.read() as connection:
            row = rollouts.newest(connection, MODEL)
        with self.store.ledger.write() as connection:
            reconcile.commit(
                connection, self.store, row, Transition(event, "drill", "drill", step), now_us=now_us()
            )

    def by_ledger(self, state: str) -> tuple[float, bool, float]:
        with self.store.ledger.read() as connection:
            registered = servers.registered(connection, MODEL)
        rollback(self.store, Request(MODEL, "drill", state), now_us=now_us())
        decided = time.monotonic()
        with self.store.ledger.read() as connection:
            plan = traffic_plans.newest(connection, MODEL)
        assert plan is not None
        seen = convergence.on_plan(plan.plan_id, plan.intended)
        found = convergence.wait(registered, seen, decided=decided, seconds=SEEN_SECONDS)
        return found.duration_ms, found.has_converged and plan.intended != self.bad, time.monotonic()

    def by_abort(self, state: str) -> tuple[float, bool, float]:
        directory = aborts.directory_of(self.store.root, MODEL)
        kept = LocalCopy(directory).load()
        assert kept is not None
        abort = abort_of(kept, None, state, "drill")
        running = local_servers.running(directory)
        aborts.add(directory, abort)
        decided = time.monotonic()
        seen = convergence.without_version(abort.version, directory)
        found = convergence.wait(running, seen, decided=decided, seconds=SEEN_SECONDS)
        return found.duration_ms, found.has_converged and abort.version == self.bad, time.monotonic()

    def agree(self) -> None:
        """The ledger is back: it learns of the abort, a probe confirms, and the server forgets."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                self.settle()
                break
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        with self.store.ledger.read() as connection:
            plan = traffic_plans.newest(connection, MODEL)
        assert plan is not None
        assert plan.champion == self.world.names[GOOD], (plan, self.world.names)
        self.until(
            lambda status: (
                not status["aborts"] and not status["ledger_error"] and status["plan"] == plan.plan_id
            ),
            "ledger and server to agree",
        )

    def settle(self) -> None:
        with self.store.ledger.write() as connection:
            lease = leases.acquire(
                connection, f"control-{MODEL}", holder="drill", duration_us=60_000_000, now_us=now_us()
            )
        assert isinstance(lease, leases.Lease)
        abort_sync.carry(self.store, MODEL, lease, now_us=now_us())
        with self.store.ledger.read() as connection:
            row = rollouts.newest(connection, MODEL)
        if row.state is State.ROLLING_BACK:
            self.move(Event.CONFIRM, 0)
        with self.store.ledger.read() as connection:
            assert not rollouts.newest(connection, MODEL).running
        with self.store.ledger.write() as connection:
            leases.release(connection, lease)

    def until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            status = self.status()
            if holds(status):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain for {what}: {status}")
            time.sleep(0.005)

    def status(self) -> dict[str, Any]:
        [server] = local_servers.running(aborts.directory_of(self.store.root, MODEL))
        connection = http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=20)
        try:
            connection.request("GET", "/holdfast/status")
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()


def now_us() -> int:
    return time.time_ns() // 1000


@contextmanager
def ground(ledger: Ledger, rate: float, rng: random.Random, source: str = SERVER) -> Iterator[Ground]:
    """A store whose champion is the good version, with a server that answers and a client that asks."""
    world = World(ledger.root, ledger.url)
    for kind in (GOOD, BAD, HEURISTIC):
        version = world.version(kind)
        with world.store.ledger.write() as connection:
            versions.set_state(connection, version, "qualified", before="registered")
    world.plan(GOOD, fallback=HEURISTIC)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    server = subprocess.Popen(
        [sys.executable, "-c", source, str(ledger.root), ledger.url, MODEL],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    load = None
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        load = Load.start(address, rate, world.names[BAD])
        made = Ground(ledger, world, server, load, ledger.root, rng)
        made.until(lambda status: bool(status["ready"]), "the server")
        yield made
    finally:
        if load is not None:
            load.stop()
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)
        world.store.ledger.close()


def run(kind: Any, drills: int, rate: float, seed: int, directory: Path) -> tuple[list[Drill], Load]:
    """`drills` drills on one kind of ledger, every state with every way of failing in turn, in an order of the seed's."""
    rng = random.Random(seed)
    with kind(directory) as ledger, ground(ledger, rate, rng) as played:
        kinds = [(state, way) for way in ledger.ways for state in STATES]
        turns = [kinds[number % len(kinds)] for number in range(math.ceil(drills / len(kinds)) * len(kinds))]
        rng.shuffle(turns)
        turns = sorted(turns[:drills], key=lambda _: rng.random())
        for number, (state, way) in enumerate(turns, 1):
            try:
                played.drill(state, way)
            except Exception as error:
                error.add_note(f"{ledger.name} {number}: {way}, {state}")
                raise
            last = played.drills[-1]
            print(
                f"\r{ledger.name} {number} of {len(turns)}: {way}, {state}: {last.took_ms:.0f} ms   ",
                end="",
                file=sys.stderr,
                flush=True,
            )
        print(file=sys.stderr)
        return played.drills, played.load


def report(drills: list[Drill], loads: list[Load], bad: str, seed: int, skipped: list[str]) -> dict[str, Any]:
    """The figures, and a table of them by how the ledger failed."""
    print(f"{'ledger':<12}{'way':<10}{'drills':>7}{'failed':>8}{'median':>9}{'p99':>8}{'max ms':>8}")
    by_way: dict[str, dict[str, object]] = {}
    for name, way in dict.fromkeys((each.ledger, each.way) for each in drills):
        took = sorted(each.took_ms for each in drills if (each.ledger, each.way) == (name, way))
        failed = sum(not each.done for each in drills if (each.ledger, each.way) == (name, way))
        print(
            f"{name:<12}{way:<10}{len(took):>7}{failed:>8}{statistics.median(took):>9.0f}{_p99(took):>8.0f}{took[-1]:>8.0f}"
        )
        by_way[f"{name} {way}"] = {
            "drills": len(took),
            "failed": failed,
            "median ms": round(statistics.median(took), 1),
            "p99 ms": round(_p99(took), 1),
            "max ms": round(took[-1], 1),
        }
    took = sorted(each.took_ms for each in drills)
    answers = [answer for load in loads for answer in load.answers]
    return {
        "drills": len(drills),
        "failed": sum(not each.done for each in drills),
        "max_ms": round(took[-1], 1),
        "median_ms": round(statistics.median(took), 1),
        "p99_ms": round(_p99(took), 1),
        "requests": len(answers),
        "errors_5xx": sum(status >= 500 for _, status, _ in answers),
        "answered_by_bad": sum(version == bad for _, _, version in answers),
        "bad_after_done": sum(each.bad_after for each in drills),
        "states": len({each.state for each in drills}),
        "skipped": skipped,
        "seed": seed,
        "by_ledger_and_way": by_way,
    }


def _p99(took: list[float]) -> float:
    return took[min(len(took) - 1, math.ceil(0.99 * len(took)) - 1)]


def measure(drills: int, rate: float, seed: int, kinds: list[str]) -> dict[str, Any]:
    """All drills, shared between the kinds of ledger; a kind that cannot run here is named as skipped."""
    done: list[Drill] = []
    loads: list[Load] = []
    skipped: list[str] = []
    bad = ""
    with tempfile.TemporaryDirectory(prefix="holdfast-drills-") as directory:
        for position, name in enumerate(kinds):
            share = drills // len(kinds) + (position < drills % len(kinds))
            try:
                made, load = run(KINDS[name], share, rate, seed + position, Path(directory))
            except UnavailableHereError as error:
                skipped.append(f"{name}: {error}")
                continue
            done += made
            loads.append(load)
            bad = load.bad
    if "sqlite" in kinds and not any(each.way == "full" for each in done):
        skipped.append("full: no tmpfs can be mounted here")
    return report(done, loads, bad, seed, skipped)


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("benchmarks.rollback", __doc__)
    command.size("--drills", 300, 12, help="drills in all")
    command.size("--rate", 300.0, 100.0, help="requests a second")
    command.option("--seed", type=int, default=20161)
    command.option("--ledger", choices=[*KINDS, "both"], default="both")
    given = command.parse(arguments)
    print(f"drills {given.drills}, seed {given.seed}, {given.rate:g} requests a second", flush=True)
    kinds = list(KINDS) if given.ledger == "both" else [given.ledger]
    found = measure(given.drills, given.rate, given.seed, kinds)
    return command.finish(
        found, passed=not (found["failed"] or found["errors_5xx"] or found["bad_after_done"])
    )


if __name__ == "__main__":
    sys.exit(main())
