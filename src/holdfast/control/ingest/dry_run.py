"""Dry run of a load: the same reading, validation and judgement, and nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from holdfast.contract.batch.aliases import AliasCounts
from holdfast.control.ingest.admit import judge, no_valid_row
from holdfast.control.ingest.outcome import LoadResult, RefusalError
from holdfast.control.ingest.validate import DeliverySpec, read, validate
from holdfast.errors import HoldfastError
from holdfast.feeds import Feed
from holdfast.feeds.admission import worst
from holdfast.feeds.measurements import offending_values
from holdfast.records import Level, Violation
from holdfast.store import Store


@dataclass(frozen=True, slots=True)
class DryRun:
    """The result that a load would have. `refusal` is the error that it would raise, None if it would load.

    `offending` has some values of the most frequent reasons; see `measurements.offending_values`. `aliases` and
    `drift` are as in `LoadResult`.
    """

    rows: int
    valid: int
    reasons: dict[str, int]
    violations: tuple[Violation, ...]
    quarantined: pl.DataFrame = field(default_factory=pl.DataFrame)
    offending: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: AliasCounts = field(default_factory=dict)
    drift: str = ""
    already_loaded: bool = False
    nothing_new: bool = False
    refusal: HoldfastError | None = None

    @property
    def level(self) -> Level | None:
        """The worst level of the violations, None without any."""
        return worst(self.violations)

    @property
    def outcome(self) -> Literal["refused", "already_loaded", "nothing_new", "suspect", "loaded"]:
        """What the load would be."""
        if self.refusal is not None:
            return "refused"
        if self.already_loaded:
            return "already_loaded"
        if self.nothing_new:
            return "nothing_new"
        return "suspect" if self.level is Level.ERROR else "loaded"


def check(store: Store, feed: Feed, spec: DeliverySpec, *, now_us: int) -> DryRun:
    """Return what `ingest` of the delivery at `spec` would find at `now_us`, microseconds since 1970 UTC.

    Raises `InputError` HF201 (source) and `ConflictError` HF203 (the id is loaded with other content, or the content with
    another id), as `ingest` would.
    """
    try:
        found = validate(store, feed, read(feed, spec))
    except RefusalError as refusal:
        return DryRun(0, 0, {}, refusal.violations, refusal=refusal.error)
    if isinstance(found, LoadResult) and found.state == "nothing_new":
        return DryRun(found.rows_received, found.rows_received, {}, (), nothing_new=True)
    if isinstance(found, LoadResult):
        return DryRun(found.rows_received, found.rows_loaded, {}, (), already_loaded=True)
    facts = found.facts
    with store.ledger.read() as connection:
        judgement = judge(connection, feed, found, now_us=now_us)
    refusal_error: HoldfastError | None = None
    if not facts.rows_loaded:
        refusal_error = no_valid_row(found).error
    elif judgement.level is Level.CRITICAL:
        refusal_error = judgement.refusal(found).error
    return DryRun(
        rows=facts.rows_received,
        valid=facts.rows_loaded,
        reasons=dict(facts.reasons),
        violations=judgement.violations,
        quarantined=found.quarantined,
        offending=offending_values(found.quarantined, facts.reasons),
        aliases=facts.aliases,
        drift=judgement.drift,
        refusal=refusal_error,
    )
