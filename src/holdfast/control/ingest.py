"""The load: from a sender's file to published rows. Idempotent: run it as often as you like, from wherever
you like.

read -> digest -> check by the contract -> valid and quarantined rows into synced Parquet files -> one
transaction that publishes them -> the answer. Until the transaction nothing is visible; after it everything
is. A load that was killed leaves at most files that no row of the ledger names, and the next load or
`holdfast verify` sweeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from holdfast.contract import BatchCheck, BatchVerdict, Contract, as_delivered, compile_batch
from holdfast.control.online import online_values
from holdfast.errors import InputError, UnavailableError
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import (
    AlreadyLoaded,
    Feed,
    Load,
    Manifest,
    Publish,
    batch_id,
    content_digest,
    quarantine_table,
)
from holdfast.records import BatchId
from holdfast.store import Store, batches, files, orphans, sources
from holdfast.store.batches import Overtaken, Publication, Published, Swept
from holdfast.store.faults import fault_point
from holdfast.store.files import FileFacts, Stage

ROWS_PER_FILE: Final = 1_000_000
"""A larger batch becomes several files, which are written side by side."""

_MOST_ATTEMPTS: Final = 100
_MOST_SWEEPS: Final = 3

Step = Callable[[int, int], None]
"""Told how much of the work is done, of how much."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What is true after the load. "already_loaded": the very same content was there before, and nothing was
    written.

    `reasons` says how many rows each reason put into quarantine; it is empty for a batch that was there
    before.
    """

    feed: str
    batch: str
    epoch: int
    state: Literal["loaded", "already_loaded"]
    rows_received: int
    rows_loaded: int
    rows_quarantined: int
    reasons: dict[str, int]
    table_version: int
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """The result as plain JSON."""
        return asdict(self)


def ingest(
    store: Store,
    feed: Feed,
    batch: str,
    source: Path,
    *,
    now_us: int,
    aggregates: Sequence[Aggregate] = (),
    progress: Step | None = None,
) -> LoadResult:
    """Load the file at `source` as batch `batch` of `feed`, whole and once; on return it is durable and
    visible.

    Parameters
    ----------
    batch
        The sender's id of the delivery. The same id with the same bytes is a no-op, from any number of
        processes.
    now_us
        The moment of the load, microseconds since 1970 UTC.
    aggregates
        Those over this feed are brought up to date in the same transaction, and with them what was declared over it
        before; others are ignored.
    progress
        Told (done, of) at each step.

    Rows keep the order of their event time, and rows with the same event time the order of the file. Raises
    `InputError` HF201 (source), HF202 (columns), HF204 (no valid row), `ConflictError` HF203 (the id was
    loaded with other content, or the content with another id) and `UnavailableError`
    HF205 (the answer to the commit was lost and cannot be
    had: run it again). After any error nothing was loaded, except that after HF205 the batch may be there,
    completely.
    """
    fault_point("ingest.begun")
    identity = batch_id(feed.name, batch)
    tell = progress or _silent
    orphans.sweep_dead_attempts(store)
    delivery = sources.open_source(source)
    fault_point("ingest.read")
    digest = content_digest([delivery.data])
    answer = _known(store, identity, digest)
    if isinstance(answer, AlreadyLoaded):
        return _already(identity, answer.load)
    tell(1, 4)
    verdict = _check(feed.contract)(sources.parse(delivery, feed.contract, missing_words=feed.missing_words))
    fault_point("ingest.checked")
    if verdict.valid.is_empty():
        raise _no_valid_row(store, identity, verdict, now_us)
    tell(2, 4)
    manifest = Manifest.of(identity, answer.epoch, digest, feed.contract.hash, feed.contract.key)
    valid = _in_event_order(verdict.valid, feed.contract.event_time)
    mine = [aggregate for aggregate in aggregates if aggregate.over == feed.name]
    for _ in range(_MOST_SWEEPS):
        with files.staged(store.root) as stage:
            written = _write(stage, feed, valid, verdict.quarantined, manifest)
            tell(3, 4)
            fault_point("ingest.before_publish")
            publication = _publication(
                manifest, written, valid, verdict, feed.contract.event_time, delivery.name
            )
            outcome = _publish(store, feed, publication, mine, valid, now_us)
            if not isinstance(outcome, Published):
                stage.discard()
        if not isinstance(outcome, Swept):
            break
    if isinstance(outcome, Swept):
        raise _always_swept(identity)
    if isinstance(outcome, AlreadyLoaded):
        return _already(identity, outcome.load)
    tell(4, 4)
    fault_point("ingest.before_acknowledge")
    return LoadResult(
        feed=feed.name,
        batch=batch,
        epoch=manifest.epoch,
        state="loaded",
        rows_received=valid.height + verdict.quarantined.height,
        rows_loaded=valid.height,
        rows_quarantined=verdict.quarantined.height,
        reasons=verdict.counts,
        table_version=outcome.table_version,
        digest=digest,
    )


@lru_cache(maxsize=64)
def _check(contract: Contract) -> BatchCheck:
    return compile_batch(contract)


def _silent(_done: int, _of: int) -> None:
    """Progress that nobody watches."""


def _known(store: Store, identity: BatchId, digest: str) -> Publish | AlreadyLoaded:
    with store.ledger.read() as connection:
        return batches.answer(connection, identity, digest)


def _in_event_order(frame: pl.DataFrame, event_time: str) -> pl.DataFrame:
    return frame if frame[event_time].is_sorted() else frame.sort(event_time, maintain_order=True)


def _write(
    stage: Stage, feed: Feed, valid: pl.DataFrame, quarantined: pl.DataFrame, manifest: Manifest
) -> tuple[FileFacts, ...]:
    parts = -(-valid.height // ROWS_PER_FILE)
    size = -(-valid.height // parts)
    slices = [valid.slice(start, size) for start in range(0, valid.height, size)]
    written = stage.write_parts(feed.name, slices, manifest.as_dict())
    if not quarantined.is_empty():
        written.append(
            stage.write(quarantine_table(feed.name), as_delivered(quarantined), manifest.as_dict())
        )
    stage.seal()
    return tuple(written)


def _publication(
    manifest: Manifest,
    written: tuple[FileFacts, ...],
    valid: pl.DataFrame,
    verdict: BatchVerdict,
    event_time: str,
    source: str,
) -> Publication:
    times = valid[event_time].to_physical()
    return Publication(
        manifest=manifest,
        files=written,
        rows_loaded=valid.height,
        rows_quarantined=verdict.quarantined.height,
        event_low_us=int(times[0]),
        event_high_us=int(times[-1]),
        source=source,
        explanation=f"{valid.height} rows loaded from {source}" + _words(verdict),
    )


def _publish(
    store: Store,
    feed: Feed,
    publication: Publication,
    aggregates: Sequence[Aggregate],
    valid: pl.DataFrame,
    now_us: int,
) -> Published | AlreadyLoaded | Swept:
    """Publish; when another batch of the feed came first, what depends on its rows is computed again."""
    for _ in range(_MOST_ATTEMPTS):
        computed = online_values(store, feed, aggregates, valid)
        publication = replace(
            publication,
            online=computed.values,
            definitions=computed.definitions,
            basis=computed.basis,
        )
        outcome = batches.publish(store, publication, now_us=now_us)
        if not isinstance(outcome, Overtaken):
            return outcome
    raise UnavailableError(
        "HF302",
        f"other loads of {publication.batch.feed} came first {_MOST_ATTEMPTS} times",
        state="nothing was loaded",
        next_command="the same command again",
    )


def _always_swept(identity: BatchId) -> UnavailableError:
    return UnavailableError(
        "HF302",
        f"the files of batch {identity} were removed {_MOST_SWEEPS} times while it was loaded",
        state="nothing was loaded",
        next_command="keep the store on a file system with locks (flock), then the same command again",
    )


def _no_valid_row(store: Store, identity: BatchId, verdict: BatchVerdict, now_us: int) -> InputError:
    """The refusal of a batch of which nothing can be used. Its id stays free: a corrected delivery may use
    it.
    """
    rows = verdict.quarantined.height
    held = (
        f"none of the {rows} rows of batch {identity} is valid{_words(verdict)}"
        if rows
        else f"batch {identity} has no row"
    )
    batches.record_refusal(store, identity, held, now_us=now_us)
    return InputError(
        "HF204",
        held,
        state="nothing was loaded; the rows are in the source, the reasons in the events, the id is free",
        next_command=f"holdfast check {identity.feed} <file>",
    )


def _words(verdict: BatchVerdict) -> str:
    if not verdict.counts:
        return ""
    counted = sorted(verdict.counts.items(), key=lambda reason: -reason[1])
    listed = ", ".join(f"{count} {reason}" for reason, count in counted[:5])
    more = f" and {len(counted) - 5} more reasons" if len(counted) > 5 else ""
    return f"; {verdict.quarantined.height} in quarantine: {listed}{more}"


def _already(identity: BatchId, load: Load) -> LoadResult:
    return LoadResult(
        feed=identity.feed,
        batch=identity.batch,
        epoch=load.epoch,
        state="already_loaded",
        rows_received=load.rows_received,
        rows_loaded=load.rows_loaded,
        rows_quarantined=load.rows_quarantined,
        reasons={},
        table_version=load.table_version,
        digest=load.digest,
    )
