"""How long each drill takes on a store with a million recorded answers, and how much memory.

    python -m benchmarks.drills [--answers 1000000] [--directory PATH] [--kinds KIND ...]

A project as `holdfast init` makes it, with a trained version that serves. Its answers and a label for each are written by
the server's log writer, over the thirty days before now, and collected and joined by the control loop's own functions: the
ledger holds a row for each label and each outcome. A server runs meanwhile, because the rollback drill needs one. Then
`holdfast drill` runs all of them as a user types it. Seconds are those of the drill's own row; memory is the largest of its
process and of its servers.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from benchmarks.command import Command
from holdfast.contract import Contract
from holdfast.contract.row.synthetic_rows import synthetic_rows
from holdfast.control import loop
from holdfast.control.collect import collector
from holdfast.records import TrafficPlan
from holdfast.rollout.model.drills import DrillKind
from holdfast.store import Store
from holdfast.store.db import leases, schema
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.rollout import traffic_plans
from holdfast.store.serving import log_directory, servers
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, frame
from holdfast.train.artifact import open_version
from tests.support.project import Project

MODEL = "parcels"
DAYS = 30
AT_ONCE = 500
"""Answers that are handed to the log writer together."""


def now_us() -> int:
    return time.time_ns() // 1000


def lay(directory: Path) -> tuple[Project, Store]:
    """A project with a version that serves, and its heuristic to return to."""
    project = Project(directory)
    project.run("init", "--name", MODEL)
    project.run("ingest", "rows", f"{MODEL}.csv", "--batch", "all")
    project.run("train")
    store = Store.open(directory / ".holdfast")
    with store.ledger.write() as connection:
        champion = versions.newest(connection, MODEL, role="candidate")
        other = versions.heuristic_of(connection, champion)
        plan = TrafficPlan(MODEL, 0, champion.version, previous=other.version, fallback=other.version)
        traffic_plans.append(connection, plan, now_us=now_us())
    return project, store


def write_log(store: Store, count: int) -> None:
    """`count` answers and their labels, by the log writer of a server that has ended since."""
    with store.ledger.read() as connection:
        champion = versions.champion(connection, MODEL)
    contract = Contract.from_json(open_version(blobs.get(store.root, champion.digest))[1].contract_json)
    names = [column.name for column in contract.request_columns]
    rows = [[row[name] for name in names] for row in synthetic_rows(contract, 1_000)]
    claimed = log_directory.claim(store.root / log_directory.LOGS_DIRECTORY, MODEL)
    gone = servers.Server(claimed.server, MODEL, "http://127.0.0.1:9", claimed.directory, now_us())
    with store.ledger.write() as connection:
        servers.announce(connection, gone)
    writer = LogWriter(claimed.directory, claimed.server, MODEL)
    step_us = DAYS * 86_400_000_000 // count
    first_us = now_us() - count * step_us
    for begin in range(0, count, AT_ONCE):
        frames = []
        for number in range(begin, min(begin + AT_ONCE, count)):
            at_us = first_us + number * step_us
            name = writer.next_id()
            answer = PredictionRecord(
                name, at_us, at_us, b"%d" % number, "champion", champion.version, "", None, "ok", 180,
                [0.1 + 0.8 * (number % 97) / 97], [rows[number % len(rows)]],
            )  # fmt: skip
            label = FeedbackRecord(f"{name}/0", float(number % 3 == 0), "benchmark", at_us + step_us)
            frames += [frame(answer), frame(label)]
        if not writer.write(frames):
            raise SystemExit("the log writer dropped an answer")
    writer.close()
    claimed.release()


def collect(store: Store) -> None:
    """What the control loop does with the log, until nothing is left."""
    lease = loop.take_lease(
        store,
        f"control-{MODEL}",
        holder="benchmark",
        duration_us=loop.LEASE_US,
        clock_us=now_us,
        within_seconds=10,
    )
    if lease is None:
        raise SystemExit("the lease of the control loop is taken")
    while collector.collect(store, MODEL, lease, now_us=now_us()):
        pass
    while collector.join(store, MODEL, lease, now_us=now_us()):
        pass
    with store.ledger.write() as connection:
        leases.release(connection, lease)


def drilled(project: Project, kinds: Sequence[str]) -> tuple[list[dict[str, Any]], float]:
    """What `holdfast drill` reports of these kinds, and its seconds."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "drill", *kinds, "--json"],
        cwd=project.directory,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.perf_counter() - began
    if not done.stdout.strip():
        sys.exit(done.stderr[-4000:])
    reported: list[dict[str, Any]] = json.loads(done.stdout)["drills"]
    return reported, taken


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("benchmarks.drills", __doc__)
    command.size("--answers", 1_000_000, 1_000, help="recorded answers, each with a label")
    command.size("--kinds", tuple(DrillKind), ("restore",), type=DrillKind, nargs="+", help="kinds of drills")
    command.option(
        "--directory", type=Path, help="where the project is made, and kept; used again if it is there"
    )
    options = command.parse(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-drills-")
        if not options.directory
        else nullcontext() as made
    ):
        directory = Path(made or options.directory).resolve()
        directory.mkdir(exist_ok=True)
        began = time.perf_counter()
        is_new = not (directory / ".holdfast").exists()
        if not is_new:
            project, store = Project(directory), Store.open(directory / ".holdfast")
        else:
            project, store = lay(directory)
            write_log(store, options.answers)
            print(f"{options.answers:,} answers are written: {time.perf_counter() - began:.1f} s", flush=True)
            collect(store)
        built = time.perf_counter() - began
        with store.ledger.read() as connection:
            counted = {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (schema.outcomes, schema.labels, schema.prediction_files, schema.request_counts)
            }
        store.ledger.close()
        size = sum(path.stat().st_size for path in (directory / ".holdfast").rglob("*") if path.is_file())
        print(f"collected and joined: {built:.1f} s; {counted}; {size / 2**20:,.0f} MiB", flush=True)
        with project.running("serve"):
            project.wait_for_server(MODEL)
            found, taken = drilled(project, options.kinds)
    figures: dict[str, object] = {
        "answers": options.answers,
        "store_mib": round(size / 2**20),
        "build_seconds": round(built, 1) if is_new else None,
        "drill_seconds": round(taken, 1),
        "most_mib_of_a_process": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        **{f"rows_of_{name}": count for name, count in counted.items()},
        "drills": {
            each["kind"]: {
                "verdict": each["verdict"],
                "seconds": round((each["ended_at_us"] - each["started_at_us"]) / 1e6, 1),
                "explanation": each["explanation"],
            }
            for each in found
        },
    }
    return command.finish(figures, passed=all(each["verdict"] == "pass" for each in found))


if __name__ == "__main__":
    sys.exit(main())
