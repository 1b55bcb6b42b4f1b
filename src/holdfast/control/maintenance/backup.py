"""Backup and restore of the store, ledger and files together, with the recovery point and the recovery time."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.control.maintenance.verify import verify
from holdfast.errors import InputError, IntegrityError, UnavailableError
from holdfast.records import Progress, sha256_hex
from holdfast.store import Store
from holdfast.store.db.ledger import HEAD, revision_of, sqlite_url
from holdfast.store.durability import fsync
from holdfast.store.maintenance import backup as backups
from holdfast.store.maintenance.backup import Backup, Entry
from holdfast.store.maintenance.derived_checks import sha256_of
from holdfast.store.telemetry import replaced_files

_MOST_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Summary:
    """One backup: what the store was at `at_us`, microseconds UTC, in numbers."""

    name: str
    at_us: int
    table_version: int
    rows: int
    ledger_rows: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class BackedUp(Summary):
    """A backup that was taken, and how much of it was copied."""

    copied_files: int
    copied_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Restored(Summary):
    """A store that was restored and verified. `seconds` is the recovery time."""

    seconds: float


def _summary(found: Backup) -> tuple[str, int, int, int, int, int, int]:
    files, size = len(found.files), sum(entry.bytes for entry in found.files)
    return found.name, found.at_us, found.table_version, found.rows, found.ledger_rows, files, size


def backup(store: Store, directory: Path, *, now_us: int, progress: Progress | None = None) -> BackedUp:
    """Back `store` up into `directory`, durably, while it is in use.

    Only what earlier backups there lack is copied. The backup shows the store at one time: every load that was acknowledged
    before this call is in it, and a load under way is in it completely or not at all.

    Parameters
    ----------
    directory
        A directory outside the store; created if it does not exist.
    now_us
        Timestamp of the backup, microseconds since 1970 UTC; its name.
    progress
        Called with (files done, files in all).

    Raises
    ------
    UnavailableError
        HF306 if the directory cannot be written.
    IntegrityError
        HF301 if a file of the store is damaged: a backup of it would hide the damage.
    """
    begun = time.monotonic()
    if directory.resolve().is_relative_to(store.root.resolve()):
        raise InputError(
            "HF306",
            f"{directory} is inside the store",
            state="nothing was written",
            next_command="name another directory",
        )
    unfinished = directory / backups.OBJECTS_DIRECTORY / f"{now_us}.{os.getpid()}{fsync.UNFINISHED}"
    try:
        for name in (backups.OBJECTS_DIRECTORY, backups.BACKUPS_DIRECTORY):
            fsync.make_directory(directory / name)
        for _ in range(_MOST_ATTEMPTS):
            try:
                made, copied = _take(store, directory, unfinished, now_us, progress)
            except backups.VanishedError:
                continue
            size = sum(entry.bytes for entry in copied)
            return BackedUp(*_summary(made), len(copied), size, time.monotonic() - begun)
    except OSError as error:
        raise UnavailableError(
            "HF306",
            f"the backup cannot be written into {directory}: {error.strerror}",
            state="earlier backups there are intact; files of this one are kept and used next time",
            next_command="the same command again, with room for it",
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    raise UnavailableError(
        "HF306",
        f"files were removed {_MOST_ATTEMPTS} times while they were copied",
        next_command="the same command again",
    )


def _take(
    store: Store, directory: Path, unfinished: Path, now_us: int, progress: Progress | None
) -> tuple[Backup, list[Entry]]:
    """Take the backup, its rows first, in the file `unfinished`. Returns it, and the files of it that were copied."""
    logs = backups.log_files(store.root)
    with store.ledger.read() as connection:
        ledger, ledger_rows = backups.write_dump(connection, unfinished)
        entries = list(backups.named_files(connection, store.root))
        revision = revision_of(connection) or ""
        version, rows = backups.table_version_and_rows(connection)
    copied = []
    for done, entry in enumerate(entries, start=1):
        if _keep_file(store.root, directory, entry):
            copied.append(entry)
        if progress is not None:
            progress(done, len(entries))
    for path, data in backups.small_files(store.root, logs):
        entry = Entry(path, len(data), sha256_hex(data))
        if backups.keep(data, directory, entry.sha256):
            copied.append(entry)
        entries.append(entry)
    backups.keep(unfinished, directory, ledger)
    made = Backup(
        name=f"{now_us:020d}",
        at_us=now_us,
        revision=revision,
        table_version=version,
        rows=rows,
        ledger=ledger,
        ledger_rows=ledger_rows,
        files=tuple(entries),
    )
    backups.write(directory, made)
    return made, copied


def _keep_file(root: Path, directory: Path, entry: Entry) -> bool:
    """Keep one file, from where it is now: a compaction may have replaced it since the ledger was read."""
    named, replaced = replaced_files.places_of(root, entry.path)
    try:
        return backups.keep(named, directory, entry.sha256)
    except backups.VanishedError:
        return backups.keep(replaced, directory, entry.sha256)


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
    if found.revision != HEAD:
        raise InputError(
            "HF306",
            f"backup {found.name} is of ledger revision {found.revision}, this release writes {HEAD}",
            state="nothing was written",
            next_command="restore it with the release that made it, then upgrade",
        )
    draft = root.with_name(f"{root.name}.restoring-{os.getpid()}")
    try:
        _restore_files(directory, draft, found, progress)
        ledger = _object_path(directory, found.ledger, "the ledger")
        store = Store.open(draft, ledger_url or sqlite_url(draft / "ledger.db"), recovering=True)
        try:
            with store.ledger.write() as connection:
                count = backups.fill(connection, backups.read_dump(ledger))
                written_us = backups.written_us(connection, draft)
            _agree(store, found, count)
            _keep_order(draft, written_us)
        finally:
            store.ledger.close()
        fsync.sync_tree(draft)
        if root.exists():
            root.rmdir()
        draft.rename(root)
        fsync.sync(root.parent)
    except OSError as error:
        raise UnavailableError(
            "HF306",
            f"the backup cannot be restored to {root}: {error.strerror}",
            state=f"there is nothing at {root}",
            next_command="holdfast restore BACKUP, to a place that can be written",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Restored(*_summary(found), time.monotonic() - begun)


def _restore_files(directory: Path, draft: Path, found: Backup, progress: Progress | None) -> None:
    for done, entry in enumerate(found.files, start=1):
        target = draft / entry.path
        if not target.resolve().is_relative_to(draft.resolve()):
            raise InputError(
                "HF306",
                f"backup {found.name} names {entry.path}, outside the store",
                next_command="holdfast restore BACKUP, with another backup",
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


def _object_path(directory: Path, sha256: str, what: str) -> Path:
    """Return the path of an object whose bytes are those of the backup; it may be too large for memory."""
    path = backups.object_path(directory, sha256)
    if not path.exists():
        raise _lost(what, "is missing")
    if sha256_of(path) != sha256:
        raise _lost(what, "was altered")
    return path


def _agree(store: Store, found: Backup, count: int) -> None:
    """Check that the restored ledger has the rows that were backed up, and that verify finds nothing."""
    with store.ledger.read() as connection:
        digest = backups.ledger_digest(connection)
    if count != found.ledger_rows or digest != found.ledger:
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
