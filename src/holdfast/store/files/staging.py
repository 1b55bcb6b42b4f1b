"""Attempts: files of rows that are written but not yet published.

A file is written under a random name and synced, and means nothing until a transaction publishes it. While an attempt is under
way, its loader holds a file lock on the attempt's marker. The lock ends with the loader, so a sweep recognises an orphan
without guessing by age.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, select

from holdfast.errors import IntegrityError, UnavailableError
from holdfast.lazy_module import LazyModule
from holdfast.store.db import schema
from holdfast.store.db.ledger import Store
from holdfast.store.db.statements import pieces
from holdfast.store.durability import access, file_locks, fsync
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.files import parquet
from holdfast.store.files.data_files import ROWS_DIRECTORY, FileFacts

if TYPE_CHECKING:
    import polars as pl
else:
    pl = LazyModule("polars")

_NAMED: Final = (schema.files.c.path, schema.prediction_files.c.path, schema.shadow_files.c.path)

ATTEMPTS_DIRECTORY: Final = "attempts"
"""One empty, locked file for each attempt under way, named by it; one that is not locked was left by a dead
loader.
"""


def _bounds_us(frame: pl.DataFrame, event_time: str | None) -> tuple[int, int] | tuple[None, None]:
    if event_time is None or frame[event_time].null_count() == frame.height:
        return None, None
    times = frame.get_column(event_time)
    in_us = isinstance(times.dtype, pl.Datetime) and times.dtype.time_unit == "us"
    # A cast costs a twentieth of what `dt.epoch` does on a small frame.
    numbers = times.cast(pl.Int64) if in_us else times.dt.epoch("us")
    low, high = numbers.min(), numbers.max()
    assert isinstance(low, int)
    assert isinstance(high, int)
    return low, high


class Stage:
    """Files that one loader has written and not yet published; `staged` makes it.

    `attempt` is an id that all their names begin with. A sweep leaves them alone while the attempt's lock is held; a caller
    that makes a stage without `staged` writes for a process that holds the lock.
    """

    def __init__(self, root: Path, attempt: str) -> None:
        self.root = root
        self._directory = root / ROWS_DIRECTORY
        self._written: list[Path] = []
        self._numbers = itertools.count()
        self.attempt = attempt
        fsync.make_directory(self._directory)

    def write(
        self,
        table: str,
        frame: pl.DataFrame,
        manifest: Mapping[str, str | int],
        *,
        event_time: str | None = None,
    ) -> FileFacts:
        """Write `frame` as one file of `table` and sync it.

        `manifest` goes into the footer with the table, the number of rows and the format. The result has the bounds of the
        column `event_time`. The name is not durable yet: call `sync` before publishing.
        """
        (fact,) = self.write_parts(table, [frame], manifest, event_time=event_time)
        return fact

    def write_parts(
        self,
        table: str,
        frames: Sequence[pl.DataFrame],
        manifest: Mapping[str, str | int],
        *,
        event_time: str | None = None,
        fields: parquet.FieldMetadata = MappingProxyType({}),
    ) -> list[FileFacts]:
        """Write `frames` as files of `table`, one thread for each core; their order is kept.

        Parameters
        ----------
        table, frames, manifest, event_time
            As for `write`.
        fields
            Metadata of the columns, for other programs.
        """

        def write(frame: pl.DataFrame, number: int) -> FileFacts:
            data = parquet.encode(frame, {**manifest, "table": table, "file": number}, fields)
            low_us, high_us = _bounds_us(frame, event_time)
            return self.put(data, FileFacts("", table, frame.height, 0, "", None, low_us, high_us), number)

        numbers = [next(self._numbers) for _ in frames]
        if len(frames) == 1:
            return [write(frames[0], numbers[0])]
        with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
            return list(pool.map(write, frames, numbers))

    def put(self, data: memoryview, facts: FileFacts, number: int | None = None) -> FileFacts:
        """Write `data` as a file and sync it; return `facts` with path, size and digest. Call `sync` before publishing."""
        number = next(self._numbers) if number is None else number
        path = self._directory / f"{self.attempt}-{number:05d}.parquet"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, access.file_mode())
        self._written.append(path)
        try:
            failpoint("files.created")
            fsync.write_all(descriptor, data)
            failpoint("files.written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        failpoint("files.synced")
        return replace(
            facts,
            path=f"{ROWS_DIRECTORY}/{path.name}",
            bytes=data.nbytes,
            sha256=hashlib.sha256(data).hexdigest(),
        )

    def sync(self) -> None:
        """Make the names of all written files durable."""
        fsync.sync(self._directory)

    def discard(self, facts: Sequence[FileFacts] | None = None) -> None:
        """Remove all written files, or only those of `facts`, which will not be published."""
        for path in list(self._written) if facts is None else [self.root / fact.path for fact in facts]:
            path.unlink(missing_ok=True)
            self._written.remove(path)


@dataclass(frozen=True, slots=True)
class DeadAttempt:
    """An attempt whose process was killed, and the note that it had left: what it was for."""

    attempt: str
    note: str


@contextmanager
def staged(root: Path, attempt: str | None = None, *, note: str = "") -> Iterator[Stage]:
    """Yield a stage; publish inside the block.

    A sweep leaves its files alone until the block ends; then unpublished files are orphans.

    `attempt` is an id that the store has not seen, None for a random one. If the block ends with an error, the marker
    stays, as it does when a loader is killed: the next sweep asks the ledger whether the attempt was published. So a
    complete load without a marker that the ledger does not name is one whose transaction the ledger lost.
    `note` is found by `dead_attempts` if the process is killed in the block, and not if the block ends with an error.
    """
    attempt = attempt or uuid.uuid4().hex
    marker = root / ATTEMPTS_DIRECTORY / attempt
    with _raise_if_full():
        fsync.make_directory(root / ATTEMPTS_DIRECTORY)
        lock = file_locks.create_locked(marker)
    try:
        with _raise_if_full():
            if note:
                fsync.write_all(lock, note.encode())
            yield Stage(root, attempt)
        marker.unlink(missing_ok=True)
    except Exception:
        with suppress(OSError):
            os.ftruncate(lock, 0)
        raise
    finally:
        os.close(lock)


@contextmanager
def noted(root: Path, note: str) -> Iterator[None]:
    """Keep `note` where `dead_attempts` finds it if the process is killed in the block; it writes no files of rows.

    Raises `UnavailableError` HF307 if the note cannot be written.
    """
    marker = root / ATTEMPTS_DIRECTORY / uuid.uuid4().hex
    with _raise_if_full():
        fsync.make_directory(root / ATTEMPTS_DIRECTORY)
        lock = file_locks.create_locked(marker)
        fsync.write_all(lock, note.encode())
    try:
        yield
    finally:
        marker.unlink(missing_ok=True)
        os.close(lock)


@contextmanager
def _raise_if_full() -> Iterator[None]:
    """Raise `UnavailableError` HF307 for errors of the disk; the ledger has errors of its own."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            "HF307",
            f"a file of the store cannot be written: {error.strerror or error}",
            state="nothing was loaded, and what is loaded is unchanged",
            next_command="make room on the disk, or repair it, then the same command again",
        ) from error


