"""Rows of `files`, and the immutable Parquet files that they name.

A file is written under a random name, synced, and means nothing until a transaction publishes it. While an
attempt is under way its loader holds a kernel lock (flock) on the attempt's marker, and the lock ends with
the loader however it ends: so a sweep tells an orphan from the work of a living loader at once, without
guessing by age.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import polars as pl
from sqlalchemy import ColumnElement, Connection, and_, or_, select

from holdfast.errors import InputError, IntegrityError, NotFoundError
from holdfast.store import Store, durable, locks, parquet, schema
from holdfast.store.faults import fault_point

ROWS_DIRECTORY: Final = "rows"
"""Where the files of all tables lie, under the store's root. Their names are random: what they are is in the
ledger.
"""

ATTEMPTS_DIRECTORY: Final = "attempts"
"""One empty, locked file for each attempt under way, named by it; one that is not locked was left by a dead
loader.
"""

_FILES: Final = schema.files


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the ledger says of one file. `path` is relative to the store's root; `sha256` is of its bytes."""

    path: str
    table: str
    rows: int
    bytes: int
    sha256: str


class Stage:
    """Files that one loader has written and not yet published; made by `staged`.

    `attempt` is a random id that all their names begin with: a ledger that names them has published this
    very attempt.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = root / ROWS_DIRECTORY
        self._written: list[Path] = []
        self._numbers = itertools.count()
        self.attempt = uuid.uuid4().hex
        durable.make_directory(self._directory)
        durable.make_directory(root / ATTEMPTS_DIRECTORY)
        self._marker = root / ATTEMPTS_DIRECTORY / self.attempt
        self._lock = locks.hold(lambda: os.open(self._marker, os.O_WRONLY | os.O_CREAT, 0o644), self._marker)

    def write(self, table: str, frame: pl.DataFrame, manifest: Mapping[str, str | int]) -> FileFacts:
        """Write `frame` as one file of `table` and sync it.

        `manifest` goes into the footer with the table, the number of rows and the format. The name is not
        yet safe from a power cut: call `seal` before publishing.
        """
        return self._write(next(self._numbers), table, frame, manifest)

    def write_parts(
        self, table: str, frames: Sequence[pl.DataFrame], manifest: Mapping[str, str | int]
    ) -> list[FileFacts]:
        """Write `frames` as files of `table` side by side, one thread for each core; their order is kept."""
        numbered = [(next(self._numbers), frame) for frame in frames]
        if len(numbered) == 1:
            return [self._write(number, table, frame, manifest) for number, frame in numbered]
        with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
            return list(pool.map(lambda part: self._write(part[0], table, part[1], manifest), numbered))

    def _write(
        self, number: int, table: str, frame: pl.DataFrame, manifest: Mapping[str, str | int]
    ) -> FileFacts:
        data = parquet.encode(frame, {**manifest, "table": table})
        path = self._directory / f"{self.attempt}-{number:05d}.parquet"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._written.append(path)
        try:
            fault_point("files.created")
            durable.write_all(descriptor, data)
            fault_point("files.written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fault_point("files.synced")
        return FileFacts(
            path=str(path.relative_to(self._root)),
            table=table,
            rows=frame.height,
            bytes=data.nbytes,
            sha256=hashlib.sha256(data).hexdigest(),
        )

    def seal(self) -> None:
        """Sync the names of everything that was written."""
        durable.sync_directory(self._directory)

    def discard(self) -> None:
        """Remove what was written, for a loader that knows that it will not be published."""
        for path in self._written:
            path.unlink(missing_ok=True)
        self._written.clear()

    def close(self) -> None:
        """End the attempt: what is not published now is an orphan."""
        self._marker.unlink(missing_ok=True)
        os.close(self._lock)


@contextmanager
def staged(root: Path) -> Iterator[Stage]:
    """A stage to write on; publish inside the block. A sweep leaves its files alone until the block ends."""
    stage = Stage(root)
    try:
        yield stage
    finally:
        stage.close()


def are_there(root: Path, facts: Sequence[FileFacts]) -> bool:
    """Whether every file is there: the last look before a transaction names them. `IntegrityError` HF301 when one has not
    the size with which it was written.
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


def visible(table: str, version: int) -> ColumnElement[bool]:
    """Whether a row of `files` is a file of `table` at table version `version`: time travel is a validity interval."""
    return and_(
        _FILES.c.table_name == table,
        _FILES.c.added_version <= version,
        or_(_FILES.c.removed_version.is_(None), _FILES.c.removed_version > version),
    )


