"""The commands besides loading that change a store, each with a store on which it has something to do.

A command is killed, run again, and then compared with one that ran undisturbed: rows, ledger and files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert, select

from holdfast.control.collect import collector
from holdfast.control.maintenance import vacuum
from holdfast.control.maintenance.compact import compact
from holdfast.control.rollout import reconcile
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.store.db import leases, schema
from holdfast.store.durability import failpoints
from holdfast.store.files import blobs, data_files
from holdfast.store.serving import servers
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, frame
from holdfast.store.serving.servers import Server
from tests.support import backout_world
from tests.support.queries import write
from tests.support.rollout_world import World

NOW_US: Final = backout_world.NOW_US
LATER_US: Final = NOW_US + 86_400_000_000
_OF_THE_RUN: Final = {"path", "sha256", "bytes"}
"""Columns that differ from run to run: files have random names, and compressed bytes are not promised."""


@dataclass(frozen=True)
class Command:
    """`build` makes the store in a directory, `run` is the command; `points` are those on its way."""

    name: str
    build: Callable[[Path], None]
    run: Callable[[Store], None]
    points: tuple[str, ...]


def _loaded(home: Path) -> Store:
    store = Store.open(home / "store")
    for hour in (0, 1, 2, 3):
        for feed in (backout_world.FLIGHTS, backout_world.WEATHER):
            backout_world.load(store, home, feed, hour)
    return store


def _to_compact(home: Path) -> None:
    store = _loaded(home)
    write(store, snapshots.create, store.root, ["flights", "weather"], contract_hash="c", now_us=NOW_US)
    backout_world.take_out(store, backout_world.FLIGHTS, 2)
    store.ledger.close()


def _compact(store: Store) -> None:
    compact(store, now_us=NOW_US)


def _to_vacuum(home: Path) -> None:
    """Old files that nothing needs, others that a pinned snapshot has, and a snapshot that goes."""
    store = _loaded(home)
    write(store, snapshots.create, store.root, ["flights"], contract_hash="c", now_us=NOW_US)
    compact(store, ["flights"], now_us=NOW_US)
    snapshot = write(store, snapshots.create, store.root, ["weather"], contract_hash="c", now_us=NOW_US)
    _version(store, snapshot.snapshot, 1)
    compact(store, ["weather"], now_us=NOW_US)
    backout_world.load(store, home, backout_world.ALONE, 0)
    store.ledger.close()


def _vacuum(store: Store) -> None:
    keep = timedelta(seconds=1)
    shown = vacuum.plan(store, now_us=LATER_US, keep=keep, newest=0)
    if shown.files or shown.snapshots:
        vacuum.vacuum(store, shown, now_us=LATER_US, keep=keep, newest=0)


def _to_back_out(home: Path) -> None:
    """A batch in a group, in single files and a compacted one, was trained on by a version that answers users."""
    store = _loaded(home)
    compact(store, ["weather"], now_us=NOW_US)
    world = _rollout_world(store)
    snapshot = write(store, snapshots.create, store.root, ["flights"], contract_hash="c", now_us=NOW_US)
    world.promote(world.add_version())
    world.promote(world.add_version(snapshot=snapshot.snapshot))
    store.ledger.close()


def _execute_backout(store: Store) -> None:
    backout_world.take_out(store, backout_world.FLIGHTS, 1)


def _to_collect(home: Path) -> None:
    store = Store.open(home / "store")
    directory = store.root / "log" / "s1"
    directory.mkdir(parents=True)
    for segment in (1, 2, 3):
        with (directory / f"{segment:08d}.log").open("wb") as file:
            for number in range(1, 41):
                name = f"s1-{segment}-{number}"
                timestamp = NOW_US + number
                response = PredictionRecord(
                    name, timestamp, NOW_US, b"u", "champion", "v1", "", None, "ok", 9, [0.5], [[1.0]]
                )
                file.write(
                    frame(response) + frame(FeedbackRecord(f"{name}/0", float(number % 2), "t", NOW_US))
                )
    store.ledger.close()


def _lease(store: Store) -> leases.Lease:
    """The control loop's lease, taken over from the process that was killed with it and has not renewed it for two seconds."""
    requested = {"holder": str(os.getpid()), "duration_us": 1}
    with store.ledger.write() as connection:
        lease = leases.acquire(connection, "control-m", **requested, now_us=LATER_US)
    if isinstance(lease, leases.Sighting):
        with store.ledger.write() as connection:
            lease = leases.acquire(
                connection, "control-m", **requested, now_us=LATER_US + 2_000_000, seen=lease
            )
    assert not isinstance(lease, leases.Sighting)
    return lease


