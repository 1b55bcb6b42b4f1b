"""Rebuild of a lost ledger from the files, and a list of what cannot be rebuilt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from holdfast.declaration import Model
from holdfast.errors import HoldfastError
from holdfast.formatting import counted
from holdfast.records import Progress
from holdfast.store import Store
from holdfast.store.backout import tombstones
from holdfast.store.backout.tombstones import Tombstone
from holdfast.store.catalog import snapshots
from holdfast.store.catalog.snapshots import SnapshotManifest
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction, sqlite_url
from holdfast.store.durability import fsync
from holdfast.store.feeds import contracts
from holdfast.store.files import blobs
from holdfast.store.maintenance import backup as backups
from holdfast.store.maintenance import (
    derived_checks,
    footer_scan,
    rebuild_history,
    repairs,
)
from holdfast.store.maintenance.footer_scan import ScannedFile
from holdfast.store.maintenance.rebuild_catalog import reregister
from holdfast.store.models import versions
from holdfast.store.serving import label_rules, log_directory
from holdfast.tables.snapshots import LoadKey
from holdfast.train.artifact import VersionMetadata, read_metadata

NOT_IN_FILES: Final = (
    "violations and their acceptance: every batch is suspect until a user accepts it",
    "gate results, rollouts and traffic plans: versions are re-registered and have to be qualified again",
    "the event log: a new chain starts, and heads stored before do not match",
    "the row counts that senders declared",
    "references between loads, and the group of a feed at load time: a back-out uses the declared groups",
    "labels, outcomes and request counts whose logs are gone; those still in logs are collected again",
)
"""Facts that are in no file, so that no rebuild restores them."""


@dataclass(slots=True)
class RebuiltLedger:
    """The rebuilt rows; `not_rebuilt` describes everything else."""

    batches: int = 0
    backed_out: int = 0
    rows: int = 0
    files: int = 0
    contracts: int = 0
    snapshots: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    prediction_files: int = 0
    not_rebuilt: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    old_ledger: str = ""


def rebuild(
    root: Path,
    *,
    now_us: int,
    model: Model | None = None,
    ledger_url: str | None = None,
    progress: Progress | None = None,
) -> RebuiltLedger:
    """Rebuild a lost ledger from the files in `root`. Stop everything that uses the store first.

    A row is readable afterwards only if every file of its load is intact and its load has no tombstone, and then once.
    Files that are not needed are moved to `aside`. The new ledger is one transaction: a killed rebuild leaves an empty
    ledger that does not open, and may be run again.

    Parameters
    ----------
    now_us
        Timestamp of the rebuild, microseconds since 1970 UTC.
    model
        The declaration, if there is one: its expectations and the groups of its feeds.
    ledger_url
        An empty database; None for a new SQLite file in `root`, from which the old one is moved aside.
    progress
        Called with (files read, files in all).

    Raises
    ------
    InputError
        HF306 if the ledger is not lost: it can be read and has batches.
    """
    if ledger_url is None:
        rebuild_history.must_be_lost(root)
    done = RebuiltLedger()
    found = _scan(root, done, progress)
    choice = footer_scan.choose(found)
    found_tombstones = _tombstones(root, done)
    manifests = _manifests(root, done)
    models = _models(root, done)
    if ledger_url is None:
        done.old_ledger = repairs.set_ledger_aside(root, now_us)
    store = Store.open(root, ledger_url or sqlite_url(root / "ledger.db"), recovering=True)
    try:
        with store.ledger.write() as connection:
            rebuild_history.must_be_empty(connection)
            rebuild_history.put_table_versions(connection, manifests)
            reregistered = reregister(
                connection,
                root,
                choice,
                found_tombstones,
                now_us=now_us,
                numbers=rebuild_history.table_versions(choice, found_tombstones, manifests),
                feeds=model.feeds if model else (),
            )
            done.contracts = len(contracts.everything(connection))
            done.not_rebuilt += rebuild_history.put_snapshots(connection, manifests, now_us=now_us)
            done.snapshots = [each.snapshot.snapshot for each in manifests]
            _versions(connection, root, models, done, now_us)
            rebuild_history.put_backouts(connection, found_tombstones.values())
            put = rebuild_history.put_predictions(connection, root, found)
            if secret := label_rules.kept_secret(root):
                label_rules.ensure_secret(connection, secret, now_us=now_us)
            elif log_directory.all_of(root):
                done.not_rebuilt.append(
                    "the secret of prediction ids: no server under this root keeps it; "
                    "a server elsewhere brings it when it starts"
                )
            done.prediction_files = len(put)
            done.batches, done.backed_out = len(reregistered.loads), len(reregistered.backed_out)
            done.rows = reregistered.rows
            done.files = len([each for each in choice.files if each.path not in choice.left])
            done.not_rebuilt += reregistered.not_rebuilt
            _append_event(connection, done, now_us)
            backups.advance_sequences(connection)
    finally:
        store.ledger.close()
    fsync.sync(root)  # the name of the new ledger
    done.set_aside += choice.left
    done.set_aside += [each.path for each in found if each.predictions is not None and each.path not in put]
    for path in dict.fromkeys(done.set_aside):
        repairs.set_aside(root, root / path)
    return done


def _scan(root: Path, done: RebuiltLedger, progress: Progress | None) -> list[ScannedFile]:
    found, paths = [], footer_scan.on_disk(root)
    for number, path in enumerate(paths, start=1):
        try:
            found.append(footer_scan.scan(root, path))
        except HoldfastError as error:
            done.not_rebuilt.append(error.what)
            done.set_aside.append(path)
        if progress is not None:
            progress(number, len(paths))
    return found


def _append_event(connection: Transaction, done: RebuiltLedger, now_us: int) -> None:
    events.append(
        connection,
        at_us=now_us,
        kind="ledger.rebuilt",
        subject="ledger",
        explanation=f"{counted(done.batches, 'batch')} and {counted(done.rows, 'row')} were re-registered from "
        f"{counted(done.files, 'file')}; "
        f"{len(done.not_rebuilt)} items could not be rebuilt",
    )


def _tombstones(root: Path, done: RebuiltLedger) -> dict[LoadKey, Tombstone]:
    found = {}
    for path in tombstones.on_disk(root):
        try:
            tombstone = tombstones.read(path)
        except HoldfastError as error:
            # Its name still has its load, which must stay backed out.
            done.not_rebuilt.append(error.what)
            feed, batch, epoch = path.stem.split(".")
            tombstone = Tombstone((feed, batch, int(epoch)), 0, 0, {})
        found[tombstone.load] = tombstone
    return found


def _models(root: Path, done: RebuiltLedger) -> dict[str, VersionMetadata]:
    """Return the metadata of every intact blob, by its digest, in the order in which they were written."""
    blobs_there = (root / blobs.BLOBS_DIRECTORY).glob("*/*")
    found = {}
    for path in sorted(blobs_there, key=lambda path: (path.stat().st_mtime_ns, path.name)):
        try:
            if derived_checks.sha256_of(path) == path.name:
                found[path.name] = read_metadata(path.read_bytes())
                continue
            reason = "its SHA-256 is not its name"
        except HoldfastError as error:
            reason = error.what
        done.not_rebuilt.append(f"blob {path.name[:12]}: {reason}")
        done.set_aside.append(str(path.relative_to(root)))
    return found


def _manifests(root: Path, done: RebuiltLedger) -> list[SnapshotManifest]:
    found = []
    for path in snapshots.manifests_on_disk(root):
        try:
            found.append(snapshots.read_manifest(path))
        except HoldfastError as error:
            done.not_rebuilt.append(error.what)
            done.set_aside.append(str(path.relative_to(root)))
    return found


def _versions(
    connection: Transaction,
    root: Path,
    models: Mapping[str, VersionMetadata],
    done: RebuiltLedger,
    now_us: int,
) -> None:
    for digest, metadata in models.items():
        if metadata.snapshot in done.snapshots:
            size = blobs.path_of(root, digest).stat().st_size
            row = versions.register(connection, metadata, digest=digest, size_bytes=size, now_us=now_us)
            done.versions.append(row.version)
        else:
            done.not_rebuilt.append(
                f"a version of {metadata.model} ({digest[:8]}): its snapshot has no manifest"
            )
            done.set_aside.append(f"{blobs.BLOBS_DIRECTORY}/{digest[:2]}/{digest}")
