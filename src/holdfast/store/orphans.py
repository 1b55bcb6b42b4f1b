"""Orphans: files that a dead loader wrote and no transaction named. The sweep removes them and can run at any moment.

A file is an orphan when the ledger does not name it *and* no process holds its lock. Both are looked at inside a write
transaction, and a publisher looks inside its own whether its files are still there: so even a loader that lost its
lock (a file system without locks) can lose its attempt but never publish a file that is gone.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from holdfast.store import Store, schema
from holdfast.store.files import ROWS_DIRECTORY

_NAMED: Final = (schema.files.c.path, schema.prediction_files.c.path)


def sweep(store: Store) -> list[str]:
    """Remove every orphan under the rows directory and return their paths, relative to the store's root."""
    candidates = _unnamed(store)
    if not candidates:
        return []
    swept = []
    with store.ledger.write() as connection:
        named = _named(connection, candidates)
        for path in candidates:
            if path not in named and _remove_if_unlocked(store.root / path):
                swept.append(path)
    return swept


def _unnamed(store: Store) -> list[str]:
    """Paths on disk that the ledger does not name; a first look that holds nobody up."""
    directory = store.root / ROWS_DIRECTORY
    if not directory.is_dir():
        return []
    # The directory first: a file that is published between the two looks is then in the second.
    on_disk = [f"{ROWS_DIRECTORY}/{entry.name}" for entry in os.scandir(directory) if entry.is_file()]
    with store.ledger.read() as connection:
        named = _named(connection, on_disk)
    return sorted(set(on_disk) - named)


def _named(connection: Connection, paths: list[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(paths), 500):  # databases bound the parameters of one statement
        part = paths[start : start + 500]
        for column in _NAMED:
            found.update(connection.execute(select(column).where(column.in_(part))).scalars())
    return found


def _remove_if_unlocked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:  # another sweep was faster
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:  # its loader lives, or this file system cannot tell: leave it
        return False
    finally:
        os.close(descriptor)
    return True
