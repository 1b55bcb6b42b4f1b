"""Backup and restore of the store, ledger and files together, with the recovery point and the recovery time."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from holdfast.control.maintenance.verify import verify
from holdfast.errors import InputError, IntegrityError, UnavailableError
from holdfast.records import Progress, sha256_hex
from holdfast.store import Store
from holdfast.store.db import migrate
from holdfast.store.db.ledger import sqlite_url
from holdfast.store.durability import fsync
from holdfast.store.maintenance import backup as backups
from holdfast.store.maintenance.backup import Backup


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A backup that was taken. A restore of it shows the store as it was at `at_us`, microseconds UTC."""

    name: str
    at_us: int
    table_version: int
    rows: int
    ledger_rows: int
    files: int
    bytes: int
    copied_files: int
    copied_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Restored:
    """A store that was restored and verified. `seconds` is the recovery time."""

    name: str
    at_us: int
    table_version: int
    rows: int
    ledger_rows: int
    files: int
    bytes: int
    seconds: float


def backup(store: Store, directory: Path, *, now_us: int, progress: Progress | None = None) -> BackedUp:
    """Back `store` up into `directory` while it is in use; raises as `store.maintenance.backup.take`.

    Only what earlier backups there lack is copied. The backup shows the store at one time: every load that was acknowledged
    before this call is in it, and a load under way is in it completely or not at all.

    Parameters
    ----------
    directory
        A directory outside the store; created if it does not exist.
    now_us
        Timestamp of the backup, microseconds since 1970 UTC.
    progress
        Called with (files done, files in all).
    """
    begun = time.monotonic()
    taken = backups.take(store, directory, now_us=now_us, progress=progress)
    found = taken.backup
    return BackedUp(
        name=found.name,
        at_us=found.at_us,
        table_version=found.table_version,
        rows=found.rows,
        ledger_rows=found.ledger_rows,
        files=len(found.files),
        bytes=found.bytes,
        copied_files=taken.copied_files,
        copied_bytes=taken.copied_bytes,
        seconds=time.monotonic() - begun,
    )


def restore(
    directory: Path,
    root: Path,
    *,
    name: str | None = None,
    ledger_url: str | None = None,
    progress: Progress | None = None,
) -> Restored:
    """Restore the store at `root` as it was when backup `name` (default: the newest) was taken, and verify it.

    Every file is checked against its SHA-256 while it is copied, the ledger against its own, and the restored store is
    verified.

    Parameters
    ----------
    root
        A directory that does not exist or is empty. It appears in one step, when everything in it is durable.
    ledger_url
        An empty database for the ledger; None for SQLite inside `root`.

    Raises
    ------
    InputError
        HF306 if `root` or the ledger is not empty.
    IntegrityError
        HF301 if the backup was altered; then there is nothing at `root`.
    """
    begun = time.monotonic()
    found = backups.read(directory, name)
    if root.exists() and any(root.iterdir()):
        raise InputError(
            "HF306",
            f"{root} is not empty",
            state="nothing was written",
            next_command="name another directory in HOLDFAST_ROOT",
        )
    if found.revision != migrate.HEAD:
        raise InputError(
            "HF306",
            f"backup {found.name} is of ledger revision {found.revision}, this release writes {migrate.HEAD}",
            state="nothing was written",
            next_command="restore it with the release that made it, then upgrade",
        )
    draft = root.with_name(f"{root.name}.restoring-{os.getpid()}")
    try:
        _restore_files(directory, draft, found, progress)
        ledger = _object(directory, found.ledger, "the ledger")
        store = Store.open(draft, ledger_url or sqlite_url(draft / "ledger.db"), recovering=True)
        try:
            count = backups.fill(store, ledger)
            _agree(store, found, count)
            _keep_order(draft, backups.written_us(store))
        finally:
            store.ledger.close()
        fsync.sync_tree(draft)
        if root.exists():
            root.rmdir()
        draft.rename(root)
        fsync.sync_directory(root.parent)
    except OSError as error:
        raise UnavailableError(
            "HF306",
            f"the backup cannot be restored to {root}: {error.strerror}",
            state=f"there is nothing at {root}",
            next_command="holdfast restore to a place that can be written",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Restored(
        name=found.name,
        at_us=found.at_us,
        table_version=found.table_version,
        rows=found.rows,
        ledger_rows=found.ledger_rows,
        files=len(found.files),
        bytes=found.bytes,
        seconds=time.monotonic() - begun,
    )


def _restore_files(directory: Path, draft: Path, found: Backup, progress: Progress | None) -> None:
    for done, entry in enumerate(found.files, start=1):
        target = draft / entry.path
        if not target.resolve().is_relative_to(draft.resolve()):
            raise InputError(
                "HF306",
                f"backup {found.name} names {entry.path}, outside the store",
                next_command="holdfast restore with another backup",
            )
        fsync.make_directory(target.parent)
        target.write_bytes(_object(directory, entry.sha256, entry.path))
        if progress is not None:
            progress(done, len(found.files))


def _keep_order(draft: Path, written_us: dict[str, int]) -> None:
    """Set the modification times of files to when they were published: a rebuild of this ledger needs their order."""
    for path, at_us in written_us.items():
        os.utime(draft / path, ns=(at_us * 1000, at_us * 1000))


def _object(directory: Path, sha256: str, what: str) -> bytes:
    try:
        data = backups.object_path(directory, sha256).read_bytes()
    except FileNotFoundError as error:
        raise _lost(what, "is missing") from error
    if sha256_hex(data) != sha256:
        raise _lost(what, "was altered")
    return data


def _agree(store: Store, found: Backup, count: int) -> None:
    """Check that the restored ledger has the rows that were backed up, and that verify finds nothing."""
    if count != found.ledger_rows or backups.ledger_digest(store) != found.ledger:
        raise _lost("the ledger", "did not come back row for row")
    findings = [each for each in verify(store).findings if each.code != "HF206"]
    if findings:
        first = findings[0]
        raise _lost(first.subject, first.explanation)


def _lost(what: str, reason: str) -> IntegrityError:
    return IntegrityError(
        "HF301",
        f"{what} {reason} in the backup",
        state="nothing was restored",
        next_command="holdfast restore BACKUP --at NAME, with another of its backups",
    )
