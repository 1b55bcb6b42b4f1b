"""Load many deliveries at once: prepare on an executor and publish here, with the results of one process.

Workers read the ledger and write files; the driver alone publishes, in the order in which the deliveries were given. So
the ledger is the same wherever the work was done: bit for bit, when the ids of the attempts are.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from holdfast.control.executors.executor import Executor
from holdfast.control.ingest.ingest import ingest, prepare, publish
from holdfast.control.ingest.outcome import LoadResult, RefusalError, Retry, RetryReason, recorded
from holdfast.control.ingest.read import DeliverySpec
from holdfast.control.ingest.stage import StagedBatch
from holdfast.errors import ConflictError, InputError, RefusedError
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import Feed
from holdfast.store import Store
from holdfast.store.db.ledger import Ledger
from holdfast.store.files import staging
from holdfast.store.files.staging import Stage
from holdfast.store.maintenance import orphans


@dataclass(frozen=True, slots=True)
class _Location:
    """A store as another process opens it."""

    root: str
    ledger_url: str

    @classmethod
    def of(cls, store: Store) -> _Location:
        return cls(str(store.root), store.ledger.engine.url.render_as_string(hide_password=False))


@dataclass(frozen=True, slots=True)
class _Task:
    location: _Location
    feed: Feed
    spec: DeliverySpec
    attempt: str


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
        Returns the time of each load, microseconds since 1970 UTC.
    attempts
        As in `ingest`: one id for each delivery.

    Yields each result as soon as the batch is durable. Raises what `ingest` would raise, in the place of the delivery;
    those before it are loaded, those after it are not.
    """
    orphans.sweep_dead_attempts(store)
    location, ahead = _Location.of(store), deque[tuple[_Task, ExitStack]]()

    def tasks() -> Iterator[_Task]:
        for spec in deliveries:
            attempt = next(attempts) if attempts else uuid.uuid4().hex
            # The driver holds the lock of the attempt until its files are published, however many workers die of it.
            held = ExitStack()
            held.enter_context(staging.staged(store.root, attempt))
            ahead.append((_Task(location, feed, spec, attempt), held))
            yield ahead[-1][0]

    with ExitStack() as ending:
        ending.callback(_abandon, ahead)
        for prepared in ending.enter_context(closing(executor.map(_prepare, tasks()))):
            task, held = ahead.popleft()
            now_us = clock_us()
            with recorded(store, now_us), held:
                result = _publish(store, task, prepared, aggregates, now_us)
            if result is None:
                spec, now_us = task.spec, clock_us()
                result = ingest(
                    store,
                    feed,
                    spec.batch,
                    spec.source,
                    now_us=now_us,
                    aggregates=aggregates,
                    rows_expected=spec.rows_expected,
                )
            yield result


def _publish(
    store: Store,
    task: _Task,
    prepared: StagedBatch | LoadResult | RefusalError,
    aggregates: Sequence[Aggregate],
    now_us: int,
) -> LoadResult | None:
    """Publish what a worker staged; None if a sweep removed its files, and the attempt with them."""
    if isinstance(prepared, RefusalError):
        raise prepared
    staged: StagedBatch | LoadResult = prepared
    try:
        while isinstance(staged, StagedBatch):
            result = publish(store, task.feed, staged, now_us=now_us, aggregates=aggregates)
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


def _prepare(task: _Task) -> StagedBatch | LoadResult | RefusalError:
    """Prepare a delivery in a worker. A refusal is a result: it counts only when its turn comes to be published."""
    store = _store(task.location)
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
def _store(location: _Location) -> Store:
    return Store(Path(location.root), Ledger.open(location.ledger_url))
