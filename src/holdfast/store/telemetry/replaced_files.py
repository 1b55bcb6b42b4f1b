"""Collected files that a compaction replaced: set aside for readers that had their names before, and deleted by age.

A reader lists files in the ledger and reads them later, a back-out maybe hours later. So a replaced file is moved, by one
rename, from the directory of rows to one of its own, where such a reader finds it. It is in one of the two places at any time.
No row names it, so a rebuild of the ledger does not look there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from holdfast.errors import IntegrityError
from holdfast.lazy_module import LazyModule
from holdfast.store.durability import fsync
from holdfast.store.files import parquet

if TYPE_CHECKING:
    import polars as pl
else:
    pl = LazyModule("polars")

REPLACED_DIRECTORY: Final = "replaced"


def set_aside(root: Path, paths: Sequence[str], *, now_us: int) -> None:
    """Move files that the ledger names no more, relative to `root`. One that is gone already is passed over."""
    directory = root / REPLACED_DIRECTORY
    fsync.make_directory(directory)
    for path in paths:
        with suppress(FileNotFoundError):
            os.utime(root / path, ns=(now_us * 1000, now_us * 1000))  # its age in the directory counts
            named, replaced = places_of(root, path)
            named.rename(replaced)


def older_than(root: Path, before_us: int) -> list[str]:
    """Return the files that were set aside before `before_us`, microseconds since 1970 UTC, relative to `root`."""
    directory = root / REPLACED_DIRECTORY
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        found = [each.name for each in entries if each.stat().st_mtime_ns < before_us * 1000]
    return sorted(f"{REPLACED_DIRECTORY}/{name}" for name in found)


def places_of(root: Path, path: str) -> tuple[Path, Path]:
    """Return where a file of rows or predictions may be: where the ledger names it, then where it is once it was replaced."""
    return root / path, root / REPLACED_DIRECTORY / Path(path).name


def read(root: Path, path: str, columns: Sequence[str]) -> pl.DataFrame:
    """Return the named columns of a collected file, which may have been replaced since its name was read.

    Raises `IntegrityError` HF301 if it is in neither place, or damaged.
    """
    named, replaced = places_of(root, path)
    try:
        return parquet.read(named, columns)
    except IntegrityError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
    return parquet.read(replaced, columns)