def discard(root: Path, attempt: str) -> None:
    """Remove the files of `attempt`. The caller holds it, and it is not published nor being written."""
    for path in (root / ROWS_DIRECTORY).glob(f"{attempt}-*"):
        path.unlink(missing_ok=True)


def all_exist(root: Path, facts: Sequence[FileFacts]) -> bool:
    """Return True if every file is there: the last check before a transaction names them.

    `IntegrityError` HF301 if the size of one differs.
    """
    for fact in facts:
        path = root / fact.path
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            return False
        if found != fact.bytes:
            raise IntegrityError("HF301", f"file {path.name} has {found} bytes, {fact.bytes} were written")
    return True


def dead_attempts(root: Path) -> list[DeadAttempt]:
    """Return the attempts that were killed and had left a note. A sweep keeps the notes; `forget` them once reported."""
    found: list[DeadAttempt] = []
    for marker in files_in(root / ATTEMPTS_DIRECTORY):
        with suppress(FileNotFoundError), file_locks.seized(marker) as dead:
            note = marker.read_bytes().decode(errors="replace") if dead else ""
            if note:
                found.append(DeadAttempt(marker.name, note))
    return found


def sweep_dead_attempts(store: Store) -> list[str]:
    """Remove what dead loaders left, found by their markers in a directory that is mostly empty.

    A marker with a note stays, until the note is reported and forgotten. Returns the removed paths, relative to the store's
    root. After a power failure a marker may be gone while its files are not; `sweep` finds these too.
    """
    swept: list[str] = []
    for marker in files_in(store.root / ATTEMPTS_DIRECTORY):
        # Another process may end or sweep the same attempt meanwhile; its marker is gone then.
        with suppress(FileNotFoundError), file_locks.seized(marker) as dead:
            if dead:
                rows = store.root / ROWS_DIRECTORY
                swept += remove_unnamed(store, rows.glob(f"{marker.name}-*"))
                if not marker.stat().st_size:
                    marker.unlink(missing_ok=True)
    return swept


def forget(root: Path, dead: DeadAttempt) -> None:
    """Remove the note of a killed attempt, whose marker a sweep then removes with its files."""
    with suppress(FileNotFoundError):
        os.truncate(root / ATTEMPTS_DIRECTORY / dead.attempt, 0)


def remove_unnamed(store: Store, paths: Iterable[Path]) -> list[str]:
    """Remove those files at `paths` that the ledger does not name; return their paths, relative to the store's root."""
    found = [str(path.relative_to(store.root)) for path in paths]
    if not found:
        return []
    with store.ledger.write() as connection:
        removed = sorted(set(found) - named_in_ledger(connection, found))
        for path in removed:
            (store.root / path).unlink(missing_ok=True)
    return removed


def files_in(directory: Path) -> list[Path]:
    """Return the files in `directory`, none if it does not exist."""
    return [path for path in directory.iterdir() if path.is_file()] if directory.is_dir() else []


def named_in_ledger(connection: Connection, paths: list[str]) -> set[str]:
    """Return those of `paths` that the ledger names as files of rows, of predictions or of shadows."""
    found: set[str] = set()
    for part in pieces(paths):
        for column in _NAMED:
            found.update(connection.execute(select(column).where(column.in_(part))).scalars())
    return found
