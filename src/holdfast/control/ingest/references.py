"""References: look up the values of a delivery in the feeds that they refer to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from holdfast.contract import REASONS, BatchVerdict, to_text_rows
from holdfast.feeds import Feed
from holdfast.feeds.expectations import Reference
from holdfast.records import Level, Violation, duration
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.feeds.references import Referred, whose
from holdfast.store.files import data_files
from holdfast.tables.snapshots import LoadKey

CHECK = "reference"
"""The check of a violation when the feed that is referred to has no row."""


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
        known = _known(store, feed, reference, valid)
        if known is None:
            words = f"feed {reference.feed!r} has no row with {reference.key!r} that {reference.column!r} could refer to"
            violations.append(Violation(CHECK, reference.column, Level.ERROR, words))
        else:
            values = valid[reference.column]
            found[f"{reference.column}|reference"] = values.is_not_null() & ~values.is_in(
                known.keys.implode()
            )
            referred += known.referred
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


@dataclass(frozen=True, slots=True)
class _Known:
    """Those values of a delivery that stand where they should, and in which loads."""

    keys: pl.Series
    referred: tuple[Referred, ...]


def _known(store: Store, feed: Feed, reference: Reference, valid: pl.DataFrame) -> _Known | None:
    """Look up the values of `reference` that are loaded, as far back as it looks; None if its feed has no row."""
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
        return _Known(pl.Series(reference.key, [], wanted), ())
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
    return _Known(rows[reference.key].filter(here).unique(), referred)
