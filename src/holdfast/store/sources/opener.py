"""Open the source that an operator or a declaration names, as the bytes and rows of one delivery.

Files of this machine are read here: one file, those below a directory, or those that match a pattern.
"""

from __future__ import annotations

import glob
import json
import os
import re
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeAlias
from urllib.parse import unquote, urlsplit

from holdfast.errors import InputError
from holdfast.feeds.postgres_query import BatchQuery
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.sources import object_store, postgres_query
from holdfast.store.sources.delivery import (
    DEADLINE_SECONDS,
    LIMIT_BYTES,
    Bundle,
    File,
    Rows,
    Source,
    absent,
    all_finished,
    as_file,
    changed,
    is_data,
    is_unfinished,
    of_one_kind,
    refused,
    too_large,
    unanswered,
)

COUNT_SUFFIX: Final = ".count"
"""A file `day.csv.count` next to `day.csv` declares its number of rows: a number, or JSON with "rows"."""
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]+)://")
_Looks: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Bounded:
    """A source with the deadline and the limit that it is opened with, wherever that happens."""

    spec: str | Path | BatchQuery
    deadline_seconds: float
    limit_bytes: int


Spec: TypeAlias = str | Path | BatchQuery | Bounded
"""A file, a directory, a pattern such as "in/*.csv", a URL of one of them (file://, s3://, gs://, az://), or a query."""


def open_source(
    spec: Spec | Source, *, deadline_seconds: float = DEADLINE_SECONDS, limit_bytes: int = LIMIT_BYTES
) -> Source:
    """Return the delivery at `spec`, all of it in memory; one that is open already is returned as it is.

    Parameters
    ----------
    deadline_seconds
        Deadline for the whole read; it holds even if the other system stops in the middle of a response.
    limit_bytes
        The largest delivery that is read, unpacked.

    A directory, a pattern or a prefix is one delivery of all the files below it, in the order of their names. Names that
    begin with "." or "_" are passed over; a file that is still being written (.tmp, .part ...), files of several kinds, and
    a file that changes while it is read are refused.

    Raises `InputError` HF201 when the source is missing, unreadable, empty, too large, changing or of an unknown kind,
    HF202 when a query returns a type that no column can be, HF103 when a URL cannot be used, and `UnavailableError`
    HF209 when there is no response within `deadline_seconds`.
    """
    match spec:
        case Bundle() | Rows():
            return spec
        case Bounded():
            return open_source(
                spec.spec, deadline_seconds=spec.deadline_seconds, limit_bytes=spec.limit_bytes
            )
        case BatchQuery():
            return postgres_query.ask(spec, deadline_seconds=deadline_seconds, limit_bytes=limit_bytes)
        case _:
            return _files(spec, deadline_seconds, limit_bytes)


def name_of(spec: Spec | Source) -> str:
    """Return the name of the delivery at `spec`, as the ledger keeps it; empty if its URL cannot be used. Opens nothing."""
    match spec:
        case Bundle() | Rows():
            return spec.name
        case Bounded():
            return name_of(spec.spec)
    try:
        if isinstance(spec, BatchQuery):
            return postgres_query.name_of(spec)
        if isinstance(spec, str) and _is_remote(spec):
            return object_store.shown(spec)
        return _shown(str(spec) if isinstance(spec, Path) else _path(spec))
    except (InputError, ValueError):
        return ""


def deliveries(spec: str, *, deadline_seconds: float = DEADLINE_SECONDS) -> tuple[str, ...]:
    """Return the files at `spec`, each as a source of its own, in the order of their names.

    Files that are still being written are left out. Raises as `open_source` does.
    """
    if _is_remote(spec):
        if not spec.endswith("/") and not object_store.is_pattern(spec):
            return (spec,)
        return _Reading(spec, object_store.shown(spec)).within(deadline_seconds).names
    return _local_names(_path(spec))


