"""Files of this machine: one file, those below a directory, or those that match a pattern."""

from __future__ import annotations

import glob
import os
import stat
from pathlib import Path
from typing import TypeAlias

from holdfast.errors import InputError
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.sources.delivery import (
    Bundle,
    File,
    all_finished,
    as_file,
    is_data,
    is_unfinished,
    of_one_kind,
    refused,
    too_large,
)

_Looks: TypeAlias = tuple[int, int, int, int]


def shown(path: str) -> str:
    """Return the name of the source: the base name of a file or directory, the whole of a pattern."""
    return path if glob.has_magic(path) else Path(path).name or path


def names(path: str) -> tuple[str, ...]:
    """Return the files of rows at `path`, in the order of their names."""
    if not _is_many(path):
        return (path,)
    found = tuple(
        str(each) for name, each in sorted(_below(path).items()) if is_data(name) and not is_unfinished(name)
    )
    if not found:
        raise refused(shown(path), "does not exist" if glob.has_magic(path) else "holds no file of rows")
    return found


def read(path: str, limit_bytes: int) -> Bundle:
    """Read the delivery at `path`; raises as `open_source` does."""
    name = shown(path)
    if not _is_many(path):
        file, _ = _read(Path(path), Path(path).name, name, limit_bytes)
        return Bundle(name, (file,), alone=True, limit_bytes=limit_bytes)
    found = _below(path)
    wanted = all_finished(found, name)
    files: list[File] = []
    looked: dict[str, _Looks] = {}
    left = limit_bytes
    for each in wanted:
        file, looked[each] = _read(found[each], each, f"{name}: {each}", left)
        left -= len(file.data)
        files.append(file)
    failpoint("source.read")
    later = _below(path)
    if all_finished(later, name) != wanted or any(
        _looks(later[each].stat()) != looked[each] for each in wanted
    ):
        raise _changed(name)
    return Bundle(name, of_one_kind(files, name), alone=False, limit_bytes=limit_bytes)


def _is_many(path: str) -> bool:
    return Path(path).is_dir() or (glob.has_magic(path) and not Path(path).exists())


def _below(path: str) -> dict[str, Path]:
    """Return every file below the directory, or that matches the pattern, by its name within it."""
    if glob.has_magic(path) and not Path(path).is_dir():
        fitting = [Path(found) for found in glob.glob(path, recursive=True)]  # noqa: PTH207 - the pattern may be absolute
        root = Path(os.path.commonpath([found.parent for found in fitting])) if fitting else Path()
        return {found.relative_to(root).as_posix(): found for found in fitting if found.is_file()}
    return {found.relative_to(path).as_posix(): found for found in Path(path).rglob("*") if found.is_file()}


def _read(path: Path, within: str, name: str, limit_bytes: int) -> tuple[File, _Looks]:
    try:
        with path.open("rb") as opened:
            before = os.fstat(opened.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise refused(name, "is not a file")
            if before.st_size > limit_bytes:
                raise too_large(name, limit_bytes)
            data = opened.read(limit_bytes + 1)
            after = os.fstat(opened.fileno())
    except OSError as error:
        raise _unreadable(name, error) from error
    if _looks(before) != _looks(after) or len(data) != before.st_size:
        raise _changed(name)
    return as_file(within, data, name), _looks(after)


def _looks(found: os.stat_result) -> _Looks:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _changed(name: str) -> InputError:
    return refused(
        name, "changed while it was read", next_command="the same command when the delivery is complete"
    )


def _unreadable(name: str, error: OSError) -> InputError:
    missing = isinstance(error, FileNotFoundError)
    return refused(name, "does not exist" if missing else f"cannot be read ({error.strerror})")
