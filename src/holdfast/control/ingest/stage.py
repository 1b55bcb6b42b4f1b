"""Step 3 of a load: write the rows of a validated batch as synced files that no row of the ledger names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl

from holdfast.contract.batch.compiler import dtypes, to_text_rows
from holdfast.contract.profile.profile import Profile
from holdfast.contract.schema.source_metadata import column_metadata
from holdfast.control.ingest.validate import ValidatedBatch
from holdfast.feeds import Feed, Manifest, quarantine_table
from holdfast.feeds.measurements import DeliveryFacts
from holdfast.records import BatchId, Violation
from holdfast.store.feeds import contracts
from holdfast.store.feeds.loaded_rows import Referred
from holdfast.store.files import data_files
from holdfast.store.files.data_files import FileFacts
from holdfast.store.files.staging import Stage

ROWS_PER_FILE: Final = 1_000_000
"""A larger batch becomes several files, which are written in parallel."""


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """A validated batch whose rows lie in synced files; its other fields are those of `ValidatedBatch`.

    `valid` is None after `without_rows`, so that a worker sends a few kilobytes however large the batch is.
    """

    manifest: Manifest
    files: tuple[FileFacts, ...]
    valid: pl.DataFrame | None
    facts: DeliveryFacts
    profile: Profile
    violations: tuple[Violation, ...]
    basis: int
    referred: tuple[Referred, ...]

    @property
    def batch(self) -> BatchId:
        """The id of the delivery."""
        return BatchId(self.manifest.feed, self.manifest.batch)

    def without_rows(self) -> StagedBatch:
        """Return the batch without its rows in memory."""
        return replace(self, valid=None)

    def rows(self, root: Path, feed: Feed) -> pl.DataFrame:
        """Return the valid rows, read back from the staged files below `root` if they are not in memory."""
        if self.valid is not None:
            return self.valid
        if not self.files:
            return pl.DataFrame(schema=dtypes(feed.contract))
        mine = [fact for fact in self.files if fact.table == feed.name]
        return data_files.read(root, mine, dtypes(feed.contract))


def stage(place: Stage, validated: ValidatedBatch, feed: Feed) -> StagedBatch:
    """Write `validated` as files of the feed's table and of its quarantine table, and sync them and their names.

    Of a batch without a valid row nothing is written, because nothing of it will be committed.
    """
    valid, quarantined = validated.valid, validated.quarantined
    parts = -(-valid.height // ROWS_PER_FILE)
    manifest = replace(
        validated.manifest,
        rows_loaded=valid.height,
        rows_quarantined=quarantined.height,
        event_time_min_us=validated.facts.event_time_min_us,
        event_time_max_us=validated.facts.event_time_max_us,
        source=validated.source,
        files=parts + (not quarantined.is_empty()),
    )
    return StagedBatch(
        manifest=manifest,
        files=_write(place, feed, validated, manifest, parts) if parts else (),
        valid=valid,
        facts=validated.facts,
        profile=validated.profile,
        violations=validated.violations,
        basis=validated.basis,
        referred=validated.referred,
    )


def _write(
    place: Stage, feed: Feed, validated: ValidatedBatch, manifest: Manifest, parts: int
) -> tuple[FileFacts, ...]:
    valid, footer = validated.valid, manifest.as_dict()
    size = -(-valid.height // parts)
    slices = [valid.slice(start, size) for start in range(0, valid.height, size)]
    # Before the files: their footers name the contract by its hash.
    contracts.keep_copy(place.root, feed.contract.hash, feed.contract.to_json())
    written = place.write_parts(
        feed.name,
        slices,
        footer,
        event_time=feed.contract.event_time,
        fields=column_metadata(feed.contract),
    )
    if not validated.quarantined.is_empty():
        written.append(place.write(quarantine_table(feed.name), to_text_rows(validated.quarantined), footer))
    place.sync()
    return tuple(written)