def entries(
    connection: Connection, table: str, version: int, *, reaching_us: int | None = None
) -> list[FileFacts]:
    """The files of `table` at table version `version`, in the order of their rows' event time.

    With `reaching_us`, only files whose newest event time is at or after it, microseconds UTC: what
    reads the last hours of a feed then costs what those hours hold, not what its history holds.
    """
    query = (
        select(_FILES.c.path, _FILES.c.table_name, _FILES.c.rows, _FILES.c.bytes, _FILES.c.sha256)
        .where(visible(table, version))
        .order_by(_FILES.c.event_low_us, _FILES.c.added_version, _FILES.c.path)
    )
    if reaching_us is not None:
        query = query.where(_FILES.c.event_high_us >= reaching_us)
    return [FileFacts(*row) for row in connection.execute(query)]


Columns: TypeAlias = Sequence[str] | Mapping[str, pl.DataType]
"""Columns to read: their names, or with each name the dtype that it is to have."""


def read(
    root: Path,
    files: Sequence[FileFacts],
    columns: Columns | None = None,
    *,
    at_least: tuple[str, Any] | None = None,
) -> pl.DataFrame:
    """The rows of `files`, one after the other, each file's SHA-256 and page checksums verified (reliability
    F3).

    Parameters
    ----------
    columns
        The columns to read, None for all that any file has. Files of different contracts differ in columns and in
        time zones: what a file lacks is null, and an instant is shown in the zone that is asked for, or else in that
        of the last file. With dtypes, a column that no file has is null in its dtype.
    at_least
        A column and a value: only rows that have this much in it; files that lack the column give all theirs.

    `IntegrityError` HF301 names the file that is missing or damaged; `InputError` HF202 names the column of which the
    files hold values that are no common type, because the contract gave its name another meaning.
    """
    names = None if columns is None else list(columns)

    def one(fact: FileFacts) -> pl.DataFrame:
        frame = parquet.read(root / fact.path, names, sha256=fact.sha256, at_least=at_least)
        if at_least is None and frame.height != fact.rows:
            raise IntegrityError(
                "HF301", f"file {fact.path} has {frame.height} rows, the ledger says {fact.rows}"
            )
        return frame

    with ThreadPoolExecutor(max_workers=4) as pool:
        frames = list(pool.map(one, files))
    if not frames:
        return pl.DataFrame()
    wanted = _merged(frames) | (dict(columns) if isinstance(columns, Mapping) else {})
    return pl.concat([_aligned(frame, wanted) for frame in frames])


def _merged(frames: Sequence[pl.DataFrame]) -> dict[str, pl.DataType]:
    """The columns of all `frames` in the order in which they come up, each in a dtype that all its values have."""
    merged: dict[str, pl.DataType] = {}
    for frame in frames:
        for name, kind in frame.schema.items():
            before = merged.get(name, pl.Null())
            if kind == before or kind == pl.Null:
                merged.setdefault(name, kind)
            elif before == pl.Null or (_is_instant(before) and _is_instant(kind)):
                merged[name] = kind
            elif before.is_numeric() and kind.is_numeric():
                merged[name] = pl.Float64()
            else:
                raise _no_common_type(name, before, kind)
    return merged


def _aligned(frame: pl.DataFrame, wanted: Mapping[str, pl.DataType]) -> pl.DataFrame:
    return frame.select(
        _as(frame[name], kind) if name in frame.columns else pl.lit(None, kind).alias(name)
        for name, kind in wanted.items()
    )


def _as(values: pl.Series, kind: pl.DataType) -> pl.Series:
    found = values.dtype
    if found == kind:
        return values
    if isinstance(kind, pl.Datetime) and kind.time_zone is not None and _is_instant(found):
        return values.dt.cast_time_unit(kind.time_unit or "us").dt.convert_time_zone(kind.time_zone)
    if found == pl.Null or (found.is_numeric() and kind == pl.Float64):
        return values.cast(kind)
    raise _no_common_type(values.name, found, kind)


def _is_instant(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.Datetime) and kind.time_zone is not None


def _no_common_type(name: str, one: pl.DataType, other: pl.DataType) -> InputError:
    return InputError(
        "HF202",
        f"column {name!r} is {one} in some files and {other} is wanted or is in others",
        state="no row was read",
        next_command="give the new column of the contract a name of its own",
    )


def read_rows(store: Store, at: int | str, table: str, columns: Columns | None = None) -> pl.DataFrame:
    """The rows of `table` at a table version (a number) or in a snapshot (its name), in order of event time.

    Raises `NotFoundError` HF303 for an unknown snapshot, and otherwise as `read` does.
    """
    with store.ledger.read() as connection:
        version = at if isinstance(at, int) else snapshot_version(connection, at)
        found = entries(connection, table, version)
    return read(store.root, found, columns)


def snapshot_version(connection: Connection, snapshot: str) -> int:
    """The table version that `snapshot` names; `NotFoundError` HF303 when there is none of that name."""
    snapshots = schema.snapshots
    query = select(snapshots.c.table_version).where(snapshots.c.snapshot == snapshot)
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        raise NotFoundError("HF303", f"there is no snapshot {snapshot!r}", next_command="holdfast status")
    return int(found)
