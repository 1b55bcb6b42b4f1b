"""The first half of a load: from a sender's delivery to files that nobody can see yet.

read -> digest -> was it here before -> parse -> check by the contract -> Parquet files, synced. It writes nothing into the
ledger, so any process on any machine that sees the store's files may do it; `control.ingest.publish` does the rest, one
delivery after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import polars as pl

from holdfast.contract import BatchCheck, Contract, as_delivered, compile_batch
from holdfast.feeds import AlreadyLoaded, Feed, Load, Manifest, batch_id, content_digest, quarantine_table
from holdfast.records import BatchId
from holdfast.store import Store, batches, copies, sources
from holdfast.store.faults import fault_point
from holdfast.store.files import FileFacts, Stage

ROWS_PER_FILE: Final = 1_000_000
"""A larger batch becomes several files, which are written side by side."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A delivery that was read and checked. `valid` is in the order of event time, and of the delivery where that is equal;
    `quarantined` has the rows as they were delivered, with their reasons, which `reasons` counts.
    """

    manifest: Manifest
    source: str
    valid: pl.DataFrame
    quarantined: pl.DataFrame
    reasons: dict[str, int]

    @property
    def batch(self) -> BatchId:
        """Which delivery it is."""
        return BatchId(self.manifest.feed, self.manifest.batch)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A delivery whose rows lie in synced files that no row of the ledger names.

    `valid` are the rows, or None after `sendable`: then whoever publishes reads back what he needs of them.
    """

    manifest: Manifest
    source: str
    files: tuple[FileFacts, ...]
    valid: pl.DataFrame | None
    rows_loaded: int
    rows_quarantined: int
    reasons: dict[str, int]
    event_low_us: int | None
    event_high_us: int | None

    @property
    def batch(self) -> BatchId:
        """Which delivery it is."""
        return BatchId(self.manifest.feed, self.manifest.batch)

    def sendable(self) -> Prepared:
        """The same without its rows: a few kilobytes, however large the delivery is."""
        return replace(self, valid=None)


def prepare(store: Store, feed: Feed, batch: str, source: Path, stage: Stage) -> Prepared | Load:
    """Read, check and write the delivery at `source`, to be published as batch `batch` of `feed`.

    `stage` takes the files; they are orphans until they are published. Returns the `Load` when the very same content is
    loaded already, and then nothing was written. Raises as `examine` does.
    """
    found = examine(store, feed, batch, source)
    return found if isinstance(found, Load) else write(stage, found, feed)


def examine(store: Store, feed: Feed, batch: str, source: Path) -> Examined | Load:
    """Read the delivery at `source` and check every row of it; the `Load` when its content is there already.

    Raises `InputError` HF201 (source), HF202 (columns) and `ConflictError` HF203 (the id was loaded with other content, or
    the content with another id).
    """
    identity = batch_id(feed.name, batch)
    delivery = sources.open_source(source)
    fault_point("ingest.read")
    digest = content_digest([delivery.data])
    with store.ledger.read() as connection:
        known = batches.answer(connection, identity, digest)
    if isinstance(known, AlreadyLoaded):
        return known.load
    verdict = _check(feed.contract)(sources.parse(delivery, feed.contract, missing_words=feed.missing_words))
    fault_point("ingest.checked")
    return Examined(
        manifest=Manifest.of(identity, known.epoch, digest, feed.contract.hash, feed.contract.key),
        source=delivery.name,
        valid=_in_event_order(verdict.valid, feed.contract.event_time),
        quarantined=verdict.quarantined,
        reasons=verdict.counts,
    )


def write(stage: Stage, examined: Examined, feed: Feed) -> Prepared:
    """Write the rows of a delivery as files of the feed's table and of its quarantine, and sync them and their names.
    Of a delivery without a valid row nothing is written, because nothing of it will be published.
    """
    valid, quarantined = examined.valid, examined.quarantined
    times = valid[feed.contract.event_time].to_physical()
    low_us, high_us = (int(times[0]), int(times[-1])) if valid.height else (None, None)
    parts = -(-valid.height // ROWS_PER_FILE)
    manifest = examined.manifest.counted(
        rows_loaded=valid.height,
        rows_quarantined=quarantined.height,
        event_low_us=low_us,
        event_high_us=high_us,
        source=examined.source,
        files=parts + (not quarantined.is_empty()),
    )
    return Prepared(
        manifest=manifest,
        source=examined.source,
        files=_write(stage, feed, examined, manifest, parts) if parts else (),
        valid=valid,
        rows_loaded=valid.height,
        rows_quarantined=quarantined.height,
        reasons=examined.reasons,
        event_low_us=low_us,
        event_high_us=high_us,
    )


def _write(
    stage: Stage, feed: Feed, examined: Examined, manifest: Manifest, parts: int
) -> tuple[FileFacts, ...]:
    valid, footer = examined.valid, manifest.as_dict()
    size = -(-valid.height // parts)
    slices = [valid.slice(start, size) for start in range(0, valid.height, size)]
    copies.keep(stage.root, feed.contract.hash, feed.contract.to_json())
    written = stage.write_parts(feed.name, slices, footer, event_time=feed.contract.event_time)
    if not examined.quarantined.is_empty():
        written.append(stage.write(quarantine_table(feed.name), as_delivered(examined.quarantined), footer))
    stage.seal()
    return tuple(written)


@lru_cache(maxsize=64)
def _check(contract: Contract) -> BatchCheck:
    return compile_batch(contract)


def _in_event_order(frame: pl.DataFrame, event_time: str) -> pl.DataFrame:
    return frame if frame[event_time].is_sorted() else frame.sort(event_time, maintain_order=True)
