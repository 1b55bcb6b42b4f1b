"""The load: from a sender's file to published rows. Idempotent: run it as often as you like, from wherever
you like.

`prepare` reads, checks and writes; `publish` makes what was prepared exist in one transaction. Until the transaction
nothing is visible; after it everything is. A load that was killed leaves at most files that no row of the ledger names,
and the next load or `holdfast verify` sweeps them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import polars as pl

from holdfast.contract import dtypes
from holdfast.control.ingest import duplicate_keys
from holdfast.control.ingest.admission import Judged, judge
from holdfast.control.ingest.online_features import online_values
from holdfast.control.ingest.prepare import ROWS_PER_FILE, Examined, Prepared, Unfit, examine, prepare, write
from holdfast.errors import HoldfastError, InputError, RefusedError, UnavailableError
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import AlreadyLoaded, Feed, Load, Publish
from holdfast.feeds.admission import worst
from holdfast.feeds.measurements import DeliveryFacts
from holdfast.records import BatchId, Level, Progress, Violation
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.catalog.batches import Overtaken, Publication, Published, Swept
from holdfast.store.db.ledger import Transaction
from holdfast.store.durability.failpoints import fault_point
from holdfast.store.feeds import admissions
from holdfast.store.files import data_files, staging
from holdfast.store.maintenance import orphans
from holdfast.store.sources import Spec

__all__ = [
    "ROWS_PER_FILE",
    "Examined",
    "LoadResult",
    "Outdated",
    "Prepared",
    "Unfit",
    "examine",
    "ingest",
    "prepare",
    "publish",
    "write",
]

_MOST_ATTEMPTS: Final = 100
_MOST_SWEEPS: Final = 3


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What is true after the load. "already_loaded": the very same content was there before, and nothing was
    written.

    `reasons` says how many rows each reason put into quarantine, and `violations` which expectations of the feed the batch
    does not meet; both are empty for a batch that was there before.
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
    violations: tuple[Violation, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The result as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Outdated:
    """The rows that a delivery was checked against are others by now: it must be prepared again."""


@dataclass(frozen=True, slots=True)
class _Outdating:
    """Asks, in the transaction that publishes a delivery, whether what was found of it holds no more."""

    feed: Feed
    facts: DeliveryFacts
    judged: Judged
    basis: int

    def __call__(self, connection: Transaction) -> bool:
        return self.judged.outdated(connection) or duplicate_keys.may_be_outdated(
            connection, self.feed, self.facts, self.basis
        )


def ingest(
    store: Store,
    feed: Feed,
    batch: str,
    source: Spec,
    *,
    now_us: int,
    aggregates: Sequence[Aggregate] = (),
    rows_expected: int | None = None,
    attempts: Iterator[str] | None = None,
    progress: Progress | None = None,
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
    rows_expected
        How many rows the sender says he sent; None takes it from a control file beside the source (`day.csv.count`), if
        there is one. Another number is no batch.
    attempts
        Ids of attempts, of 32 hexadecimal digits, each used once in a store; None draws random ones. The same ids give
        the same ledger, bit for bit.
    progress
        Told (done, of) at each step.

    Rows keep the order of their event time, and rows with the same event time the order of the file. Raises
    `InputError` HF201 (source), HF202 (columns), HF204 (no valid row), `ConflictError` HF203 (the id was
    loaded with other content, or the content with another id), `RefusedError` HF207 (an expectation of level "critical"
    is not met), HF210 (the contract was changed so that it breaks what is loaded) and `UnavailableError`
    HF205 (the answer to the commit was lost and cannot be
    had: run it again). After any error nothing was loaded, except that after HF205 the batch may be there,
    completely.
    """
    fault_point("ingest.begun")
    tell = progress or _silent
    orphans.sweep_dead_attempts(store)
    tell(1, 4)
    found = examine(store, feed, batch, source, rows_expected=rows_expected)
    if not isinstance(found, Examined):
        return _settled(store, feed, batch, found, now_us)
    tell(2, 4)
    sweeps = 0
    while sweeps < _MOST_SWEEPS:
        with staging.staged(store.root, next(attempts) if attempts else uuid.uuid4().hex) as stage:
            prepared = write(stage, found, feed)
            tell(3, 4)
            try:
                result = publish(store, feed, prepared, aggregates=aggregates, now_us=now_us)
            except (RefusedError, InputError):
                stage.discard()
                raise
            if not (isinstance(result, LoadResult) and result.state == "loaded"):
                stage.discard()
        match result:
            case LoadResult():
                tell(4, 4)
                return result
            case Swept():
                sweeps += 1
            case Outdated():
                found = examine(store, feed, batch, source, rows_expected=rows_expected)
                if not isinstance(found, Examined):
                    return _settled(store, feed, batch, found, now_us)
    raise _always_swept(found.batch)