def _files(spec: str | Path, deadline_seconds: float, limit_bytes: int) -> Source:
    if isinstance(spec, str) and _is_remote(spec):
        reading = _Reading(spec, object_store.shown(spec), limit_bytes)
    else:
        path = str(spec) if isinstance(spec, Path) else _path(spec)
        reading = _Reading(path, _shown(path), limit_bytes, remote=False)
    bundle = reading.within(deadline_seconds).bundle
    if sum(len(file.data) for file in bundle.files) > limit_bytes:
        raise too_large(bundle.name, limit_bytes)
    return bundle


def _is_remote(spec: str) -> bool:
    found = _URL.match(spec)
    if found is None or found[1] == "file":
        return False
    if found[1] in postgres_query.SCHEMES:
        raise InputError(
            "HF101",
            f"the source {postgres_query.shown(spec)} is a database: "
            "name its rows with --query, and their batch with --batch",
            state="nothing was loaded",
        )
    if found[1] not in object_store.SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in ("file", *sorted(object_store.SCHEMES), "postgresql"))
        raise refused(found[0], f"is of a kind that is not known: use {known}, or a path")
    return True


def _path(spec: str) -> str:
    if not spec.startswith("file://"):
        return spec
    parts = urlsplit(spec)
    if parts.netloc not in ("", "localhost"):
        raise refused(spec, "names another machine: file:// has three slashes before a path")
    return unquote(parts.path)


class _Reading(threading.Thread):
    """Reads `place`, or lists its files without a limit, in a thread that does not keep the process alive.

    A call into a stopped system cannot be cancelled: the thread of one that never ends is left behind.
    """

    bundle: Bundle
    names: tuple[str, ...]

    def __init__(
        self, place: str, shown: str, limit_bytes: int | None = None, *, remote: bool = True
    ) -> None:
        super().__init__(name=f"reading {shown}", daemon=True)
        self._place, self._shown, self._limit_bytes, self._remote = place, shown, limit_bytes, remote
        self._error: BaseException | None = None

    def run(self) -> None:
        """Read or list; an error is raised in the thread that waits."""
        try:
            if self._limit_bytes is None:
                self.names = object_store.names(self._place)
            elif self._remote:
                self.bundle = object_store.read(self._place, self._limit_bytes)
            else:
                self.bundle = _read_local(self._place, self._limit_bytes)
        except BaseException as error:
            self._error = error

    def within(self, deadline_seconds: float) -> _Reading:
        """Run to the end; `UnavailableError` HF209 about the source if it takes longer than the deadline."""
        self.start()
        self.join(deadline_seconds)
        if self._error is not None:
            raise self._error
        if self.is_alive():
            raise unanswered(self._shown, f"did not answer within {deadline_seconds:g} seconds")
        return self


