"""Step 1 of a load: read a delivery into memory and digest it."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.feeds import Feed, batch_id, content_digest
from holdfast.records import BatchId
from holdfast.store import sources
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.sources import Source, Spec, opener


@dataclass(frozen=True, slots=True)
class DeliverySpec:
    """A delivery to load: the sender's batch id, the location, and the number of rows that the sender declares."""

    batch: str
    source: Spec
    rows_expected: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery in memory; `digest` is the SHA-256 of its content, `rows_expected` the sender's number of rows."""

    batch: BatchId
    source: Source
    digest: str
    rows_expected: int | None


def read(feed: Feed, spec: DeliverySpec) -> Delivery:
    """Read the delivery at `spec` for `feed`.

    Without `spec.rows_expected` the number of rows is that of the control file, if there is one. Raises as
    `sources.open_source` does, and `InputError` HF101 on a batch id that cannot be used.
    """
    identity = batch_id(feed.name, spec.batch)
    source = sources.open_source(spec.source)
    rows_expected = opener.rows_declared(spec.source) if spec.rows_expected is None else spec.rows_expected
    failpoint("ingest.read")
    return Delivery(identity, source, content_digest(source.pieces()), rows_expected)
