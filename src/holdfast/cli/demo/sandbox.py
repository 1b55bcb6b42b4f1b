"""The sandbox of the demonstration: a project of its own, its processes, and the replayed days of 2013.

The clock of the replay is that of the flights. A value that became known at ten is in the online table with that time, so a
request of half past nine does not read it: training and replay follow the same as-of rule.
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
from holdfast.cli.demo.client import ModelClient
from holdfast.cli.processes.supervisor import OWN, Group
from holdfast.cli.project import Project, now_us
from holdfast.control.ingest import ingest
from holdfast.control.ingest.outcome import LoadResult
from holdfast.errors import InputError, UnavailableError, missing_extra
from holdfast.feeds import quarantine_table
from holdfast.records import Violation
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.files import data_files
from holdfast.store.telemetry import labels

MARK: Final = ".holdfast-demo"
EXAMPLE_FILES: Final = ("model.py", "bad_push.py", "daily_files.py")
SETTLE_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """Counts of rows in the tables, in quarantine, and with a duplicate key."""

    rows: int
    quarantined: int
    duplicates: int


@dataclass(slots=True)
class Sandbox:
    """The project and processes of the demonstration."""

    project: Project
    store: Store
    incoming: Path
    client: ModelClient
    group: Group | None = None
    pending_labels: dict[date, list[tuple[str, bool]]] = field(default_factory=dict)
    labels_sent: int = 0

    @classmethod
    def build(cls, directory: Path, first: date, last: date) -> Sandbox:
        """Create a project in `directory`, with the deliveries of flights from `first` to `last`.

        Removes an earlier demonstration. Raises `InputError` HF101 if the directory contains anything else.
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
        _split(directory, first, last)
        for name, preferred in (
            ("HOLDFAST_PORT", 8080),
            ("HOLDFAST_PAGE_PORT", 8081),
            ("HOLDFAST_CONTROL_PORT", 8082),
        ):
            os.environ[name] = str(free_port(int(os.environ.get(name, preferred))))
        project = Project.load(directory)
        settings, model = project.settings, project.model
        client = ModelClient(settings.host, settings.port, model.name, model.contract)
        return cls(project, project.store(), directory.resolve() / "incoming", client)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run server, control loop and page inside this context."""
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
            clock_us=now_us,
            aggregates=self.project.model.aggregates,
        )

    def file(self, feed: str, day: date) -> Path:
        """Return the file of a day's delivery."""
        return self.incoming / feed / f"{day}.parquet"

    def killed_load(self, feed: str, day: date) -> int:
        """Load one day in a process that is killed (SIGKILL) half way: files are written, nothing is published."""
        program = (
            "import sys; from holdfast.store.durability import failpoints as f; "
            "f.armed = f.kill_at('ingest.staged'); from holdfast.cli import main; main()"
        )
        command = [sys.executable, "-c", program, *self._ingest_arguments(feed, day)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    def resubmitted_load(self, feed: str, day: date, times: int) -> list[int]:
        """Load one day from `times` processes at once; return their exit statuses."""
        command = [*OWN, *self._ingest_arguments(feed, day)]
        with ThreadPoolExecutor(times) as pool:
            runs = pool.map(lambda _: subprocess.run(command, check=False, capture_output=True), range(times))
            return [run.returncode for run in runs]

    def delivered(self, feed: str, first: date, last: date) -> int:
        """Count the rows that a feed delivered from `first` to `last` inclusive."""
        paths = [self.file(feed, first + timedelta(days=n)) for n in range((last - first).days + 1)]
        return sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in paths)

    def loaded(self) -> Loaded:
        """Count the rows in the tables of all feeds, read row by row."""
        with self.store.ledger.read() as connection:
            version = batches.current_version(connection)
        rows = quarantined = duplicates = 0
        for feed in self.project.model.feeds:
            keys = data_files.read_rows(self.store, version, feed.name, feed.contract.key)
            rows += keys.height
            duplicates += keys.height - keys.n_unique()
            quarantined += data_files.read_rows(self.store, version, quarantine_table(feed.name)).height
        return Loaded(rows, quarantined, duplicates)

    def _ingest_arguments(self, feed: str, day: date) -> list[str]:
        return ["ingest", feed, str(self.file(feed, day)), "--project", str(self.project.directory)]

    def corrupt_weather(self, day: date) -> None:
        """Convert the weather of `day` to degrees Celsius; `repair_weather` undoes it."""
        delivery = self.file("weather", day)
        right = delivery.with_suffix(".right")
        shutil.copy(delivery, right)
        celsius = (pl.col("temperature") - 32) * 5 / 9
        pl.read_parquet(right).with_columns(celsius).write_parquet(delivery)

    def repair_weather(self, day: date) -> None:
        """Restore the correct weather of `day`, as the sender delivers it again."""
        self.file("weather", day).with_suffix(".right").replace(self.file("weather", day))

    def play_day(self, day: date) -> list[Violation]:
        """Play one day: load its deliveries, request a prediction for every flight, and send yesterday's labels.

        Returns the violations of the day's deliveries.
        """
        yesterday = day - timedelta(days=1)
        violations: list[Violation] = []
        for feed, when in (("departures", day), ("weather", day), ("flights", yesterday)):
            violations += self.load(feed, when).violations
        with self.store.ledger.read() as connection:
            version = batches.current_version(connection)
        self.client.wait_for_tables(version, SETTLE_SECONDS)
        rows = pl.read_parquet(self.file("flights", day)).to_dicts()
        # A flight's delay is unknown before it has left.
        requests: list[Mapping[str, Any]] = [row | {"reported_delay": None} for row in rows]
        predictions = self.client.predict(requests, [row["flight_id"] for row in rows])
        self.pending_labels[day] = [
            (prediction, row["late"])
            for prediction, row in zip(predictions, rows, strict=True)
            if prediction is not None
        ]
        self._send_labels(yesterday)
        return violations

    def _send_labels(self, day: date) -> None:
        due = self.pending_labels.pop(day, [])
        self.client.send_labels(due, source="arrivals")
        self.labels_sent += len(due)

    def settle(self) -> None:
        """Wait until the control loop has joined every label that was sent."""

        def joined() -> bool:
            with self.store.ledger.read() as connection:
                taken, waiting = labels.count(connection)
            return taken >= self.labels_sent and not waiting

        self.wait(joined, "the control loop to join the labels")

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until `holds`; restart processes that ended. Raises `UnavailableError` HF506 after a deadline."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not holds():
            if self.group is not None:
                self.group.revive()
            if time.monotonic() > deadline:
                raise UnavailableError(
                    "HF506",
                    f"timed out after {SETTLE_SECONDS:g} s: {what}",
                    state=f"the logs are in {self.project.settings.root}",
                )
            time.sleep(0.02)


def example_directory() -> Path:
    """Return the directory of the flights example, in the installed package or in the source tree."""
    package = Path(__file__).parents[1]
    for candidate in (package / "flights", package.parents[2] / "examples" / "flights"):
        if (candidate / "model.py").is_file():
            return candidate
    raise InputError("HF102", "the flights example is not part of this installation")


def free_port(preferred: int) -> int:
    """Return `preferred` if it is free, else any free port of the loopback interface."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UnavailableError("HF507", "no port of 127.0.0.1 is free")


def _split(directory: Path, first: date, last: date) -> None:
    """Run the example's script that splits the flights into daily deliveries."""
    try:
        runpy.run_path(str(directory / "daily_files.py"))["split"](directory / "incoming", first, last)
    except ModuleNotFoundError as error:
        raise missing_extra("demo", "the demonstration", state="nothing was loaded") from error