def rows_declared(spec: Spec) -> int | None:
    """Return the number of rows that the control file of `spec` declares.

    None if `spec` is no file, or has no control file next to it.

    Raises `InputError` HF201 when the control file cannot be read: what the sender meant must not be guessed.
    """
    place = spec.spec if isinstance(spec, Bounded) else spec
    if not isinstance(place, (str, Path)) or "://" in str(place):
        return None
    path = Path(place)
    control = path.with_name(path.name + COUNT_SUFFIX)
    try:
        found = json.loads(control.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _unreadable_count(control) from error
    rows = found.get("rows") if isinstance(found, dict) else found
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        raise _unreadable_count(control)
    return rows


def _unreadable_count(control: Path) -> InputError:
    return InputError(
        "HF201",
        f'the control file {control.name} holds neither a number of rows nor JSON such as {{"rows": 900}}',
        state="nothing was loaded",
    )


def _shown(path: str) -> str:
    """Return the name of the source: the base name of a file or directory, the whole of a pattern."""
    return path if glob.has_magic(path) else Path(path).name or path


def _local_names(path: str) -> tuple[str, ...]:
    """Return the files of rows at `path`, in the order of their names."""
    if not _is_many(path):
        return (path,)
    found = tuple(
        str(each) for name, each in sorted(_below(path).items()) if is_data(name) and not is_unfinished(name)
    )
    if not found:
        shown = _shown(path)
        raise absent(shown) if glob.has_magic(path) else refused(shown, "holds no file of rows")
    return found


def _read_local(path: str, limit_bytes: int) -> Bundle:
    """Read the delivery at `path`; raises as `open_source` does."""
    name = _shown(path)
    if not _is_many(path):
        file, _ = _read_file(Path(path), Path(path).name, name, limit_bytes)
        return Bundle(name, (file,), alone=True, limit_bytes=limit_bytes)
    found = _below(path)
    if not found and not Path(path).is_dir():
        raise absent(name)
    wanted = all_finished(found, name)
    files: list[File] = []
    looked: dict[str, _Looks] = {}
    left = limit_bytes
    for each in wanted:
        file, looked[each] = _read_file(found[each], each, f"{name}: {each}", left)
        left -= len(file.data)
        files.append(file)
    failpoint("source.read")
    later = _below(path)
    if all_finished(later, name) != wanted or any(
        _looks(later[each].stat()) != looked[each] for each in wanted
    ):
        raise changed(name)
    return Bundle(name, of_one_kind(files, name), alone=False, limit_bytes=limit_bytes)


def _is_many(path: str) -> bool:
    return Path(path).is_dir() or (glob.has_magic(path) and not Path(path).exists())


def _below(path: str) -> dict[str, Path]:
    """Return every file below the directory, or that matches the pattern, by its name within it.

    Raises `InputError` HF201 about what may hold rows and cannot be read as a file: a pipe, a device, a link that leads
    nowhere or to a directory, a directory that may not be listed. To pass it over would lose its rows in silence.
    """
    if glob.has_magic(path) and not Path(path).is_dir():
        fitting = [Path(found) for found in glob.glob(path, recursive=True)]  # noqa: PTH207 - the pattern may be absolute
        root = Path(os.path.commonpath([found.parent for found in fitting])) if fitting else Path()
        found = {each.relative_to(root).as_posix(): each for each in fitting if not each.is_dir()}
    else:
        found = {each.relative_to(path).as_posix(): each for each in _walk(path)}
    for name, each in sorted(found.items()):
        if is_data(name) and not each.is_file():
            raise refused(
                _shown(path),
                f"holds {name}, which is {_kind_of(each)}",
                next_command="put a file in its place, or name it with a leading '.' to pass it over",
            )
    return {name: each for name, each in found.items() if each.is_file()}


def _walk(path: str) -> Iterator[Path]:
    """Yield all that is below the directory but directories; a link to one counts, because it is not followed."""

    def stop(error: OSError) -> NoReturn:
        raise refused(_shown(path), f"cannot be listed ({error.strerror}: {error.filename})") from error

    for directory, inner, files in os.walk(path, onerror=stop):
        within = Path(directory)
        yield from (within / name for name in files)
        yield from (within / name for name in inner if (within / name).is_symlink())


def _kind_of(path: Path) -> str:
    if path.is_symlink():
        return "a link to a directory" if path.is_dir() else "a link to no file"
    if path.is_fifo():
        return "a pipe"
    return "a socket" if path.is_socket() else "a device"


def _read_file(path: Path, within: str, name: str, limit_bytes: int) -> tuple[File, _Looks]:
    try:
        with path.open("rb") as opened:
            before = os.fstat(opened.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise refused(name, "is not a file")
            if before.st_size > limit_bytes:
                raise too_large(name, limit_bytes)
            # One byte more shows that it has grown; a buffer of the whole limit would be memory for nothing.
            data = opened.read(before.st_size + 1)
            after = os.fstat(opened.fileno())
    except FileNotFoundError as error:
        raise absent(name) from error
    except OSError as error:
        raise refused(name, f"cannot be read ({error.strerror})") from error
    if _looks(before) != _looks(after) or len(data) != before.st_size:
        raise changed(name)
    return as_file(within, data, name), _looks(after)


def _looks(found: os.stat_result) -> _Looks:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