def _settled(store: Store, feed: Feed, batch: str, found: Unfit | Load, now_us: int) -> LoadResult:
    """The end of a load of which nothing is to be written; raises what an unfit delivery is refused with."""
    if isinstance(found, Unfit):
        raise _refuse(store, found, now_us)
    return _already(BatchId(feed.name, batch), found)


def publish(
    store: Store,
    feed: Feed,
    prepared: Prepared | Unfit | Load,
    *,
    now_us: int,
    batch: str = "",
    aggregates: Sequence[Aggregate] = (),
) -> LoadResult | Swept | Outdated:
    """Make what was prepared exist, all of it or nothing. `Swept` when its files are gone, `Outdated` when the rows that it was
    checked against are others by now: then it must be prepared again.

    Publish deliveries of a feed one after the other in the order in which they are to count: each is judged by those that
    were published before it. `batch` names the batch of a `Load`. Raises as `ingest` does; after any error but HF205 the
    files of `prepared` are orphans.
    """
    match prepared:
        case Load() | Unfit():
            return _settled(store, feed, batch, prepared, now_us)
        case _ if not prepared.facts.rows_loaded:
            if _is_outdated(
                store, feed, prepared, pl.DataFrame(schema=dtypes(feed.contract)), prepared.basis
            )[0]:
                return Outdated()
            raise _no_valid_row(store, prepared, now_us)
    fault_point("ingest.before_publish")
    mine = [aggregate for aggregate in aggregates if aggregate.over == feed.name]
    outcome, judged = _publish(store, feed, prepared, mine, now_us)
    match outcome:
        case Swept() | Outdated():
            return outcome
        case AlreadyLoaded(load):
            return _already(prepared.batch, load)
        case Published(version):
            fault_point("ingest.before_acknowledge")
            return _loaded(prepared, judged, version)


def _silent(_done: int, _of: int) -> None:
    """Progress that nobody watches."""


def _publication(prepared: Prepared, judged: Judged, now_us: int) -> Publication:
    facts = prepared.facts
    suspect = [each for each in judged.violations if each.level is Level.ERROR]
    told = f"; suspect: {'; '.join(each.explanation for each in suspect)}" if suspect else ""
    return Publication(
        manifest=prepared.manifest,
        files=prepared.files,
        rows_loaded=facts.rows_loaded,
        rows_quarantined=facts.rows_dropped,
        event_time_min_us=facts.event_time_min_us,
        event_time_max_us=facts.event_time_max_us,
        source=prepared.source,
        explanation=f"{facts.rows_loaded} rows loaded from {prepared.source}" + _words(prepared) + told,
        beside=lambda connection: judged.keep(connection, now_us),
    )


def _publish(
    store: Store, feed: Feed, prepared: Prepared, aggregates: Sequence[Aggregate], now_us: int
) -> tuple[Published | AlreadyLoaded | Swept | Outdated, Judged]:
    """Publish; when another batch of the feed came first, what depends on its rows is judged and computed again."""
    valid, basis = _rows(store, feed, prepared), prepared.basis
    for _ in range(_MOST_ATTEMPTS):
        judged = judge(store, feed, prepared, now_us=now_us)
        other, basis = _is_outdated(store, feed, prepared, valid, basis)
        if other:
            there = _already_there(store, prepared)
            return there if isinstance(there, AlreadyLoaded) else Outdated(), judged
        if worst(judged.violations) is Level.CRITICAL:
            # Another process may have loaded this very delivery meanwhile: then its rows are no repetition of another's.
            there = _already_there(store, prepared)
            if isinstance(there, AlreadyLoaded):
                return there, judged
            raise _refuse(store, judged.unfit(), now_us)
        computed = online_values(store, feed, aggregates, valid)
        known = [basis for basis in (computed.basis, judged.basis) if basis is not None]
        publication = replace(
            _publication(prepared, judged, now_us),
            online=computed.values,
            definitions=computed.definitions,
            basis=min(known, default=None),
            outdated=_Outdating(feed, prepared.facts, judged, basis),
        )
        outcome = batches.publish(store, publication, now_us=now_us)
        if not isinstance(outcome, Overtaken):
            return outcome, judged
    raise UnavailableError(
        "HF311",
        f"other loads of {prepared.batch.feed} came first {_MOST_ATTEMPTS} times",
        state="nothing was loaded",
        next_command="the same command again",
    )


