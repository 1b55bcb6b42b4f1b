"""Orphans: files that a dead loader wrote and no transaction named. Sweeping them is safe at any moment.

A file is an orphan when the ledger does not name it *and* no process holds the lock of its attempt. Both are
looked at inside a write transaction, and a publisher looks inside its own whether its files are still there:
so even a loader whose lock was lost (a file system without locks) can lose its attempt, but never publish a
file that is gone.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from holdfast.store import Store, schema
from holdfast.store.files import ATTEMPTS_DIRECTORY, ROWS_DIRECTORY

_NAMED: Final = (schema.files.c.path, schema.prediction_files.c.path)


def sweep_dead_attempts(store: Store) -> list[str]:
    """Remove what dead loaders left, found by their markers: costs one look into a directory that is mostly
    empty.

    Returns the removed paths, relative to the store's root. After a power cut a marker may be gone while its
    files are not; `sweep` finds these too.
    """
    dead = [marker for marker in _entries(store.root / ATTEMPTS_DIRECTORY) if not _is_locked(marker)]
    swept: list[str] = []
    for marker in dead:
        rows = store.root / ROWS_DIRECTORY
        left = [f"{ROWS_DIRECTORY}/{path.name}" for path in rows.glob(f"{marker.name}-*")]
        swept += _remove(store, left, lambda _path: False)
        marker.unlink(missing_ok=True)
    return swept


def sweep(store: Store) -> list[str]:
    """Remove every orphan, with a marker or without: looks at every name in the rows directory."""
    swept = sweep_dead_attempts(store)
    # The directory first: a file that is published between the two looks is then in the second.
    on_disk = [f"{ROWS_DIRECTORY}/{path.name}" for path in _entries(store.root / ROWS_DIRECTORY)]
    with store.ledger.read() as connection:
        unnamed = sorted(set(on_disk) - _named(connection, on_disk))

    def lives(path: str) -> bool:
        attempt = Path(path).name.partition("-")[0]
        return _is_locked(store.root / ATTEMPTS_DIRECTORY / attempt)

    return swept + _remove(store, unnamed, lives)


def _remove(store: Store, paths: list[str], lives: Callable[[str], bool]) -> list[str]:
    if not paths:
        return []
    removed = []
    with store.ledger.write() as connection:
        named = _named(connection, paths)
        for path in paths:
            if path not in named and not lives(path):
                (store.root / path).unlink(missing_ok=True)
                removed.append(path)
    return removed


def _entries(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_file()] if directory.is_dir() else []


def _named(connection: Connection, paths: list[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(paths), 500):  # databases bound the parameters of one statement
        part = paths[start : start + 500]
        for column in _NAMED:
            found.update(connection.execute(select(column).where(column.in_(part))).scalars())
    return found


def _is_locked(marker: Path) -> bool:
    """Whether a living process holds the marker; a file system that cannot tell counts as yes."""
    try:
        descriptor = os.open(marker, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
