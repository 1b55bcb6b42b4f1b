"""The stage of the demonstration: a project of its own, its processes, and days that go by as they did in 2013.

The clock of the replay is the flights' own. A value that only became known at ten o'clock is in the online table with that
time, and a request of half past nine cannot read it: the as-of rule that keeps training honest keeps the replay honest too.
"""

from __future__ import annotations

import os
import runpy
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from holdfast.cli.commands.serving.processes import group_of
from holdfast.cli.demo.client import Caller
from holdfast.cli.processes.supervisor import Group
from holdfast.cli.project import Project, now_us
from holdfast.control.ingest import ingest
from holdfast.control.ingest.outcome import LoadResult
from holdfast.errors import InputError, UnavailableError
from holdfast.feeds import quarantine_table
from holdfast.records import Violation
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.files import data_files
from holdfast.store.telemetry import labels

MARK: Final = ".holdfast-demo"
EXAMPLE_FILES: Final = ("model.py", "bad_push.py", "cut.py")
SETTLE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows in the tables, rows in quarantine, and rows whose key stands there more than once."""

    rows: int
    quarantined: int
    duplicates: int


@dataclass(slots=True)
class Stage:
    """Where the demonstration is played."""

    project: Project
    store: Store
    incoming: Path
    caller: Caller
    group: Group | None = None
    untold: dict[date, list[tuple[str, bool]]] = field(default_factory=dict)
    told: int = 0

    @classmethod
    def build(cls, directory: Path, first: date, last: date) -> Stage:
        """A new project in `directory` with the flights from `first` to `last` lying in front of its door.

        A demonstration that was played there before is removed; anything else is not: `InputError` HF201.
        """
        if directory.exists() and any(directory.iterdir()):
            if not (directory / MARK).exists():
                raise InputError(
                    "HF101",
                    f"{directory} is not empty and not from a demonstration",
                    state="nothing was touched",
                    next_command="holdfast demo --directory DIR",
                )
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MARK).touch()
        example = example_directory()
        for name in EXAMPLE_FILES:
            shutil.copy(example / name, directory / name)
        _cut(directory, first, last)
        environment = {
            "HOLDFAST_PORT": str(free_port(8080)),
            "HOLDFAST_PAGE_PORT": str(free_port(8081)),
        }
        os.environ.update(environment)
        project = Project.load(directory)
        caller = Caller(
            project.settings.host, project.settings.port, project.model.name, project.model.contract
        )
        return cls(project, project.store(), directory.resolve() / "incoming", caller)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Server, control loop and page run inside this context."""
        with group_of(self.project) as group:
            self.group = group
            yield
        self.group = None

    def load(self, feed: str, day: date) -> LoadResult:
        """Load one day of one feed, in this process."""
        return ingest.ingest(
            self.store,
            self.project.feed(feed),
            str(day),
            self.file(feed, day),
            now_us=now_us(),
            aggregates=self.project.model.aggregates,
        )

    def file(self, feed: str, day: date) -> Path:
        """Where the delivery of a day lies."""
        return self.incoming / feed / f"{day}.parquet"

    def killed_load(self, feed: str, day: date) -> int:
        """Load one day in a process that is killed (SIGKILL) in the middle: files written, nothing published yet."""
        program = (
            "import sys; from holdfast.store.durability import failpoints; "
            "failpoints.arm(failpoints.kill_at('ingest.staged')); from holdfast.cli import main; main()"
        )
        return subprocess.run(
            [sys.executable, "-c", program, *self._ingest_arguments(feed, day)],
            check=False,
            capture_output=True,
        ).returncode

    def resubmitted_load(self, feed: str, day: date, times: int) -> list[int]:
        """Load one day from `times` processes at once; returns their exit statuses."""
        command = [sys.executable, "-m", "holdfast", *self._ingest_arguments(feed, day)]
        with ThreadPoolExecutor(times) as pool:
            runs = pool.map(lambda _: subprocess.run(command, check=False, capture_output=True), range(times))
            return [run.returncode for run in runs]

    def delivered(self, feed: str, first: date, last: date) -> int:
        """How many rows the deliveries of a feed hold, from `first` to `last` inclusive."""
        paths = [self.file(feed, first + timedelta(days=n)) for n in range((last - first).days + 1)]
        return sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in paths)

    def loaded(self) -> Loaded:
        """What the tables of all feeds hold now, read row by row."""
        with self.store.ledger.read() as connection:
            version = batches.current_version(connection)
        rows = quarantined = twice = 0
        for feed in self.project.model.feeds:
            keys = data_files.read_rows(self.store, version, feed.name, feed.contract.key)
            rows += keys.height
            twice += keys.height - keys.n_unique()
            quarantined += data_files.read_rows(self.store, version, quarantine_table(feed.name)).height
        return Loaded(rows, quarantined, twice)

    def _ingest_arguments(self, feed: str, day: date) -> list[str]:
        return ["ingest", feed, str(self.file(feed, day)), "--project", str(self.project.directory)]

    def spoil_weather(self, day: date) -> None:
        """Replace the weather of `day` by the same in degrees Celsius; `mend_weather` undoes it."""
        delivery = self.file("weather", day)
        right = delivery.with_suffix(".right")
        shutil.copy(delivery, right)
        celsius = (pl.col("temperature") - 32) * 5 / 9
        pl.read_parquet(right).with_columns(celsius).write_parquet(delivery)

    def mend_weather(self, day: date) -> None:
        """The sender delivers the weather of `day` again, as it should have been."""
        self.file("weather", day).with_suffix(".right").replace(self.file("weather", day))

    def play_day(self, day: date) -> list[Violation]:
        """One day of traffic: its news are delivered, every flight is asked about, and yesterday's truth returns.

        What the deliveries of the day broke of the expectations of their feeds.
        """
        yesterday = day - timedelta(days=1)
        violations: list[Violation] = []
        for feed, when in (("departures", day), ("weather", day), ("flights", yesterday)):
            violations += self.load(feed, when).violations
        with self.store.ledger.read() as connection:
            version = batches.current_version(connection)
        self.caller.wait_for_tables(version, SETTLE_SECONDS)
        rows = pl.read_parquet(self.file("flights", day)).to_dicts()
        # Nobody knows a flight's delay before it has left.
        asked: list[Mapping[str, Any]] = [row | {"reported_delay": None} for row in rows]
        answers = self.caller.ask(asked, [row["flight_id"] for row in rows])
        self.untold[day] = [
            (answer, row["late"]) for answer, row in zip(answers, rows, strict=True) if answer is not None
        ]
        self._tell(yesterday)
        return violations

    def _tell(self, day: date) -> None:
        late_news = self.untold.pop(day, [])
        self.caller.tell(late_news, source="arrivals")
        self.told += len(late_news)

    def settle(self) -> None:
        """Wait until the control loop has joined every label that was told."""

        def joined() -> bool:
            taken, waiting = labels.count(self.store)
            return taken >= self.told and not waiting

        self.wait(joined, "the control loop to join the labels")

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Return once `holds`; a process that ended meanwhile is started again. `UnavailableError` when it takes too long."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not holds():
            if self.group is not None:
                self.group.revive()
            if time.monotonic() > deadline:
                raise UnavailableError(
                    "HF506",
                    f"waited {SETTLE_SECONDS:g} s in vain for {what}",
                    state=f"the logs are in {self.project.settings.root}",
                )
            time.sleep(0.02)


def example_directory() -> Path:
    """Where the flights example lies: inside the installed package, or in the source tree beside it."""
    package = Path(__file__).parents[1]
    for candidate in (package / "flights", package.parents[2] / "examples" / "flights"):
        if (candidate / "model.py").is_file():
            return candidate
    raise InputError("HF102", "the flights example is not part of this installation")


def free_port(preferred: int) -> int:
    """`preferred` when nothing listens there, else any free port of the loopback interface."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UnavailableError("HF507", "no port of 127.0.0.1 is free")


def _cut(directory: Path, first: date, last: date) -> None:
    """Let the example cut its deliveries, with what the user may have changed in it."""
    try:
        runpy.run_path(str(directory / "cut.py"))["cut"](directory / "incoming", first, last)
    except ModuleNotFoundError as error:
        raise InputError(
            "HF201",
            str(error),
            state="nothing was loaded",
            next_command="pip install '.[demo]' in the clone of Holdfast",
        ) from error
