"""Makes a lost ledger again from the footers of the files, as far as they prove it, and says what they do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any, Final

from holdfast.control.verify import Step
from holdfast.errors import HoldfastError
from holdfast.store import Store, blobs, derived, events, mending, recovery, testimony, tombstones
from holdfast.store.adopt import Adopted, adopt
from holdfast.store.ledger import Transaction, sqlite_url
from holdfast.store.testimony import Choice, LoadKey, Witness
from holdfast.store.tombstones import Tombstone
from holdfast.tables import TableCut, snapshot_name
from holdfast.train.artifact import VersionMetadata, read_metadata

NOT_IN_FILES: Final = (
    "which expectations a batch broke, and what was accepted: each feed is suspect until a person accepts it",
    "gate results, rollouts and traffic plans: versions are registered anew and have to be qualified again",
    "labels, outcomes and usage whose logs are gone; what the logs still hold is collected again",
)
"""What no file says, and no recovery brings back."""

_MOST_TABLES: Final = 5


@dataclass(slots=True)
class Recovered:
    """What was made again, and by name what could not be."""

    batches: int = 0
    backed_out: int = 0
    rows: int = 0
    files: int = 0
    contracts: int = 0
    snapshots: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    prediction_files: int = 0
    unproved: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    old_ledger: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The outcome as plain JSON."""
        return asdict(self) | {"not_in_files": list(NOT_IN_FILES)}


@dataclass(slots=True)
class _Cuts:
    """Snapshots whose names the files prove, and the table versions that make them so."""

    proved: dict[str, tuple[int, str, tuple[TableCut, ...]]] = field(default_factory=dict)
    numbers: dict[LoadKey, int] = field(default_factory=dict)


def recover(
    root: Path, *, now_us: int, ledger_url: str | None = None, progress: Step | None = None
) -> Recovered:
    """Make a new ledger for the files in `root`; stop everything that uses the store first.

    Parameters
    ----------
    now_us
        The moment, microseconds since 1970 UTC.
    ledger_url
        An empty database; None for a new SQLite file inside `root`, the old one being set aside.
    progress
        Told (files read, files in all).

    Guarantee: a row is readable afterwards only if every file of its load is whole and its load has no tombstone, and
    then once. What was not taken over lies in `aside`, not removed. The new ledger is one transaction: killed before its
    end, it leaves an empty one that nothing opens, and may be run again.
    """
    done = Recovered()
    found = _hear(root, done, progress)
    choice = testimony.choose(found)
    stones = _tombstones(root, done)
    models = _models(root, done)
    cuts = _cuts(choice, stones, models)
    if ledger_url is None:
        done.old_ledger = mending.set_ledger_aside(root, now_us)
    store = Store.open(root, ledger_url or sqlite_url(root / "ledger.db"), recovering=True)
    try:
        with store.ledger.write() as connection:
            recovery.must_be_empty(connection)
            adopted = adopt(connection, root, choice, stones, now_us=now_us, numbers=cuts.numbers)
            done.contracts = recovery.count_contracts(connection)
            _snapshots(connection, cuts, models, done, now_us)
            _versions(connection, root, models, done, now_us)
            done.prediction_files = recovery.take_predictions(connection, root, found)
            _count(done, choice, adopted)
            _tell(connection, done, now_us)
        named = recovery.named_files(store)
    finally:
        store.ledger.close()
    done.set_aside += choice.left
    done.set_aside += [each.path for each in found if each.predictions is not None and each.path not in named]
    for path in dict.fromkeys(done.set_aside):
        mending.set_aside(root, root / path)
    return done


def _hear(root: Path, done: Recovered, progress: Step | None) -> list[Witness]:
    found, paths = [], testimony.on_disk(root)
    for number, path in enumerate(paths, start=1):
        try:
            found.append(testimony.hear(root, path))
        except HoldfastError as error:
            done.unproved.append(error.what)
            done.set_aside.append(path)
        if progress is not None:
            progress(number, len(paths))
    return found


def _count(done: Recovered, choice: Choice, adopted: Adopted) -> None:
    done.batches, done.backed_out, done.rows = len(adopted.loads), len(adopted.backed_out), adopted.rows
    done.files = len([each for each in choice.files if each.path not in choice.left])
    done.unproved += adopted.unproved


def _tell(connection: Transaction, done: Recovered, now_us: int) -> None:
    events.append(
        connection,
        at_us=now_us,
        kind="ledger.recovered",
        subject="ledger",
        explanation=f"{done.batches} batches and {done.rows} rows were made known again from {done.files} files; "
        f"{len(done.unproved)} things could not be proved",
    )


