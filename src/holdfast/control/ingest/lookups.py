"""Look up loaded rows: those that a delivery refers to, and those whose keys it repeats; detect when that has changed.

Without the second, a file that is sent again with one row more, under another id, would double all its other rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta

import polars as pl

from holdfast.contract.batch.compiler import BatchVerdict, to_text_rows
from holdfast.contract.batch.reasons import REASONS
from holdfast.feeds import Feed
from holdfast.feeds.admission import KNOWN, REPEATED
from holdfast.feeds.expectations import Reference
from holdfast.feeds.measurements import DeliveryFacts, digest_of
from holdfast.records import Level, Violation, duration
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import loaded_rows
from holdfast.store.feeds.loaded_rows import Referred, Span, whose
from holdfast.store.files import data_files
from holdfast.tables.snapshots import LoadKey

_NAMED = 3


REFERENCE = "reference"
"""The check of a violation when the feed that is referred to has no row."""


@dataclass(frozen=True, slots=True)
class Known:
    """Which of the rows are loaded already, by their key, and the ids of the batches that have them.

    `repeated` flags those of a label feed that are loaded already with the same values: a label that is sent again is no fault.
    `changed` counts the rows that are loaded with other values, if all rows are known by their key; else it is 0.
    """

    flags: pl.Series
    batches: tuple[str, ...]
    repeated: pl.Series
    changed: int = 0

    @property
    def rows(self) -> int:
        """The number of duplicate rows."""
        return int(self.flags.sum())

    @property
    def whose(self) -> str:
        """The batches as a phrase: "batch d1", "batches d1, d2", "17 batches"."""
        if len(self.batches) > _NAMED:
            return f"{len(self.batches)} batches"
        return f"batch{'es' if len(self.batches) > 1 else ''} {', '.join(self.batches)}"


def known_rows(
    store: Store, feed: Feed, valid: pl.DataFrame, version: int, *, since: int = 0
) -> Known | None:
    """Find the rows of `valid` whose key is loaded already; None if there is none or the feed does not check.

    Only files whose event times meet those of `valid` are read, and of them only the key.

    Parameters
    ----------
    valid
        The accepted rows, in event order.
    version
        The table version at which loaded rows are looked up.
    since
        Only files that were added after this table version; 0 for all.
    """
    span = _span(feed, valid)
    if span is None:
        return None
    with store.ledger.read() as connection:
        if not span.meets_any(connection, since=since):
            return None
        found = span.files(connection, version, since=since)
    again = loaded_rows.known(store.root, valid.select(feed.contract.key), found)
    if again is None:
        return None
    flags, paths = again
    repeated = pl.repeat(value=False, n=valid.height, dtype=pl.Boolean(), eager=True)
    changed = 0
    if feed.labels_for is not None or flags.all():
        same = loaded_rows.known(store.root, valid.select(feed.contract.names), found)
        unchanged = repeated if same is None else same[0]
        repeated = repeated if feed.labels_for is None else unchanged
        changed = int((flags & ~unchanged).sum()) if flags.all() else 0
    with store.ledger.read() as connection:
        return Known(flags, tuple(loaded_rows.batches_in(connection, paths)), repeated, changed)


def quarantine(feed: Feed, resolved: Resolved, valid: pl.DataFrame, known: Known) -> Resolved:
    """Return `resolved` with the `known` rows in quarantine: "<key>|loaded", or "<key>|repeated" with the same label."""
    key = "+".join(feed.contract.key)
    reason = pl.when(known.repeated).then(pl.lit(f"{key}|{REPEATED}")).otherwise(pl.lit(f"{key}|{KNOWN}"))
    again = valid.with_columns(pl.concat_list(reason).alias(REASONS)).filter(known.flags)
    counts = Counter(again[REASONS].explode().to_list())
    return replace(
        resolved,
        valid=valid.filter(~known.flags),
        quarantined=pl.concat([to_text_rows(resolved.quarantined), to_text_rows(again)], how="diagonal"),
        reasons={**resolved.reasons, **counts},
    )


def reduce_facts(facts: DeliveryFacts, feed: Feed, parted: Resolved, known: Known) -> DeliveryFacts:
    """Return the facts of a delivery of which only the valid rows of `parted` are loaded.

    The number of rows received stays: the sender did send the rows that are known.
    """
    times = parted.valid[feed.contract.event_time].to_physical()
    return replace(
        facts,
        rows_loaded=parted.valid.height,
        rows_dropped=facts.rows_dropped + known.rows,
        rows_known=known.rows,
        event_time_min_us=int(times[0]),
        event_time_max_us=int(times[-1]),
        rows_digest=digest_of(parted.valid),
        reasons=dict(parted.reasons),
    )


def outdated(
    store: Store, feed: Feed, facts: DeliveryFacts, valid: pl.DataFrame, since: int, to: int
) -> bool:
    """Return True if a check at table version `since` would come out differently at version `to`.

    That is so if a feed that the delivery refers to has other rows, or some of its keys were loaded or backed out meanwhile.

    Parameters
    ----------
    facts
        The measurements of the delivery at version `since`.
    valid
        Its accepted rows, in event order.
    since, to
        Table versions.
    """
    if to == since:
        return False
    with store.ledger.read() as connection:
        if _moved(connection, feed, facts, since):
            return True
    return known_rows(store, feed, valid, to, since=since) is not None


def may_be_outdated(connection: Transaction, feed: Feed, facts: DeliveryFacts, since: int) -> bool:
    """Return True if `outdated` might, by the ledger alone.

    It is cheap enough for the transaction that publishes the delivery.
    """
    if _moved(connection, feed, facts, since):
        return True
    if (
        feed.expects.duplicate_keys is None
        or facts.event_time_min_us is None
        or facts.event_time_max_us is None
    ):
        return False
    return Span(feed.name, facts.event_time_min_us, facts.event_time_max_us).meets_any(
        connection, since=since
    )


def _moved(connection: Transaction, feed: Feed, facts: DeliveryFacts, since: int) -> bool:
    depends = {reference.feed for reference in feed.expects.references}
    if facts.rows_known:
        depends.add(feed.name)
    return any(batches.rows_since(connection, name, since) for name in sorted(depends))


def _span(feed: Feed, valid: pl.DataFrame) -> Span | None:
    if feed.expects.duplicate_keys is None or not feed.contract.key or valid.is_empty():
        return None
    times = valid[feed.contract.event_time].to_physical()
    return Span(feed.name, int(times[0]), int(times[-1]))


@dataclass(frozen=True, slots=True)
class Resolved:
    """Rows after their references were looked up.

    `reasons` counts what put rows into quarantine, the contract's reasons included. `referred` names the loads in which the
    values stand.
    """

    valid: pl.DataFrame
    quarantined: pl.DataFrame
    reasons: dict[str, int]
    violations: tuple[Violation, ...] = ()
    referred: tuple[Referred, ...] = ()


def resolve(store: Store, feed: Feed, verdict: BatchVerdict) -> Resolved:
    """Quarantine the valid rows that refer to what is not loaded, with the reason "<column>|reference".

    They are looked up among the rows that are loaded now: load what is referred to first. A feed that has no row at all
    breaks the expectation at level "error", and no row is quarantined for it.
    """
    valid, violations = verdict.valid, list[Violation]()
    found: dict[str, pl.Series] = {}
    referred: list[Referred] = []
    for reference in feed.expects.references:
        known = _find_referred(store, feed, reference, valid)
        if known is None:
            words = f"feed {reference.feed!r} has no row with {reference.key!r} that {reference.column!r} could refer to"
            violations.append(Violation(REFERENCE, reference.column, Level.ERROR, words))
        else:
            values = valid[reference.column]
            found[f"{reference.column}|reference"] = values.is_not_null() & ~values.is_in(known[0].implode())
            referred += known[1]
    lost = {reason: rows for reason, rows in found.items() if rows.any()}
    if not lost:
        return Resolved(valid, verdict.quarantined, verdict.counts, tuple(violations), tuple(referred))
    bad = valid.select(pl.any_horizontal(pl.lit(rows) for rows in lost.values())).to_series()
    reasons = pl.concat_list(
        pl.when(pl.lit(rows)).then(pl.lit(reason)).otherwise(pl.lit(None, pl.String))
        for reason, rows in lost.items()
    ).list.drop_nulls()
    apart = valid.with_columns(reasons.alias(REASONS)).filter(bad)
    quarantined = pl.concat([to_text_rows(verdict.quarantined), to_text_rows(apart)], how="diagonal")
    counts = Counter(verdict.counts) + Counter({reason: int(rows.sum()) for reason, rows in lost.items()})
    return Resolved(valid.filter(~bad), quarantined, dict(counts), tuple(violations), tuple(referred))


def _find_referred(
    store: Store, feed: Feed, reference: Reference, valid: pl.DataFrame
) -> tuple[pl.Series, tuple[Referred, ...]] | None:
    """Look up the values of `reference` that are loaded, as far back as it looks, and the loads that hold them.

    Returns None if its feed has no row.
    """
    event_time = feed.contract.event_time
    lookback_start_us = None
    if reference.lookback is not None and valid.height:
        lowest = int(valid[event_time].to_physical().min() or 0)  # type: ignore[arg-type]  # Polars types a minimum as anything
        lookback_start_us = lowest - duration(reference.lookback) // timedelta(microseconds=1)
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
        found = data_files.entries(connection, reference.feed, version, lookback_start_us=lookback_start_us)
        anything = bool(found) or bool(data_files.entries(connection, reference.feed, version))
        loads = whose(connection, found)
    if not anything:
        return None
    wanted = valid.schema[reference.column]
    rows = data_files.read(store.root, found, {reference.key: wanted})
    if not rows.width:
        return pl.Series(reference.key, [], wanted), ()
    here = (
        rows[reference.key]
        .is_in(valid[reference.column].unique().drop_nulls().implode())
        .fill_null(value=False)
    )
    start, used = 0, dict[LoadKey, None]()
    for load, height in loads:
        if here.slice(start, height).any():
            used[load] = None
        start += height
    referred = tuple(Referred(reference.column, reference.key, load, lookback_start_us) for load in used)
    return rows[reference.key].filter(here).unique(), referred
