"""Durable writes: bytes are synced, then their name, and only then acknowledged.

The guarantee holds for file systems that honour fsync.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Final

from holdfast.errors import IntegrityError
from holdfast.store.durability import access

UNFINISHED: Final = ".unfinished"
"""Suffix of a file that is being written; one that stays behind was left by a writer that was killed."""


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`; one call of write(2) may write less."""
    rest = memoryview(data).cast("B")
    while len(rest) > 0:
        rest = rest[os.write(descriptor, rest) :]


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Make every file and name under `directory` durable, for files that another library wrote."""
    for path in (*directory.rglob("*"), directory):
        sync(path)


def files_in(directory: Path) -> list[Path]:
    """Return the path of every JSON file in `directory`, in order of its name, without unfinished ones."""
    return sorted(path for path in directory.glob("*.json") if path.name[0] != ".")


def damaged(what: str, reason: str) -> IntegrityError:
    """Return the error of a file, called `what`, that is not as it was written: HF301."""
    return IntegrityError(
        "HF301", f"{what} {reason}", state="nothing was changed", next_command="holdfast verify --repair"
    )


def make_directory(directory: Path) -> None:
    """Create `directory` and its missing parents, durably."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(mode=access.directory_mode(), exist_ok=True)
    sync(directory.parent)


def replace(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Replace the content of `path` by `data`, durably, with permissions `mode`, by default those of a store.

    A concurrent reader gets the old bytes or the new ones, complete.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        descriptor = os.open(
            unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, access.file_mode() if mode is None else mode
        )
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    sync(path.parent)