def _collect(store: Store) -> None:
    with store.ledger.write() as connection:
        servers.announce(
            connection, Server("s1", "m", "http://127.0.0.1:1", store.root / "log" / "s1", NOW_US)
        )
    lease = _lease(store)
    collector.collect(store, "m", lease, now_us=NOW_US)
    collector.join(store, "m", lease, now_us=NOW_US)


class _Soaked(World):
    """Versions whose files are there, so that `verify` has nothing to find."""

    def add_version(self, role: str = "candidate", state: str = "qualified", snapshot: str = "s") -> str:
        self.made += 1
        return _version(self.store, snapshot, self.made, role, state)


def _version(
    store: Store, snapshot: str, number: int, role: str = "candidate", state: str = "qualified"
) -> str:
    data = f"model {number}".encode()
    name = f"v{number}-00000000"
    values = {
        "version": name,
        "model": "m",
        "number": number,
        "digest": blobs.put(store.root, data),
        "bytes": len(data),
        "snapshot": snapshot,
        "contract_hash": "c",
        "features_hash": "f",
        "learner": "l",
        "role": role,
        "state": state,
        "created_at_us": 1,
    }
    with store.ledger.write() as connection:
        connection.execute(insert(schema.versions).values(values))
    return name


def _rollout_world(store: Store) -> _Soaked:
    return _Soaked.open(store.root)


def _to_decide(decision: str) -> Callable[[Path], None]:
    def build(home: Path) -> None:
        world = _Soaked.open(home / "store")
        world.promote(world.add_version())
        world.begin(world.add_version())
        world.champion_responses()
        if decision != "begin":
            world.reconcile()
            world.traffic(failing=25 if decision == "give up" else 0)
        world.store.ledger.close()

    return build


def _decide(store: Store) -> None:
    lease = _lease(store)
    reconcile.reconcile(store, "m", lease, now_us=NOW_US + 60_000_000)


_COMPACT: Final = ("files.created", "files.written", "files.synced", *failpoints.COMPACT_POINTS[:3])
COMMANDS: Final = (
    Command("compact", _to_compact, _compact, _COMPACT),
    Command("vacuum", _to_vacuum, _vacuum, failpoints.COMPACT_POINTS[3:]),
    Command("back out", _to_back_out, _execute_backout, failpoints.BACKOUT_POINTS),
    Command("collect", _to_collect, _collect, failpoints.COLLECT_POINTS),
    *(
        Command(f"decide: {decision}", _to_decide(decision), _decide, failpoints.ROLLOUT_POINTS)
        for decision in ("begin", "go on", "give up")
    ),
)
BY_NAME: Final[Mapping[str, Command]] = {command.name: command for command in COMMANDS}


def run(task: dict[str, Any]) -> None:
    """Do the command of `task` in its store."""
    store = Store.open(Path(task["root"]))
    BY_NAME[task["command"]].run(store)


def end_state(store: Store) -> dict[str, Any]:
    """Everything that a command may leave: rows as they are read now and in each snapshot, and the ledger's rows."""
    state: dict[str, Any] = {"rows": backout_world.readable(store)}
    with store.ledger.read() as connection:
        for table in schema.METADATA.sorted_tables:
            if table.name in ("leases", "servers", "events"):
                continue
            columns = [column for column in table.columns if column.name not in _OF_THE_RUN]
            state[table.name] = sorted(repr(tuple(row)) for row in connection.execute(select(*columns)))
        reported = select(schema.events.c.kind, schema.events.c.subject, schema.events.c.explanation)
        state["events"] = sorted(repr(tuple(row)) for row in connection.execute(reported))
        gone = select(
            schema.vacuumed_snapshots.c.snapshot
        )  # no longer to be read, and each in the ledger's rows above
        snapshots = select(schema.snapshot_tables).where(schema.snapshot_tables.c.snapshot.not_in(gone))
        found = connection.execute(snapshots).all()
    for snapshot in found:
        rows = data_files.read_rows(store, snapshot.snapshot, snapshot.table_name).rows()
        digest = hashlib.sha256(repr(rows).encode()).hexdigest()
        state[f"rows of {snapshot.table_name} in {snapshot.snapshot}"] = (len(rows), digest)
    return state
