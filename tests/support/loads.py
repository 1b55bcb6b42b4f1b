"""Loads that exist without a delivery: rows of the catalog, and the files that they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from holdfast.feeds import Manifest
from holdfast.store import Store
from holdfast.store.catalog import batches, online_features
from holdfast.store.catalog.online_features import OnlineValue
from holdfast.store.files.data_files import FileFacts


def insert_load(
    store: Store,
    manifest: Manifest,
    files: Sequence[FileFacts],
    *,
    low_us: int | None,
    high_us: int | None,
    online: Sequence[OnlineValue] = (),
    now_us: int = 5,
) -> int:
    """Insert a load of all rows in `files`, none of them in quarantine; return its table version."""
    counted = replace(
        manifest,
        rows_loaded=sum(fact.rows for fact in files),
        rows_quarantined=0,
        event_time_min_us=low_us,
        event_time_max_us=high_us,
        source="x",
        files=len(files),
    )
    with store.ledger.write() as connection:
        version = batches.new_version(connection, f"load {manifest.feed}/{manifest.batch}", now_us)
        batches.insert(connection, counted, files, version)
        online_features.upsert(connection, online, version)
    return version
