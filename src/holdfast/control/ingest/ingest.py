"""The load: from senders' deliveries to committed rows, in the steps read, validate, stage, admit, commit.

Idempotent: a delivery may be loaded any number of times, from any number of processes. Until the commit nothing is
visible; after it everything is. A load that was killed leaves at most files that no row of the ledger names, and the
next load or `holdfast verify` sweeps them.

Many deliveries are prepared on an executor, where workers read the ledger and write files. The driver alone publishes, in the
order in which they were given. So the ledger is the same wherever the work was done: bit for bit, when the ids of the
attempts are.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from holdfast.control.executors.executor import Executor
from holdfast.control.ingest import online_features
from holdfast.control.ingest.admit import AdmittedBatch, admit
from holdfast.control.ingest.commit import commit
from holdfast.control.ingest.failed_loads import note_of, reported
from holdfast.control.ingest.outcome import LoadResult, RefusalError, Retry, RetryReason, recorded
from holdfast.control.ingest.stage import StagedBatch, stage
from holdfast.control.ingest.validate import DeliverySpec, ValidatedBatch, read, validate
from holdfast.control.interrupted_operations import report_interrupted
from holdfast.errors import ConflictError, InputError, RefusedError, UnavailableError
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import Feed
from holdfast.records import BatchId, Progress
from holdfast.store import Store
from holdfast.store.db.failed_operations import Operation
from holdfast.store.db.ledger import Ledger
from holdfast.store.durability import access
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.files import staging
from holdfast.store.files.staging import Stage
from holdfast.store.sources import Spec, name_of

_MOST_ATTEMPTS: Final = 100
_MOST_SWEEPS: Final = 3


def ingest(
    store: Store,
    feed: Feed,
    batch: str,
    source: Spec,
    *,
    now_us: int,
    clock_us: Callable[[], int] | None = None,
    aggregates: Sequence[Aggregate] = (),
    rows_expected: int | None = None,
    attempts: Iterator[str] | None = None,
    progress: Progress | None = None,
) -> LoadResult:
    """Load the delivery at `source` as batch `batch` of `feed`, once; on return it is durable and visible.

    Parameters
    ----------
    batch
        The sender's id of the delivery. The same id with the same bytes is a no-op, from any number of processes.
    now_us
        When the load begins, microseconds since 1970 UTC.
    clock_us
        Returns the time, likewise, when the load is published or fails; None for `now_us`.
    aggregates
        Those over this feed are brought up to date in the same transaction, and with them what was declared over it
        before; others are ignored.
    rows_expected
        The number of rows that the sender declares; None takes it from a control file next to the source
        (`day.csv.count`), if there is one. Another number is refused.
    attempts
        Ids of attempts, of 32 hexadecimal digits, each used once in a store; None draws random ones. The same ids give
        the same ledger, bit for bit.
    progress
        Called with (done, of) at each step.

    Rows keep the order of their event time, and rows with the same event time the order of the delivery.

    Raises
    ------
    InputError
        HF201 (source), HF202 (columns), HF204 (no valid row).
    ConflictError
        HF203: the id is loaded with other content, or the content with another id.
    RefusedError
        HF207: an expectation of level "critical" is not met. HF210: the contract was changed so that it breaks what is
        loaded.
    UnavailableError
        HF205: the reply to the commit was lost; the batch is there completely or not at all. After any other error
        nothing was loaded.
    """
    failpoint("ingest.begun")
    report = progress or (lambda _done, _of: None)
    spec = DeliverySpec(batch, source, rows_expected)
    report_interrupted(store, now_us=now_us)
    report(1, 4)
    operation, clock_us = Operation(now_us, name_of(source)), clock_us or (lambda: now_us)
    note = note_of(feed, batch, operation)
    with (
        recorded(store, operation, clock_us),
        reported(store, BatchId(feed.name, batch), operation, clock_us),
    ):
        found = validate(store, feed, read(feed, spec))
        report(2, 4)
        sweeps = 0
        while isinstance(found, ValidatedBatch):
            attempt = next(attempts) if attempts else uuid.uuid4().hex
            with staging.staged(store.root, attempt, note=note) as place:
                staged = stage(place, found, feed)
                report(3, 4)
                try:
                    result = publish(
                        store, feed, staged, begun_at_us=now_us, clock_us=clock_us, aggregates=aggregates
                    )
                except (RefusalError, RefusedError, InputError):
                    place.discard()
                    raise
                if not (isinstance(result, LoadResult) and result.state == "loaded"):
                    place.discard()
            if isinstance(result, LoadResult):
                found = result
            elif result.reason is RetryReason.OUTDATED:
                found = validate(store, feed, read(feed, spec))
            else:
                sweeps += 1
                if sweeps == _MOST_SWEEPS:
                    raise UnavailableError(
                        "HF313",
                        f"the files of batch {staged.batch} were removed {_MOST_SWEEPS} times while it was loaded",
                        state="nothing was loaded",
                        next_command="keep the store on a file system with locks (flock), then the same command again",
                    )
    report(4, 4)
    return found


def prepare(store: Store, feed: Feed, spec: DeliverySpec, place: Stage) -> StagedBatch | LoadResult:
    """Read, validate and stage the delivery at `spec` on `place`; return the load if its content is loaded already.

    Writes nothing into the ledger, so that any process on any machine that sees the store may do it. Raises as `read`
    and `validate` do.
    """
    found = validate(store, feed, read(feed, spec))
    return stage(place, found, feed) if isinstance(found, ValidatedBatch) else found


def publish(
    store: Store,
    feed: Feed,
    staged: StagedBatch,
    *,
    begun_at_us: int,
    clock_us: Callable[[], int],
    aggregates: Sequence[Aggregate] = (),
) -> LoadResult | Retry:
    """Admit and commit `staged`; `Retry` when it must be staged or validated again.

    `begun_at_us` is when its load began, and `clock_us` returns the time, both in microseconds since 1970 UTC.

    Publish the deliveries of a feed one after the other in the order in which they count: each is judged by those that
    were published before it. Raises as `admit` and `commit` do; after any error but HF205 the staged files are orphans.
    """
    failpoint("ingest.staged")
    mine = [aggregate for aggregate in aggregates if aggregate.over == feed.name]
    for _ in range(_MOST_ATTEMPTS):
        admitted = admit(store, feed, staged, mine, now_us=clock_us())
        if not isinstance(admitted, AdmittedBatch):
            return admitted
        now_us = clock_us()
        result = commit(store, admitted, now_us=now_us, begun_at_us=begun_at_us)
        if isinstance(result, LoadResult) and result.state == "loaded":
            online_features.refresh_after_load(store, feed, mine, now_us=now_us)
            failpoint("ingest.before_acknowledge")
        if result != Retry(RetryReason.OVERTAKEN):
            return result
    raise UnavailableError(
        "HF311",
        f"other loads of {feed.name} came first {_MOST_ATTEMPTS} times",
        state="nothing was loaded",
        next_command="the same command again",
    )


@dataclass(frozen=True, slots=True)
class _Task:
    root: Path
    ledger_url: str
    feed: Feed
    spec: DeliverySpec
    attempt: str
    has_group: bool
    """What was declared to `access`: a worker is a process of its own and knows no settings."""


def ingest_many(
    store: Store,
    feed: Feed,
    deliveries: Sequence[DeliverySpec],
    executor: Executor,
    *,
    clock_us: Callable[[], int],
    aggregates: Sequence[Aggregate] = (),
    attempts: Iterator[str] | None = None,
) -> Iterator[LoadResult]:
    """Load `deliveries` in their order: prepare a few ahead on `executor`, publish here one after the other.

    Parameters
    ----------
    clock_us
        Returns the time when a load begins, is published or fails, microseconds since 1970 UTC.
    attempts
        As in `ingest`: one id for each delivery.

    Yields each result as soon as the batch is durable. Raises what `ingest` would raise, in the place of the delivery;
    those before it are loaded, those after it are not.
    """
    begun_at_us = clock_us()
    report_interrupted(store, now_us=begun_at_us)
    ledger_url = store.ledger.engine.url.render_as_string(hide_password=False)
    ahead = deque[tuple[_Task, ExitStack]]()
    operations = [Operation(begun_at_us, name_of(each.source)) for each in deliveries]

    def tasks() -> Iterator[_Task]:
        for number, spec in enumerate(deliveries):
            operations[number] = replace(operations[number], begun_at_us=clock_us())
            attempt = next(attempts) if attempts else uuid.uuid4().hex
            # The driver holds the lock of the attempt until its files are published, however many workers die of it.
            held = ExitStack()
            note = note_of(feed, spec.batch, operations[number])
            held.enter_context(staging.staged(store.root, attempt, note=note))
            ahead.append((_Task(store.root, ledger_url, feed, spec, attempt, access.has_group()), held))
            yield ahead[-1][0]

    with ExitStack() as ending:
        ending.callback(_abandon, ahead)
        results = ending.enter_context(closing(executor.map(_prepare_task, tasks())))
        for number, delivery in enumerate(deliveries):
            identity = BatchId(feed.name, delivery.batch)
            with reported(store, identity, operations[number], clock_us):
                prepared = next(results)
            task, held = ahead.popleft()
            operation = operations[number]
            with recorded(store, operation, clock_us), reported(store, identity, operation, clock_us), held:
                result = _publish_prepared(store, task, prepared, aggregates, operation, clock_us)
            if result is None:
                spec = task.spec
                result = ingest(
                    store,
                    feed,
                    spec.batch,
                    spec.source,
                    now_us=operation.begun_at_us,
                    clock_us=clock_us,
                    aggregates=aggregates,
                    rows_expected=spec.rows_expected,
                )
            yield result


def _publish_prepared(
    store: Store,
    task: _Task,
    prepared: StagedBatch | LoadResult | RefusalError,
    aggregates: Sequence[Aggregate],
    operation: Operation,
    clock_us: Callable[[], int],
) -> LoadResult | None:
    """Publish what a worker staged; None if a sweep removed its files, and the attempt with them."""
    if isinstance(prepared, RefusalError):
        raise prepared
    staged: StagedBatch | LoadResult = prepared
    try:
        while isinstance(staged, StagedBatch):
            result = publish(
                store,
                task.feed,
                staged,
                begun_at_us=operation.begun_at_us,
                clock_us=clock_us,
                aggregates=aggregates,
            )
            if isinstance(result, LoadResult) and result.state == "loaded":
                return result
            staging.discard(store.root, task.attempt)
            if result == Retry(RetryReason.SWEPT):
                return None
            # OUTDATED: a delivery that came before it here changed what it refers to, or brought its rows.
            staged = result if isinstance(result, LoadResult) else _prepare_here(store, task)
    except (RefusalError, RefusedError, InputError, ConflictError):
        staging.discard(store.root, task.attempt)
        raise
    return staged


class _AbandonedError(Exception):
    """The results of a delivery are not wanted, because one before it failed."""


def _abandon(ahead: deque[tuple[_Task, ExitStack]]) -> None:
    """End attempts as if their loaders had died: the markers stay, and the next sweep removes what was written."""
    for _, held in ahead:
        with suppress(_AbandonedError), held:
            raise _AbandonedError


def _prepare_task(task: _Task) -> StagedBatch | LoadResult | RefusalError:
    """Prepare a delivery in a worker. A refusal is a result: it counts only when its turn comes to be published."""
    access.declare(group=task.has_group)
    store = _opened_store(task.root, task.ledger_url)
    try:
        try:
            return _prepare_here(store, task)
        except FileExistsError:
            # A worker died of this task, and the executor ran it again: remove what the first one wrote.
            staging.discard(store.root, task.attempt)
            return _prepare_here(store, task)
    except RefusalError as refusal:
        return refusal


def _prepare_here(store: Store, task: _Task) -> StagedBatch | LoadResult:
    found = prepare(store, task.feed, task.spec, Stage(store.root, task.attempt))
    return found.without_rows() if isinstance(found, StagedBatch) else found


@lru_cache(maxsize=4)
def _opened_store(root: Path, ledger_url: str) -> Store:
    return Store(root, Ledger.open(ledger_url))
