"""The load: from a sender's delivery to committed rows, in the steps read, validate, stage, admit, commit.

Idempotent: a delivery may be loaded any number of times, from any number of processes. Until the commit nothing is
visible; after it everything is. A load that was killed leaves at most files that no row of the ledger names, and the
next load or `holdfast verify` sweeps them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Final

from holdfast.control.ingest.admit import AdmittedBatch, admit
from holdfast.control.ingest.commit import commit
from holdfast.control.ingest.outcome import LoadResult, RefusalError, Retry, RetryReason, recorded
from holdfast.control.ingest.read import DeliverySpec, read
from holdfast.control.ingest.stage import StagedBatch, stage
from holdfast.control.ingest.validate import ValidatedBatch, validate
from holdfast.errors import InputError, RefusedError, UnavailableError
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import Feed
from holdfast.records import Progress
from holdfast.store import Store
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.files import staging
from holdfast.store.files.staging import Stage
from holdfast.store.maintenance import orphans
from holdfast.store.sources import Spec

_MOST_ATTEMPTS: Final = 100
_MOST_SWEEPS: Final = 3


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
    """Load the delivery at `source` as batch `batch` of `feed`, once; on return it is durable and visible.

    Parameters
    ----------
    batch
        The sender's id of the delivery. The same id with the same bytes is a no-op, from any number of processes.
    now_us
        The time of the load, microseconds since 1970 UTC.
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
    report = progress or _ignore
    spec = DeliverySpec(batch, source, rows_expected)
    orphans.sweep_dead_attempts(store)
    report(1, 4)
    with recorded(store, now_us):
        found = validate(store, feed, read(feed, spec))
        report(2, 4)
        sweeps = 0
        while isinstance(found, ValidatedBatch):
            with staging.staged(store.root, next(attempts) if attempts else uuid.uuid4().hex) as place:
                staged = stage(place, found, feed)
                report(3, 4)
                try:
                    result = publish(store, feed, staged, now_us=now_us, aggregates=aggregates)
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
                    raise _always_swept(staged)
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
    now_us: int,
    aggregates: Sequence[Aggregate] = (),
) -> LoadResult | Retry:
    """Admit and commit `staged`; `Retry` when it must be staged or validated again.

    Publish the deliveries of a feed one after the other in the order in which they count: each is judged by those that
    were published before it. Raises as `admit` and `commit` do; after any error but HF205 the staged files are orphans.
    """
    failpoint("ingest.staged")
    mine = [aggregate for aggregate in aggregates if aggregate.over == feed.name]
    for _ in range(_MOST_ATTEMPTS):
        admitted = admit(store, feed, staged, mine, now_us=now_us)
        if not isinstance(admitted, AdmittedBatch):
            return admitted
        result = commit(store, admitted, now_us=now_us)
        if isinstance(result, LoadResult) and result.state == "loaded":
            failpoint("ingest.before_acknowledge")
        if result != Retry(RetryReason.OVERTAKEN):
            return result
    raise UnavailableError(
        "HF311",
        f"other loads of {feed.name} came first {_MOST_ATTEMPTS} times",
        state="nothing was loaded",
        next_command="the same command again",
    )


def _ignore(_done: int, _of: int) -> None:
    """Report progress to no one."""


def _always_swept(staged: StagedBatch) -> UnavailableError:
    return UnavailableError(
        "HF313",
        f"the files of batch {staged.batch} were removed {_MOST_SWEEPS} times while it was loaded",
        state="nothing was loaded",
        next_command="keep the store on a file system with locks (flock), then the same command again",
    )
