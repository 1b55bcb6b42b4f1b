"""The load: from a sender's file to published rows. Idempotent: run it as often as you like, from wherever
you like.

`prepare` reads, checks and writes; `publish` makes what was prepared exist in one transaction. Until the transaction
nothing is visible; after it everything is. A load that was killed leaves at most files that no row of the ledger names,
and the next load or `holdfast verify` sweeps them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from holdfast.contract import dtypes
from holdfast.control.online import online_values
from holdfast.control.prepare import ROWS_PER_FILE, Examined, Prepared, examine, prepare, write
from holdfast.errors import InputError, UnavailableError
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import AlreadyLoaded, Feed, Load
from holdfast.records import BatchId
from holdfast.store import Store, batches, files, orphans
from holdfast.store.batches import Overtaken, Publication, Published, Swept
from holdfast.store.faults import fault_point

__all__ = [
    "ROWS_PER_FILE",
    "Examined",
    "LoadResult",
    "Prepared",
    "examine",
    "ingest",
    "prepare",
    "publish",
    "write",
]

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
    attempts: Iterator[str] | None = None,
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
    attempts
        Ids of attempts, of 32 hexadecimal digits, each used once in a store; None draws random ones. The same ids give
        the same ledger, bit for bit.
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
    tell = progress or _silent
    orphans.sweep_dead_attempts(store)
    tell(1, 4)
    found = examine(store, feed, batch, source)
    if isinstance(found, Load):
        return _already(BatchId(feed.name, batch), found)
    tell(2, 4)
    for _ in range(_MOST_SWEEPS):
        with files.staged(store.root, next(attempts) if attempts else uuid.uuid4().hex) as stage:
            prepared = write(stage, found, feed)
            tell(3, 4)
            result = publish(store, feed, prepared, aggregates=aggregates, now_us=now_us)
            if not (isinstance(result, LoadResult) and result.state == "loaded"):
                stage.discard()
        if isinstance(result, LoadResult):
            tell(4, 4)
            return result
    raise _always_swept(found.batch)


def publish(
    store: Store, feed: Feed, prepared: Prepared, *, now_us: int, aggregates: Sequence[Aggregate] = ()
) -> LoadResult | Swept:
    """Make what was prepared exist, all of it or nothing. `Swept` when its files are gone: then it must be prepared again.

    Publish deliveries of a feed one after the other in the order in which they are to count: each is judged by those that
    were published before it. Raises as `ingest` does; after any error but HF205 the files of `prepared` are orphans.
    """
    if not prepared.rows_loaded:
        raise _no_valid_row(store, prepared, now_us)
    fault_point("ingest.before_publish")
    mine = [aggregate for aggregate in aggregates if aggregate.over == feed.name]
    outcome = _publish(store, feed, prepared, mine, now_us)
    match outcome:
        case Swept():
            return outcome
        case AlreadyLoaded(load):
            return _already(prepared.batch, load)
        case Published(version):
            fault_point("ingest.before_acknowledge")
            return _loaded(prepared, version)


def _silent(_done: int, _of: int) -> None:
    """Progress that nobody watches."""


def _publication(prepared: Prepared) -> Publication:
    return Publication(
        manifest=prepared.manifest,
        files=prepared.files,
        rows_loaded=prepared.rows_loaded,
        rows_quarantined=prepared.rows_quarantined,
        event_low_us=prepared.event_low_us,
        event_high_us=prepared.event_high_us,
        source=prepared.source,
        explanation=f"{prepared.rows_loaded} rows loaded from {prepared.source}" + _words(prepared),
    )


def _publish(
    store: Store, feed: Feed, prepared: Prepared, aggregates: Sequence[Aggregate], now_us: int
) -> Published | AlreadyLoaded | Swept:
    """Publish; when another batch of the feed came first, what depends on its rows is computed again."""
    publication, valid = _publication(prepared), _rows(store, feed, prepared)
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


def _rows(store: Store, feed: Feed, prepared: Prepared) -> pl.DataFrame:
    if prepared.valid is not None:
        return prepared.valid
    mine = [fact for fact in prepared.files if fact.table == feed.name]
    return files.read(store.root, mine, dtypes(feed.contract))


def _always_swept(identity: BatchId) -> UnavailableError:
    return UnavailableError(
        "HF302",
        f"the files of batch {identity} were removed {_MOST_SWEEPS} times while it was loaded",
        state="nothing was loaded",
        next_command="keep the store on a file system with locks (flock), then the same command again",
    )


def _no_valid_row(store: Store, prepared: Prepared, now_us: int) -> InputError:
    """The refusal of a batch of which nothing can be used. Its id stays free: a corrected delivery may use
    it.
    """
    identity, rows = prepared.batch, prepared.rows_quarantined
    held = (
        f"none of the {rows} rows of batch {identity} is valid{_words(prepared)}"
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


def _words(prepared: Prepared) -> str:
    if not prepared.reasons:
        return ""
    counted = sorted(prepared.reasons.items(), key=lambda reason: -reason[1])
    listed = ", ".join(f"{count} {reason}" for reason, count in counted[:5])
    more = f" and {len(counted) - 5} more reasons" if len(counted) > 5 else ""
    return f"; {prepared.rows_quarantined} in quarantine: {listed}{more}"


def _loaded(prepared: Prepared, version: int) -> LoadResult:
    return LoadResult(
        feed=prepared.manifest.feed,
        batch=prepared.manifest.batch,
        epoch=prepared.manifest.epoch,
        state="loaded",
        rows_received=prepared.rows_loaded + prepared.rows_quarantined,
        rows_loaded=prepared.rows_loaded,
        rows_quarantined=prepared.rows_quarantined,
        reasons=prepared.reasons,
        table_version=version,
        digest=prepared.manifest.digest,
    )


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