def _already_there(store: Store, prepared: Prepared) -> Publish | AlreadyLoaded:
    with store.ledger.read() as connection:
        return batches.answer(connection, prepared.batch, prepared.manifest.digest)


def _is_outdated(
    store: Store, feed: Feed, prepared: Prepared, valid: pl.DataFrame, since: int
) -> tuple[bool, int]:
    """Whether what was prepared at table version `since` would be another now, and which version is now."""
    with store.ledger.read() as connection:
        now = batches.current_version(connection)
    return duplicate_keys.outdated(store, feed, prepared.facts, valid, since, now), now


def _refuse(store: Store, unfit: Unfit, now_us: int) -> HoldfastError:
    """Keep that a delivery was refused, and why; the error to tell its sender."""
    with store.ledger.write() as connection:
        admissions.refuse(
            connection, unfit.batch, unfit.violations, contract_hash=unfit.contract_hash, now_us=now_us
        )
    return unfit.error


def _rows(store: Store, feed: Feed, prepared: Prepared) -> pl.DataFrame:
    if prepared.valid is not None:
        return prepared.valid
    mine = [fact for fact in prepared.files if fact.table == feed.name]
    return data_files.read(store.root, mine, dtypes(feed.contract))


def _always_swept(identity: BatchId) -> UnavailableError:
    return UnavailableError(
        "HF313",
        f"the files of batch {identity} were removed {_MOST_SWEEPS} times while it was loaded",
        state="nothing was loaded",
        next_command="keep the store on a file system with locks (flock), then the same command again",
    )


def _no_valid_row(store: Store, prepared: Prepared, now_us: int) -> InputError:
    """The refusal of a batch of which nothing can be used. Its id stays free: a corrected delivery may use
    it.
    """
    identity, rows = prepared.batch, prepared.facts.rows_dropped
    held = (
        f"none of the {rows} rows of batch {identity} is valid{_words(prepared)}"
        if rows
        else f"batch {identity} has no row"
    )
    error = InputError(
        "HF204",
        held,
        state="nothing was loaded; the rows are in the source, the reasons in the events, the id is free",
        next_command=f"holdfast check {identity.feed} <file>",
    )
    broken = Violation("rows", "", Level.CRITICAL, held, 0.0)
    _refuse(store, Unfit(identity, prepared.manifest.contract_hash, (broken,), error), now_us)
    return error


def _words(prepared: Prepared) -> str:
    facts = prepared.facts
    if not facts.reasons:
        return ""
    counted = sorted(facts.reasons.items(), key=lambda reason: -reason[1])
    listed = ", ".join(f"{count} {reason}" for reason, count in counted[:5])
    more = f" and {len(counted) - 5} more reasons" if len(counted) > 5 else ""
    return f"; {facts.rows_dropped} in quarantine: {listed}{more}"


def _loaded(prepared: Prepared, judged: Judged, version: int) -> LoadResult:
    facts = prepared.facts
    return LoadResult(
        feed=prepared.manifest.feed,
        batch=prepared.manifest.batch,
        epoch=prepared.manifest.epoch,
        state="loaded",
        rows_received=facts.rows_received,
        rows_loaded=facts.rows_loaded,
        rows_quarantined=facts.rows_dropped,
        reasons=dict(facts.reasons),
        table_version=version,
        digest=prepared.manifest.digest,
        violations=judged.violations,
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
