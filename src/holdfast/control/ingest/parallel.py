"""Many files at once: loaded, checked and profiled on an executor, with the results that one process would have.

Workers only read and write files; whoever drives them publishes, one delivery after the other in the order in which they
were given. So the ledger is the same wherever the work was done: bit for bit, when the ids of the attempts are.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from holdfast.contract import Contract, compile_batch, dtypes
from holdfast.contract.profile.profile import Profile, merge, profile_batch
from holdfast.control.executors.executor import Executor
from holdfast.control.ingest.ingest import LoadResult, Outdated, ingest, publish
from holdfast.control.ingest.prepare import Prepared, Unfit, prepare
from holdfast.errors import ConflictError, InputError, RefusedError
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import AlreadyLoaded, Feed, Load
from holdfast.store import Store, sources
from holdfast.store.catalog import batches
from holdfast.store.catalog.batches import Swept
from holdfast.store.db.ledger import Ledger
from holdfast.store.files import data_files, staging
from holdfast.store.files.data_files import FileFacts
from holdfast.store.files.staging import Stage
from holdfast.store.maintenance import orphans
from holdfast.store.sources import Spec


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is to be loaded: the sender's id, where it lies, and how many rows the sender says there are."""

    batch: str
    source: Spec
    rows_expected: int | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What a load of `source` would accept: how many rows are valid and how many not, and why not."""

    source: str
    rows: int
    valid: int
    reasons: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Place:
    """A store as another process finds it."""

    root: str
    ledger_url: str

    @classmethod
    def of(cls, store: Store) -> _Place:
        return cls(str(store.root), store.ledger.engine.url.render_as_string(hide_password=False))


@dataclass(frozen=True, slots=True)
class _Task:
    place: _Place
    feed: Feed
    delivery: Delivery
    attempt: str


def ingest_many(
    store: Store,
    feed: Feed,
    deliveries: Sequence[Delivery],
    executor: Executor,
    *,
    clock_us: Callable[[], int],
    aggregates: Sequence[Aggregate] = (),
    attempts: Iterator[str] | None = None,
) -> Iterator[LoadResult]:
    """Load `deliveries` in their order: prepared on `executor`, a few ahead, and published here, one after the other.

    Parameters
    ----------
    clock_us
        The moment of each load, microseconds since 1970 UTC.
    attempts
        As in `ingest`: one id for each delivery.

    Yields what is true after each load, as soon as it is. Raises what `ingest` would raise, in the place of the delivery;
    those before it are loaded, those after it are not.
    """
    orphans.sweep_dead_attempts(store)
    place, ahead = _Place.of(store), deque[tuple[_Task, ExitStack]]()

    def tasks() -> Iterator[_Task]:
        for delivery in deliveries:
            attempt = next(attempts) if attempts else uuid.uuid4().hex
            # The lock of the attempt is held here until its files are published, however many workers die of it.
            held = ExitStack()
            held.enter_context(staging.staged(store.root, attempt))
            ahead.append((_Task(place, feed, delivery, attempt), held))
            yield ahead[-1][0]

    with ExitStack() as ending:
        ending.callback(_abandon, ahead)
        for prepared in ending.enter_context(closing(executor.map(_prepare, tasks()))):
            task, held = ahead.popleft()
            with held:
                result = _publish(store, prepared, task, clock_us(), aggregates)
            if isinstance(result, Swept):
                batch, source, expected = (
                    task.delivery.batch,
                    task.delivery.source,
                    task.delivery.rows_expected,
                )
                now_us = clock_us()
                result = ingest(
                    store, feed, batch, source, now_us=now_us, aggregates=aggregates, rows_expected=expected
                )
            yield result


def check_many(feed: Feed, deliveries: Sequence[Spec], executor: Executor) -> Iterator[Checked]:
    """What a load of each of `deliveries` would accept, in their order. Writes nothing; raises as `sources.read` does."""
    with closing(executor.map(_check, [(feed, source) for source in deliveries])) as found:
        yield from found


def profile_many(store: Store, contract: Contract, found: Sequence[FileFacts], executor: Executor) -> Profile:
    """The profile of the rows of `found`, files of a table of `contract`: each file's own, added up in their order.

    Raises as `files.read` does, and `ValueError` when there is no file.
    """
    tasks = [(str(store.root), contract, fact) for fact in found]
    with closing(executor.map(_profile, tasks)) as profiles:
        return merge(list(profiles))


def _publish(
    store: Store,
    prepared: Prepared | Unfit | Load,
    task: _Task,
    now_us: int,
    aggregates: Sequence[Aggregate],
) -> LoadResult | Swept:
    batch = task.delivery.batch
    try:
        found = _known(store, prepared) if isinstance(prepared, Prepared) else prepared
        result = publish(store, task.feed, found, now_us=now_us, batch=batch, aggregates=aggregates)
        while isinstance(result, Outdated):
            # One that came before it here changed what it refers to, or brought its rows: now as if it had come after it.
            staging.discard(store.root, task.attempt)
            found = _write(store, task)
            result = publish(store, task.feed, found, now_us=now_us, batch=batch, aggregates=aggregates)
    except (RefusedError, InputError, ConflictError):
        staging.discard(store.root, task.attempt)
        raise
    wrote = isinstance(prepared, Prepared) or isinstance(found, Prepared)
    if wrote and not (isinstance(result, LoadResult) and result.state == "loaded"):
        staging.discard(store.root, task.attempt)
    return result


def _known(store: Store, prepared: Prepared) -> Prepared | Load:
    """The `Load` when the content of a delivery was published, by one that came before it here, after it was looked at."""
    with store.ledger.read() as connection:
        answer = batches.answer(connection, prepared.batch, prepared.manifest.digest)
    return answer.load if isinstance(answer, AlreadyLoaded) else prepared


class _AbandonedError(Exception):
    """Nobody waits for a delivery any more, because one before it failed."""


def _abandon(ahead: deque[tuple[_Task, ExitStack]]) -> None:
    """End attempts as if their loaders had died: the markers stay, and the next sweep removes what was written."""
    for _, held in ahead:
        with suppress(_AbandonedError), held:
            raise _AbandonedError


# --- what workers do --------------------------------------------------------------------------------------------------


def _prepare(task: _Task) -> Prepared | Unfit | Load:
    store = _store(task.place)
    try:
        return _write(store, task)
    except FileExistsError:
        # A worker died of this task, and Ray or the pool gave it to us: what he wrote is nobody's.
        staging.discard(store.root, task.attempt)
        return _write(store, task)


def _write(store: Store, task: _Task) -> Prepared | Unfit | Load:
    given, stage = task.delivery, Stage(store.root, task.attempt)
    prepared = prepare(store, task.feed, given.batch, given.source, stage, rows_expected=given.rows_expected)
    return prepared.sendable() if isinstance(prepared, Prepared) else prepared


@lru_cache(maxsize=4)
def _store(place: _Place) -> Store:
    return Store(Path(place.root), Ledger.open(place.ledger_url))


def _check(task: tuple[Feed, Spec]) -> Checked:
    feed, source = task
    typed = sources.read(source, feed.contract, missing_words=feed.missing_words)
    verdict = compile_batch(feed.contract)(typed)
    valid = verdict.valid.height
    return Checked(str(source), valid + verdict.quarantined.height, valid, verdict.counts)


def _profile(task: tuple[str, Contract, FileFacts]) -> Profile:
    root, contract, fact = task
    return profile_batch(contract, data_files.read(Path(root), [fact], dtypes(contract)))