def _tombstones(root: Path, done: Recovered) -> dict[LoadKey, Tombstone]:
    found = {}
    for path in tombstones.on_disk(root):
        try:
            stone = tombstones.read(path)
        except HoldfastError as error:
            # Its name alone says which load it is of, and what was backed out must not come back.
            done.unproved.append(error.what)
            feed, batch, epoch = path.stem.split(".")
            stone = Tombstone((feed, batch, int(epoch)), 0, 0, {})
        found[stone.load] = stone
    return found


def _models(root: Path, done: Recovered) -> dict[str, VersionMetadata]:
    """The metadata of every whole blob, by its digest, in the order in which they were written."""
    blobs_there = (root / blobs.BLOBS_DIRECTORY).glob("*/*")
    found = {}
    for path in sorted(blobs_there, key=lambda path: (path.stat().st_mtime_ns, path.name)):
        try:
            if derived.sha256_of(path) == path.name:
                found[path.name] = read_metadata(path.read_bytes())
                continue
            trouble = "its bytes are not those of its name"
        except HoldfastError as error:
            trouble = error.what
        done.unproved.append(f"blob {path.name[:12]}: {trouble}")
        done.set_aside.append(str(path.relative_to(root)))
    return found


def _cuts(
    choice: Choice, stones: Mapping[LoadKey, Tombstone], models: Mapping[str, VersionMetadata]
) -> _Cuts:
    """Which snapshots are cuts of these loads: a snapshot's name holds a digest of its tables' rows and files, so that
    the first loads, in the order in which they were written, either give that name or do not.
    """
    cuts = _Cuts()
    order = sorted(choice.loads, key=lambda load: (choice.loads[load].written_us, load))
    of_load: dict[LoadKey, list[tuple[str, int]]] = {}
    for file in choice.files:
        if len(file.parts) == 1:
            of_load.setdefault(file.parts[0].load, []).append((file.table, file.rows))
    wanted = {(each.snapshot, each.contract_hash) for each in models.values()}
    counts: dict[str, tuple[int, int]] = {}
    newest = 0
    for load in order:
        for table, rows in () if load in stones else of_load.get(load, ()):
            before = counts.get(table, (0, 0))
            counts[table] = (before[0] + rows, before[1] + 1)
        newest += 1
        for name, contract_hash in sorted(wanted):
            version = _version_in(name)
            tables = _matching(name, version, contract_hash, counts) if version >= newest else ()
            if tables:
                cuts.proved[name] = (version, contract_hash, tables)
                wanted.discard((name, contract_hash))
                newest = version
        cuts.numbers[load] = newest
    return cuts


def _version_in(name: str) -> int:
    digits = name[1:].partition("-")[0]
    return int(digits) if digits.isdigit() else 0


def _matching(
    name: str, version: int, contract_hash: str, counts: Mapping[str, tuple[int, int]]
) -> tuple[TableCut, ...]:
    """The tables, among those that a snapshot can have, whose rows and files give its name; empty when none do."""
    feeds = [table for table in sorted(counts) if not table.endswith("__quarantine")]
    for size in range(1, min(len(feeds), _MOST_TABLES) + 1):
        for chosen in permutations(feeds, size):
            tables = tuple(TableCut(table, *counts[table]) for table in chosen)
            if snapshot_name(version, contract_hash, tables) == name:
                return tables
    return ()


def _snapshots(
    connection: Transaction, cuts: _Cuts, models: Mapping[str, VersionMetadata], done: Recovered, now_us: int
) -> None:
    for name, (version, contract_hash, tables) in cuts.proved.items():
        recovery.put_snapshot(connection, name, version, contract_hash, tables, now_us=now_us)
        done.snapshots.append(name)
    lost = {each.snapshot for each in models.values()} - cuts.proved.keys()
    done.unproved += [f"snapshot {name}: its rows cannot be told from the files" for name in sorted(lost)]


def _versions(
    connection: Transaction, root: Path, models: Mapping[str, VersionMetadata], done: Recovered, now_us: int
) -> None:
    for digest, metadata in models.items():
        if metadata.snapshot in done.snapshots:
            done.versions.append(recovery.put_version(connection, root, digest, metadata, now_us=now_us))
        else:
            done.unproved.append(f"a version of {metadata.model} ({digest[:8]}): its snapshot is not proved")
            done.set_aside.append(f"{blobs.BLOBS_DIRECTORY}/{digest[:2]}/{digest}")
