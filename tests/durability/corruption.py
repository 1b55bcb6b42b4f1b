"""The corruption matrix: every kind of file that the store has, damaged in every way, must be found, and no wrong row read.

    python -m tests.durability.corruption --seed 7

prints the table: for each kind and each damage how often it was done, how often found by `verify` or refused when the store
was opened, and how many wrong rows were read meanwhile.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.command import Command
from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.compact import compact
from holdfast.control.maintenance.verify import verify
from holdfast.errors import HoldfastError
from holdfast.records import TrafficPlan, sha256_hex
from holdfast.serve.follower.local_copy import LocalCopy, LocalFeature, LocalState, LocalVersion
from holdfast.store import Store
from holdfast.store.backout import tombstones
from holdfast.store.catalog import batches, delta, snapshots
from holdfast.store.db import schema
from holdfast.store.files import blobs, data_files, staging
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import PredictionRecord, ShadowRecord, frame
from holdfast.store.telemetry import collected_log
from holdfast.store.telemetry.collected_log import PREDICTIONS, SHADOWS
from tests.support import loader
from tests.support.queries import collected, write

DAMAGES = ("empty", "half", "bit", "missing", "swapped")
TABLES = ("flights", "flights__quarantine")
NOW_US = 1_700_000_000_000_000
Rows = dict[str, list[tuple[object, ...]]]
"""The rows of every table."""


@dataclass(frozen=True)
class Case:
    """One kind of file: how to find one in a store, and another of its kind to swap it with."""

    kind: str
    pick: Callable[[Path], Path]
    other: Callable[[Path], Path]


@dataclass
class Cell:
    """What came of one damage to one kind of file."""

    done: int = 0
    found: int = 0
    wrong_rows: int = 0


def build(home: Path, *, compacted: bool) -> Path:
    """A store with every kind of file; its root."""
    store = Store.open(home / "store")
    for day in range(4):
        ingest(store, loader.FEED, f"day-{day}", _delivery(home, day), now_us=NOW_US + day)
    if compacted:
        compact(store, ["flights"], now_us=NOW_US)
        for day in (4, 5):
            ingest(store, loader.FEED, f"day-{day}", _delivery(home, day), now_us=NOW_US + day)
        compact(store, ["flights"], now_us=NOW_US)
    snapshot = write(
        store, snapshots.create, store.root, ["flights"], contract_hash=loader.CONTRACT.hash, now_us=NOW_US
    )
    write(store, snapshots.create, store.root, ["flights"], contract_hash="0" * 64, now_us=NOW_US)
    for rows in (2, 3):
        _version(store, snapshot.snapshot, rows)
    delta.export(store, snapshot.snapshot, now_us=NOW_US)
    _log(store)
    _predictions(store)
    _shadows(store)
    _local_copies(store)
    _tombstones(store)
    store.ledger.close()
    return store.root


def _delivery(home: Path, day: int) -> Path:
    times = [datetime(2013, 1, 1 + day, tzinfo=UTC) + timedelta(minutes=row) for row in range(40)]
    path = home / f"day-{day}.parquet"
    pl.DataFrame(
        {
            "id": [1000 * day + row for row in range(40)],
            "origin": ["JFK"] * 40,
            "delay": [9e9 if row == 3 else float(row) for row in range(40)],
            "at": times,
            "left": times,
        }
    ).write_parquet(path)
    return path


def _version(store: Store, snapshot: str, number: int) -> None:
    data = f"model {number}".encode() * 50
    digest = blobs.put(store.root, data)
    values = {
        "version": f"v{number}-{digest[:8]}",
        "model": "m",
        "number": number,
        "digest": digest,
        "bytes": len(data),
        "snapshot": snapshot,
        "contract_hash": "c",
        "features_hash": "f",
        "learner": "l",
        "role": "candidate",
        "state": "registered",
        "created_at_us": NOW_US,
    }
    with store.ledger.write() as connection:
        connection.execute(insert(schema.versions).values(values))


def _log(store: Store) -> None:
    for server in ("s1", "s2"):
        writer = LogWriter(store.root / "log" / server, server, "m")
        for _ in range(20):
            record = PredictionRecord(
                writer.next_id(), NOW_US, NOW_US, b"u", "champion", "v1", "", None, "ok", 9, [0.5], [[1.0]]
            )
            shadow = ShadowRecord(record.id, NOW_US, b"u", 1, "v2", "ok", 9, 9, [0.4], "v1", "ok", 9, [0.5])
            writer.write([frame(record), frame(shadow)])
        writer.close()
        size = (store.root / "log" / server / "00000001.log").stat().st_size
        values = {"server": server, "segment": 1, "collected_bytes": size // 2, "predictions": 10}
        with store.ledger.write() as connection:
            connection.execute(
                insert(schema.log_positions).values(values | {"feedback": 0, "rejected_labels": 0})
            )


def _predictions(store: Store) -> None:
    for segment in (1, 2):
        row = {name: [None] for name in PREDICTIONS.schema}
        row |= {"prediction": [f"s9-{segment}-1/0"], "at_us": [NOW_US], "probability": [0.25 * segment]}
        with staging.staged(store.root) as stage:
            made = collected_log.write(
                stage,
                PREDICTIONS,
                pl.DataFrame(row, schema=PREDICTIONS.schema),
                model="m",
                server="s9",
                segment=segment,
                numbers=(1, 1),
            )
            stage.sync()
            with store.ledger.write() as connection:
                values = {"server": "s9", "segment": segment, "collected_bytes": 9, "predictions": 1}
                connection.execute(
                    insert(schema.log_positions).values(values | {"feedback": 0, "rejected_labels": 0})
                )
                collected_log.register(connection, PREDICTIONS, made)


def _shadows(store: Store) -> None:
    for number in (1, 2):
        row = {name: [None] for name in SHADOWS.schema}
        row |= {"prediction": [f"s9-{number}-1/0"], "at_us": [NOW_US], "probability": [0.25 * number]}
        with staging.staged(store.root) as stage:
            made = collected_log.write(
                stage,
                SHADOWS,
                pl.DataFrame(row, schema=SHADOWS.schema),
                model="m",
                server="s9",
                segment=number,
            )
            stage.sync()
            with store.ledger.write() as connection:
                collected_log.register(connection, SHADOWS, made)


def _local_copies(store: Store) -> None:
    for model in ("m", "n"):
        data = f"weights of {model}".encode() * 20
        digest = sha256_hex(data)
        copy = LocalCopy(store.root / "serve" / model)
        plan = TrafficPlan(model, 0, "v1", None, 0, None, None, None)
        copy.save(LocalState(plan, {"v1": LocalVersion(digest, 1, 1)}, 0), lambda _, data=data: data)
        copy.save_online([LocalFeature("a", "e", 1, 2.0 if model == "m" else 3.0)], 1)


def _tombstones(store: Store) -> None:
    """Two loads of another feed that were backed out long ago, of which only batch and tombstone are left."""
    with store.ledger.write() as connection:
        for number in (1, 2):
            load = {"feed": "old", "batch": f"b{number}", "epoch": 0}
            facts = {"digest": f"{number:064d}", "contract_hash": "c", "state": "backed_out", "source": "x"}
            counts = {"rows_received": 1, "rows_loaded": 1, "rows_quarantined": 0, "table_version": 1}
            connection.execute(insert(schema.batches).values(**load, **facts, **counts))
            tombstones.record(store.root, connection, [("old", f"b{number}", 0)], backout=1, at_us=1)


def _nth(pattern: str, position: int) -> Callable[[Path], Path]:
    return lambda root: sorted(root.glob(pattern))[position]


def _of_table(table: str, position: int, *, loads: int = 1) -> Callable[[Path], Path]:
    """A file that the ledger names in `table` and that holds so many loads at least."""

    def pick(root: Path) -> Path:
        store = Store.open(root)
        with store.ledger.read() as connection:
            found = data_files.entries(connection, table, batches.current_version(connection))
            held = schema.file_row_groups
            counts = [connection.execute(held.select().filter_by(path=fact.path)).all() for fact in found]
        store.ledger.close()
        chosen = [fact.path for fact, parts in zip(found, counts, strict=True) if len(parts) >= loads]
        return root / chosen[position]

    return pick


def _predictions_file(position: int) -> Callable[[Path], Path]:
    def pick(root: Path) -> Path:
        store = Store.open(root)
        with store.ledger.read() as connection:
            named = [file.path for file in collected(connection, PREDICTIONS)]
        store.ledger.close()
        return root / named[position]

    return pick


def _shadow_file(position: int) -> Callable[[Path], Path]:
    def pick(root: Path) -> Path:
        store = Store.open(root)
        with store.ledger.read() as connection:
            named = [file.path for file in collected(connection, SHADOWS)]
        store.ledger.close()
        return root / named[position]

    return pick


CASES = (
    Case("row file", _of_table("flights", 0), _of_table("flights", 1)),
    Case("quarantine file", _of_table("flights__quarantine", 0), _of_table("flights__quarantine", 1)),
    Case("model", _nth("blobs/*/*", 0), _nth("blobs/*/*", 1)),
    Case("prediction file", _predictions_file(0), _predictions_file(1)),
    Case("shadow file", _shadow_file(0), _shadow_file(1)),
    Case("prediction log", _nth("log/s1/*.log", 0), _nth("log/s2/*.log", 0)),
    Case("local plan", _nth("serve/m/plan.json", 0), _nth("serve/n/plan.json", 0)),
    Case("local model", _nth("serve/m/*.onnx", 0), _nth("serve/n/*.onnx", 0)),
    Case(
        "commit of an exported table", _nth("exported/*/_delta_log/*.json", 0), _nth("serve/n/plan.json", 0)
    ),
    Case(
        "checksums of an exported table", _nth("exported/*/_holdfast.json", 0), _nth("serve/n/plan.json", 0)
    ),
    Case("link of an exported table", _nth("exported/*/*.parquet", 0), _nth("exported/*/*.parquet", 1)),
    Case("tombstone", _nth("tombstones/*.json", 0), _nth("tombstones/*.json", 1)),
    Case("snapshot manifest", _nth("snapshots/*.json", 0), _nth("snapshots/*.json", 1)),
    Case("contract copy", _nth("contracts/*.json", 0), _nth("tombstones/*.json", 0)),
)
COMPACTED = Case("compacted file", _of_table("flights", 0, loads=2), _of_table("flights", -1))
LEDGER = Case("ledger", _nth("ledger.db", 0), lambda root: root.parent / "other" / "ledger.db")
CHECKSUMS = Case(
    "ledger's page checksums",
    _nth("ledger.db-checksums", 0),
    lambda root: root.parent / "other" / "ledger.db-checksums",
)


def damage(target: Path, other: Path, how: str, chance: random.Random) -> None:
    """Damage `target`; what is published as a hard link is replaced and not written through."""
    data = target.read_bytes()
    match how:
        case "empty":
            new: bytes | None = b""
        case "half":
            new = data[: len(data) // 2]
        case "bit":
            place, bit = chance.randrange(len(data)), 1 << chance.randrange(8)
            new = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
        case "missing":
            new = None
        case _:
            new = other.read_bytes()
            if target.parent == other.parent or target.parents[1] == other.parents[1]:
                other.unlink()
                other.write_bytes(data)
    target.unlink()
    if new is not None:
        target.write_bytes(new)


def read_rows(root: Path) -> Rows:
    """Every row of every table; raises as the store does."""
    store = Store.open(root)
    try:
        with store.ledger.read() as connection:
            version = batches.current_version(connection)
        return {table: data_files.read_rows(store, version, table).rows() for table in TABLES}
    finally:
        store.ledger.close()


def is_found(root: Path, *, has_checksums: bool = False) -> bool:
    """Return True if `verify` finds something or the store does not open; with `has_checksums`, also without checksums."""
    try:
        store = Store.open(root)
        try:
            outcome = verify(store)
            return bool(outcome.findings) or outcome.checksums_verified < has_checksums
        finally:
            store.ledger.close()
    except HoldfastError:
        return True


def try_one(
    pristine: Path, before: Rows, case: Case, how: str, chance: random.Random, home: Path, cell: Cell
) -> None:
    """Damage one file of a copy of `pristine`, whose rows are `before`, read and verify it."""
    root = home / "copy"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(pristine, root)
    damage(case.pick(root), case.other(root), how, chance)
    cell.done += 1
    if case is CHECKSUMS and how == "missing":
        cell.found += is_found(root, has_checksums=True)  # reading would write new ones
        return
    wrong = wrong_rows(root, before)
    cell.wrong_rows += wrong
    cell.found += is_found(root, has_checksums=case is CHECKSUMS)


def wrong_rows(root: Path, before: Rows) -> int:
    """Rows that are read and were never there. A row that is not there any more is no wrong row: that it is missing must be
    found.
    """
    try:
        after = read_rows(root)
    except (HoldfastError, SQLAlchemyError):
        return 0
    known = {table: {repr(tuple(row)) for row in rows} for table, rows in before.items()}
    return sum(repr(row) not in known[table] for table, rows in after.items() for row in rows)


def matrix(home: Path, seed: int, *, bits: int = 3) -> dict[tuple[str, str], Cell]:
    """Every kind, every damage; a bit is flipped at `bits` places of each kind."""
    chance = random.Random(seed)
    plain, compacted, other = home / "plain", home / "compacted", home / "other"
    for directory in (plain, compacted, other):
        directory.mkdir()
    roots = {False: build(plain, compacted=False), True: build(compacted, compacted=True)}
    rows = {root: read_rows(root) for root in roots.values()}
    for name in ("ledger.db", "ledger.db-checksums"):
        shutil.copy(roots[True] / name, other / name)
    cells: dict[tuple[str, str], Cell] = {}
    for case, root in [
        *((case, roots[False]) for case in (*CASES, LEDGER, CHECKSUMS)),
        (COMPACTED, roots[True]),
    ]:
        for how in DAMAGES:
            cell = cells.setdefault((case.kind, how), Cell())
            for _ in range(bits if how == "bit" else 1):
                try_one(root, rows[root], case, how, chance, home, cell)
    logged = home / "logged"
    logged.mkdir()
    before = build_log(logged)
    for how in DAMAGES:
        cell = cells.setdefault(("write-ahead log", how), Cell())
        for _ in range(bits if how == "bit" else 1):
            try_log(logged, before, how, chance, cell)
    return cells


def build_log(home: Path) -> Rows:
    """Make a store whose write-ahead log holds all that it loaded, as a killed loader leaves it, and another such log."""
    before: Rows = {}
    for name, days in (("rival", 1), ("store", 3)):
        store = Store.open(home / name)
        with store.ledger.read() as open_connection:
            for day in range(days):
                ingest(store, loader.FEED, f"day-{day}", _delivery(home, day), now_us=NOW_US + day)
            open_connection.rollback()
            before = {table: data_files.read_rows(store, days, table).rows() for table in TABLES}
            shutil.copytree(store.root, home / f"killed-{name}")
        store.ledger.close()
    return before


def try_log(home: Path, before: Rows, how: str, chance: random.Random, cell: Cell) -> None:
    """Damage the write-ahead log that a killed loader left."""
    root, rival = home / "copy", home / "rival-wal"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(home / "killed-store", root)
    shutil.copy(home / "killed-rival" / "ledger.db-wal", rival)
    (root / "ledger.db-shm").unlink(missing_ok=True)
    damage(root / "ledger.db-wal", rival, how, chance)
    cell.done += 1
    cell.wrong_rows += wrong_rows(root, before)
    cell.found += is_found(root)


def lines(cells: dict[tuple[str, str], Cell]) -> Iterator[str]:
    """The table as text."""
    yield f"{'kind':18}" + "".join(f"{how:>12}" for how in DAMAGES) + "  wrong rows"
    for kind in dict.fromkeys(kind for kind, _ in cells):
        row = [cells[kind, how] for how in DAMAGES]
        counts = "".join(f"{cell.found:>8}/{cell.done:<3}" for cell in row)
        yield f"{kind:18}{counts}  {sum(cell.wrong_rows for cell in row)}"


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.durability.corruption", __doc__)
    command.option("--seed", type=int, default=7)
    command.size("--bits", 20, 1, help="bits to flip, one after the other, in each kind of file")
    options = command.parse(arguments)
    with tempfile.TemporaryDirectory(prefix="holdfast-matrix-") as directory:
        cells = matrix(Path(directory), options.seed, bits=options.bits)
    done, found, wrong = (
        sum(getattr(cell, name) for cell in cells.values()) for name in ("done", "found", "wrong_rows")
    )
    sys.stdout.write("\n".join(lines(cells)) + "\n")
    by_kind: dict[str, dict[str, str]] = {}
    for (kind, how), cell in cells.items():
        by_kind.setdefault(kind, {})[how] = f"{cell.found} of {cell.done}"
    figures = {"damages": done, "found": found, "wrong_rows": wrong, "seed": options.seed, "by_kind": by_kind}
    return command.finish(figures, passed=found == done and not wrong)


if __name__ == "__main__":
    sys.exit(main())
