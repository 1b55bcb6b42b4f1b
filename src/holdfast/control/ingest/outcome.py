"""Outcomes of a delivery: loaded, already loaded, a step must run again, or refused.

A refusal is raised by a step on any machine, and recorded in the ledger where the load is driven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from holdfast.contract.batch.aliases import AliasCounts
from holdfast.errors import HoldfastError
from holdfast.feeds import Load, Manifest
from holdfast.feeds.measurements import DeliveryFacts
from holdfast.records import BatchId, Violation
from holdfast.store import Store
from holdfast.store.db.failed_operations import Operation
from holdfast.store.feeds import admissions


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The batch as it is in the store after a load.

    Parameters
    ----------
    state
        "loaded"; "already_loaded" when the same content was there before and nothing was written; "nothing_new" when each row
        of a label feed was loaded before with the same values, and nothing was written: then the epoch is 0.
    reasons
        Number of quarantined rows by reason; empty for a batch that was already loaded.
    violations
        Expectations of the feed that the batch does not meet; empty for a batch that was already loaded.
    aliases
        By category and alias, how many of the delivered values were read as the word that the alias stands for; empty for a
        batch that was already loaded.
    drift
        "judged" if the batch was compared with the feed's earlier ones, else why not, such as "not judged, 2 of 8 batches";
        empty if the feed does not expect it, and for a batch that was already loaded.
    """

    feed: str
    batch: str
    epoch: int
    state: Literal["loaded", "already_loaded", "nothing_new"]
    rows_received: int
    rows_loaded: int
    rows_quarantined: int
    reasons: dict[str, int]
    table_version: int
    digest: str
    violations: tuple[Violation, ...] = ()
    aliases: AliasCounts = field(default_factory=dict)
    drift: str = ""


class RetryReason(StrEnum):
    """Why a delivery was not committed; each names the step from which to run again."""

    OUTDATED = "outdated"  # rows that it was validated against have changed: read and validate again
    SWEPT = "swept"  # a sweep removed its staged files, as can be without file locks: stage again
    OVERTAKEN = "overtaken"  # another load of the feed was committed since it was admitted: admit again


@dataclass(frozen=True, slots=True)
class Retry:
    """Nothing was loaded, and the delivery may be: run again from the step that `reason` names."""

    reason: RetryReason


def loaded(
    manifest: Manifest,
    facts: DeliveryFacts,
    table_version: int,
    violations: tuple[Violation, ...],
    drift: str,
) -> LoadResult:
    """Return the result of a load that was committed at `table_version`."""
    return LoadResult(
        feed=manifest.feed,
        batch=manifest.batch,
        epoch=manifest.epoch,
        state="loaded",
        rows_received=facts.rows_received,
        rows_loaded=facts.rows_loaded,
        rows_quarantined=facts.rows_dropped,
        reasons=dict(facts.reasons),
        table_version=table_version,
        digest=manifest.digest,
        violations=violations,
        aliases=facts.aliases,
        drift=drift,
    )


def already_loaded(batch: BatchId, load: Load) -> LoadResult:
    """Return the result for a delivery whose content is `load` of `batch`."""
    return LoadResult(
        feed=batch.feed,
        batch=batch.batch,
        epoch=load.epoch,
        state="already_loaded",
        rows_received=load.rows_received,
        rows_loaded=load.rows_loaded,
        rows_quarantined=load.rows_quarantined,
        reasons={},
        table_version=load.table_version,
        digest=load.digest,
    )


def nothing_new(batch: BatchId, digest: str, reasons: dict[str, int], table_version: int) -> LoadResult:
    """Return the result for a delivery of labels that are all loaded with the same values; `reasons` counts them."""
    return LoadResult(
        feed=batch.feed,
        batch=batch.batch,
        epoch=0,
        state="nothing_new",
        rows_received=sum(reasons.values()),
        rows_loaded=0,
        rows_quarantined=0,
        reasons=reasons,
        table_version=table_version,
        digest=digest,
    )


class RefusalError(Exception):
    """A delivery cannot be a batch of its feed: `violations` are the reasons, `error` is what its sender sees."""

    def __init__(
        self, batch: BatchId, contract_hash: str, violations: tuple[Violation, ...], error: HoldfastError
    ) -> None:
        super().__init__(batch, contract_hash, violations, error)  # all of them, so that it survives a pickle
        self.batch = batch
        self.contract_hash = contract_hash
        self.violations = violations
        self.error = error


@contextmanager
def recorded(store: Store, operation: Operation, clock_us: Callable[[], int]) -> Iterator[None]:
    """Record a `RefusalError` of the block, the load `operation`, in the ledger, and raise the sender's error instead."""
    try:
        yield
    except RefusalError as refusal:
        with store.ledger.write() as connection:
            admissions.refuse(
                connection,
                refusal.batch,
                refusal.violations,
                contract_hash=refusal.contract_hash,
                now_us=clock_us(),
                operation=operation,
            )
        raise refusal.error from None
