"""Where pushes are played: a store with the flights, a server process, a control loop process, callers in a process."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from holdfast.cli.demo.sandbox import Sandbox
from holdfast.cli.processes.supervisor import Group
from holdfast.cli.project import now_us
from holdfast.contract import col
from holdfast.control.evaluation import qualify
from holdfast.control.http.open_inference import inference_request
from holdfast.control.rollout import start
from holdfast.control.training import train
from holdfast.qualify import GateResult
from holdfast.records import Verdict
from holdfast.rollout import State
from holdfast.store import Store
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.rollout import rollouts
from holdfast.tables.selection import Filter, Sample, Selection
from holdfast.train import LightGBM
from holdfast.train.artifact import open_version, pack_version
from tests.soak.push_faults import Fault, planted
from tests.support.queries import read

NEW_YORK = ZoneInfo("America/New_York")
CLIENT = Path(__file__).with_name("push_client.py")
READY_SECONDS = 120.0


@dataclass(frozen=True)
class Extent:
    """Which days are loaded, which of them are requested, and how large the models are."""

    first: date = date(2013, 1, 1)
    last: date = date(2013, 3, 31)
    live_days: int = 21
    trees: int = 160
    holdout: str = "14d"

    @property
    def live(self) -> list[date]:
        """The days after the last that is trained on or judged by."""
        return [self.last + timedelta(days=n + 1) for n in range(self.live_days)]


@dataclass
class Callers:
    """The process that asks and reports."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls, address: str, rows: Path, connections: int, rate: float) -> Callers:
        command = [sys.executable, str(CLIENT), address, str(rows), str(connections), str(rate)]
        return cls(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    def ask(self, what: str, **more: Any) -> dict[str, Any]:
        """The answer to one question (see the client)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"ask": what, **more}) + "\n")
        self.process.stdin.flush()
        response: dict[str, Any] = json.loads(self.process.stdout.readline())
        return response

    @property
    def requests(self) -> int:
        """How many were answered since the beginning, in whatever way."""
        return int(self.ask("totals")["requests"])

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@dataclass
class World:
    """A project with its store, its processes and its callers."""

    stage: Sandbox
    extent: Extent
    snapshot: str = ""
    gates: dict[str, list[GateResult]] = field(default_factory=dict)

    @classmethod
    def build(cls, directory: Path, extent: Extent) -> World:
        """Load the flights of `extent`, and the weather and departures of the days that are requested as well."""
        live = extent.live
        world = cls(Sandbox.build(directory, extent.first, live[-1]), extent)
        days = [extent.first + timedelta(days=n) for n in range((live[-1] - extent.first).days + 1)]
        for day in days:
            for feed in ("departures", "weather", *(("flights",) if day <= extent.last else ())):
                world.stage.load(feed, day)
        world.snapshot = world.stage.project.snapshot(world.store).snapshot
        return world

    @property
    def store(self) -> Store:
        return self.stage.store

    @property
    def model(self) -> Any:
        """The declaration, with the holdout of the extent."""
        return replace(self.stage.project.model, holdout=self.extent.holdout)

    @property
    def name(self) -> str:
        return str(self.stage.project.model.name)

    @property
    def live_from_us(self) -> int:
        """When the first day that is requested begins, microseconds since 1970 UTC."""
        first = self.extent.live[0]
        return round(datetime(first.year, first.month, first.day, tzinfo=NEW_YORK).timestamp() * 1e6)

    # --- versions -----------------------------------------------------------------------------------------------------

    def trained(self, seed: int) -> str:
        """A candidate, trained anew: each seed has its own hyperparameters, months and rows."""
        rng = random.Random(seed)
        size = self.extent.trees
        learner = LightGBM(
            trees=rng.randint(size * 9 // 10, size * 11 // 10),
            leaves=rng.randint(26, 36),
            learning_rate=rng.uniform(0.045, 0.055),
            min_rows_per_leaf=rng.randint(80, 120),
        )
        begin = datetime(
            self.extent.first.year, self.extent.first.month, self.extent.first.day, tzinfo=NEW_YORK
        )
        since = begin + timedelta(days=rng.randint(0, (self.extent.last - self.extent.first).days // 6))
        chosen = Selection(
            filters=(Filter("newer", col("scheduled_departure") >= since),),
            sample=Sample(rng.uniform(0.9, 1.0)),
        )
        model = replace(self.model, learner=learner, selection=chosen)
        return train.train(self.store, model, self.snapshot, now_us=now_us(), seed=seed).version

    def broken(self, good: str, fault: Fault, since_us: int | None) -> str:
        """The version `good` with `fault`, registered as training registers; its metadata stay true."""
        graph, about = open_version(blobs.get(self.store.root, read(self.store, versions.get, good).digest))
        data = pack_version(planted(graph, fault, since_us), about)
        with blobs.registering(self.store.root):
            digest = blobs.put(self.store.root, data)
            with self.store.ledger.write() as connection:
                row = versions.register(
                    connection, about, digest=digest, size_bytes=len(data), now_us=now_us()
                )
        return row.version

    def qualifies(self, version: str) -> bool:
        """Whether every gate passes `version`; what they reported is kept in `gates`."""
        results = qualify.qualify(self.store, self.model, version, now_us=now_us())
        self.gates[version] = results
        return all(each.verdict is Verdict.PASS for each in results)

    def refusals(self, version: str) -> list[str]:
        """Which gates did not pass `version`."""
        return [each.gate for each in self.gates[version] if each.verdict is not Verdict.PASS]

    # --- processes ----------------------------------------------------------------------------------------------------

    @contextmanager
    def running(self, connections: int, rate: float) -> Iterator[Callers]:
        """Server, control loop and callers run inside this context; the first version is promoted when it begins."""
        project = self.stage.project
        commands = {name: [name, "--project", str(project.directory)] for name in ("serve", "control")}
        with Group(commands, project.settings.root) as group:
            self.stage.client.wait_until_ready(READY_SECONDS)
            self.wait(lambda: self.row().state is State.PROMOTED, "the first version's promotion", group)
            address = f"http://{project.settings.host}:{project.settings.port}"
            callers = Callers.start(address, self._rows(), connections, rate)
            try:
                yield callers
            finally:
                callers.close()

    def row(self) -> rollouts.RolloutRow:
        """The newest rollout."""
        return read(self.store, rollouts.newest, self.name)

    def begin(self, version: str, policy: Any = None) -> int:
        """Ask for the rollout of `version`; nothing but the control loop carries it on."""
        model = self.model if policy is None else replace(self.model, rollout=policy)
        number = start.request(self.store, model, version, actor="pusher", now_us=now_us()).rollout
        assert number is not None
        return number

    def wait(
        self, holds: Callable[[], bool], what: str, group: Group | None = None, seconds: float = READY_SECONDS
    ) -> None:
        """Return once `holds`."""
        deadline = time.monotonic() + seconds
        while not holds():
            if group is not None:
                group.revive()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"waited {seconds:g} s in vain for {what}; logs in {self.stage.project.settings.root}"
                )
            time.sleep(0.05)

    @property
    def requests_a_day(self) -> int:
        """How many flights the days that are requested have, in the mean."""
        files = [self.stage.file("flights", day) for day in self.extent.live]
        rows = sum(pl.scan_parquet(file).select(pl.len()).collect().item() for file in files)
        return int(rows) // len(files)

    def _rows(self) -> Path:
        """What callers request, and the truth about it. A flight's delay is unknown before it has left.

        The flights are mixed over the days: three weeks go by in some twenty seconds, and a storm that takes a second would
        fall between two steps of one rollout, which it never does to a canary of days.
        """
        path = self.stage.project.directory / "requested.jsonl"
        columns = [each for each in self.model.contract.request_columns if each.name != "reported_delay"]
        lines = []
        for day in self.extent.live:
            for row in pl.read_parquet(self.stage.file("flights", day)).to_dicts():
                body = inference_request(columns, row, row["flight_id"])
                lines.append({"body": body, "late": row["late"]})
        random.Random(1).shuffle(lines)
        a_day = self.requests_a_day
        with path.open("w") as file:
            for place, line in enumerate(lines):
                file.write(json.dumps({"day": str(place // a_day), **line}) + "\n")
        return path
