"""Orphans: files that a dead process left unfinished and no transaction named. Sweeping them is always safe.

A sweep holds the lock of the file, which a living maker would hold, while it looks and removes, and only then asks the ledger
whether the file is named. On a file system without locks a living maker may lose its attempt, but it never publishes a file
that is gone. Directory and ledger are read in turn under these locks, so the functions take the `Store`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy import select

from holdfast.store.backout import tombstones
from holdfast.store.catalog.delta import EXPORTED_DIRECTORY, PUBLISHED_DIRECTORY
from holdfast.store.catalog.delta_log import DRAFT
from holdfast.store.db import schema
from holdfast.store.db.ledger import Store
from holdfast.store.durability import fsync
from holdfast.store.durability.file_locks import seized
from holdfast.store.files import blobs
from holdfast.store.files.data_files import ROWS_DIRECTORY
from holdfast.store.files.staging import (
    ATTEMPTS_DIRECTORY,
    files_in,
    named_in_ledger,
    remove_unnamed,
    sweep_dead_attempts,
)
from holdfast.store.maintenance import footer_scan, rebuild_catalog
from holdfast.tables.snapshots import LoadKey


def sweep(store: Store) -> list[str]:
    """Remove every orphan: unnamed rows, blobs of no version, unfinished blobs and drafts of tables.

    It lists the whole rows directory. Loads of `lost_loads` are no orphans. Returns the removed paths,
    relative to the store's root.
    """
    swept = sweep_dead_attempts(store)
    kept = {path for paths in lost_loads(store).values() for path in paths}
    for path in sorted(set(unnamed(store)) - kept):
        attempt = Path(path).name.partition("-")[0]
        with seized(store.root / ATTEMPTS_DIRECTORY / attempt) as dead:
            if dead:
                swept += remove_unnamed(store, [store.root / path])
    return swept + _sweep_blobs(store) + _sweep_drafts(store)


def unnamed(store: Store) -> list[str]:
    """Return every file in the rows directory that the ledger does not name, relative to the store's root."""
    # The directory first: a file that is published between the two looks is then in the second.
    on_disk = [str(path.relative_to(store.root)) for path in files_in(store.root / ROWS_DIRECTORY)]
    with store.ledger.read() as connection:
        return sorted(set(on_disk) - named_in_ledger(connection, on_disk))


def lost_loads(store: Store) -> dict[LoadKey, tuple[str, ...]]:
    """Find complete loads on disk whose publishing transaction the ledger has lost. Returns their file paths by load.

    A loader that fails or dies leaves the marker of its attempt, and one whose work is superfluous removes its files. So these
    loads were published, or a power failure removed the marker before the names of the files were durable.
    """
    attempts: dict[str, list[tuple[str, footer_scan.Part]]] = {}
    for path in unnamed(store):
        attempt = Path(path).name.partition("-")[0]
        parts = footer_scan.footer_of(store.root, path)
        if len(parts) == 1 and not (store.root / ATTEMPTS_DIRECTORY / attempt).exists():
            attempts.setdefault(attempt, []).append((path, parts[0]))
    found = {}
    with store.ledger.read() as connection:
        for files in attempts.values():
            part = files[0][1]
            is_complete = sorted(each.number for _, each in files) == list(range(part.manifest.files))
            has_tombstone = tombstones.path_of(store.root, part.load).exists()
            if is_complete and not has_tombstone and rebuild_catalog.is_free(connection, part.manifest):
                found[part.load] = tuple(path for path, _ in files)
    return found


def _sweep_blobs(store: Store) -> list[str]:
    """Remove blobs that no version names, unless a process is writing blobs: it names them afterwards."""
    unfinished = list((store.root / blobs.BLOBS_DIRECTORY).glob(f"*/*{fsync.UNFINISHED}"))
    with blobs.without_writers(store.root) as alone:
        if not alone:
            return []
        digests = blobs.on_disk(store.root)
        with store.ledger.read() as connection:
            kept = set(connection.execute(select(schema.versions.c.digest)).scalars())
        removed = [*unfinished, *(blobs.path_of(store.root, digest) for digest in sorted(digests - kept))]
        for path in removed:
            path.unlink(missing_ok=True)
    return [str(path.relative_to(store.root)) for path in removed]


def _sweep_drafts(store: Store) -> list[str]:
    swept = []
    patterns = (f"{EXPORTED_DIRECTORY}/*{DRAFT}", f"{PUBLISHED_DIRECTORY}/*/*{DRAFT}")
    for draft in sorted(path for pattern in patterns for path in store.root.glob(pattern)):
        with seized(draft) as dead:
            if dead:
                shutil.rmtree(draft)
                swept.append(str(draft.relative_to(store.root)))
    return swept
