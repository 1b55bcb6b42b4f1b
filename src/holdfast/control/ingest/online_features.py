"""Keep the table of online features in step with the rows: update the aggregates that a batch changes.

Every definition that was ever declared over a feed goes on being computed while the feed still has its columns: the
champion may have been trained under a declaration that has changed since, and must meet the values that it knows.

What a snapshot refuses or leaves out is in no value (R15): see `store.feeds.withheld_loads`. A load, an acceptance or a
back-out may release or hold back other loads than its own; `refresh` then computes what these change. It compares two lists
in the ledger, so it may be called at any time, and completes what a killed process left.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl
from polars.exceptions import PolarsError

from holdfast.contract.batch.compiler import dtypes
from holdfast.control.ingest.online_recompute import recompute
from holdfast.errors import HoldfastError, InputError, UnavailableError
from holdfast.features.aggregate import Aggregate
from holdfast.features.asof import aggregate_rows, first_changed_us
from holdfast.feeds import Feed
from holdfast.records import canonical_json
from holdfast.store import Store
from holdfast.store.catalog import batches, online_features
from holdfast.store.catalog.online_features import Definition, OnlineValue
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import withheld_loads
from holdfast.store.files import data_files
from holdfast.store.files.data_files import FileFacts
from holdfast.tables.snapshots import LoadKey

_MOST_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class Computed:
    """Values with the definitions that are complete with them, and the table version that was read for them.

    `basis` is None when no aggregate is kept over the feed: nothing then depends on other batches. `withheld` are the loads
    whose rows are in no value (R15); `complete` are the definitions that were complete without the batch.
    """

    basis: int | None
    values: tuple[OnlineValue, ...] = ()
    definitions: tuple[Definition, ...] = ()
    complete: tuple[Definition, ...] = ()
    withheld: tuple[LoadKey, ...] = ()


@dataclass(frozen=True, slots=True)
class _Kept:
    """The aggregates over a feed: those whose values hold every row of `basis`, and those that lack some."""

    basis: int
    complete: tuple[Aggregate, ...]
    behind: tuple[Aggregate, ...]

    @property
    def definitions(self) -> tuple[Definition, ...]:
        return _definitions((*self.complete, *self.behind))


def _definitions(aggregates: Sequence[Aggregate]) -> tuple[Definition, ...]:
    return tuple(Definition(each.key, each.over, canonical_json(each.as_dict())) for each in aggregates)


def compute(store: Store, feed: Feed, declared: Sequence[Aggregate], batch: pl.DataFrame) -> Computed:
    """Compute the values that the rows of `batch` make or change in the aggregates over `feed`.

    `declared` are those over `feed` that the project declares now; those that it declared before are computed with
    them. Of the rows loaded before, only those are read that a changed value's window can hold; all are read for an
    aggregate whose values lack rows, because it is new or was not declared when they were loaded. The values equal,
    to the last bit, what all rows of the feed would have given, without those of withheld loads.
    """
    with store.ledger.read() as connection:
        kept = _kept(connection, feed, declared, batch)
        if not kept.definitions:
            return Computed(None)
        withheld = withheld_loads.find(connection, feed.name)
        oldest = _oldest(feed, kept.complete, batch)
        recent = data_files.entries(
            connection,
            feed.name,
            kept.basis,
            lookback_start_us=None if oldest is None else _us(oldest),
            excluded=withheld,
        )
        everything = (
            data_files.entries(connection, feed.name, kept.basis, excluded=withheld) if kept.behind else []
        )
    at_least = None if oldest is None else (feed.contract.event_time, oldest)
    values = _changed(kept.complete, _read(store, feed, recent, kept.complete, at_least), batch)
    values += _all(kept.behind, _read(store, feed, everything, kept.behind, None), batch)
    return Computed(kept.basis, tuple(values), kept.definitions, _definitions(kept.complete), withheld)


def backfill(store: Store, feeds: Sequence[Feed], aggregates: Sequence[Aggregate], *, now_us: int) -> int:
    """Compute `aggregates` from all rows of `feeds` where their values lack some.

    Returns the number of values written.

    One transaction for each feed. When this returns, a server that reads one of `aggregates` gets what `join_as_of`
    over the same rows gives for it, as far back as the server holds values. Raises `UnavailableError` HF311 when other
    loads come first again and again.
    """
    return refresh(store, [feed.name for feed in feeds], now_us=now_us) + sum(
        _backfill(store, feed, [each for each in aggregates if each.over == feed.name], now_us)
        for feed in feeds
    )


def refresh(store: Store, feeds: Sequence[str] | None = None, *, now_us: int) -> int:
    """Compute the values over `feeds`, None for all, that withheld and released loads change; return how many are written.

    One transaction for each feed. When this returns, the values hold every row but those of the loads that are withheld
    now. Raises `UnavailableError` HF311 when other loads come first again and again.
    """
    with store.ledger.read() as connection:
        kept = online_features.feeds(connection)
    return sum(_refresh(store, feed, now_us) for feed in kept if feeds is None or feed in feeds)


def refresh_after_load(store: Store, feed: Feed, declared: Sequence[Aggregate], *, now_us: int) -> None:
    """Refresh the values over `feed` and its group after a load, which may have released or held back other loads.

    `declared` are the aggregates over `feed`: one that is new by a withheld batch is computed from the other rows. What
    fails here fails no load, which is committed: the next load or round of the control loop refreshes again.
    """
    with suppress(HoldfastError, OSError, PolarsError):
        with store.ledger.read() as connection:
            kept = online_features.feeds(connection)
            found = withheld_loads.siblings(connection, feed.name) if kept else ()
        refresh(store, found, now_us=now_us)
        _backfill(store, feed, declared, now_us)


def try_refresh(store: Store, *, now_us: int) -> None:
    """Refresh all values after a back-out, which is committed and does not fail by what fails here."""
    with suppress(HoldfastError, OSError, PolarsError):
        refresh(store, now_us=now_us)


def _refresh(store: Store, feed: str, now_us: int) -> int:
    for _ in range(_MOST_ATTEMPTS):
        with store.ledger.read() as connection:
            recorded = withheld_loads.recorded(connection, feed)
            changed = sorted(set(recorded) ^ set(withheld_loads.find(connection, feed)))
            if not changed:
                return 0
            changed = withheld_loads.live(connection, changed)
            event_time = withheld_loads.event_time(connection, feed)
        found = recompute(store, feed, changed, event_time, are_removed=False)
        with store.ledger.write() as connection:
            # The binding look, as in `_backfill`.
            if (
                batches.has_feed_changed(connection, feed, found.basis)
                or withheld_loads.find(connection, feed) != found.withheld
                or withheld_loads.recorded(connection, feed) != recorded
            ):
                continue
            withheld_loads.record(connection, feed, found.withheld)
            if found.values:
                version = batches.new_version(connection, f"aggregates over {feed}", now_us)
                online_features.upsert(connection, found.values, version)
                online_features.register(connection, found.definitions, version)
        return len(found.values)
    raise _overtaken(feed)


def _backfill(store: Store, feed: Feed, aggregates: Sequence[Aggregate], now_us: int) -> int:
    for _ in range(_MOST_ATTEMPTS):
        with store.ledger.read() as connection:
            kept = _kept(connection, feed, aggregates, None)
            if not kept.behind:
                return 0
            withheld = withheld_loads.find(connection, feed.name)
            everything = data_files.entries(connection, feed.name, kept.basis, excluded=withheld)
        values = _all(kept.behind, _read(store, feed, everything, kept.behind, None), None)
        made = _Kept(kept.basis, (), kept.behind).definitions
        with store.ledger.write() as connection:
            # The binding look: a load may have come since the rows were read, and its values would be lost.
            if (
                batches.has_feed_changed(connection, feed.name, kept.basis)
                or withheld_loads.find(connection, feed.name) != withheld
            ):
                continue
            version = batches.new_version(connection, f"aggregates over {feed.name}", now_us)
            online_features.upsert(connection, values, version)
            online_features.register(connection, made, version)
        return len(values)
    raise _overtaken(feed.name)


def _overtaken(feed: str) -> UnavailableError:
    return UnavailableError(
        "HF311",
        f"other loads of {feed} came first {_MOST_ATTEMPTS} times",
        state="the aggregates are as they were",
        next_command="the same command again",
    )


def _kept(
    connection: Transaction, feed: Feed, declared: Sequence[Aggregate], batch: pl.DataFrame | None
) -> _Kept:
    """Collect what is declared; with a `batch` also what was declared before, as far as its rows have the columns."""
    found: dict[str, tuple[Aggregate, int | None]] = {each.key: (each, None) for each in declared}
    for known, reached in online_features.definitions(connection, feed.name):
        aggregate = Aggregate.from_dict(json.loads(known.definition_json))
        if known.aggregate in found or (batch is not None and _readable(aggregate, batch)):
            found[known.aggregate] = (aggregate, reached)
    if not found:
        return _Kept(0, (), ())
    complete, behind = list[Aggregate](), list[Aggregate]()
    for aggregate, version in found.values():
        lacks = version is None or batches.rows_since(connection, feed.name, version)
        (behind if lacks else complete).append(aggregate)
    return _Kept(batches.current_version(connection), tuple(complete), tuple(behind))


def _readable(aggregate: Aggregate, batch: pl.DataFrame) -> bool:
    try:
        first_changed_us(aggregate, batch)
    except InputError:
        return False
    return True


def _changed(
    aggregates: Sequence[Aggregate], history: pl.DataFrame, batch: pl.DataFrame
) -> list[OnlineValue]:
    """Compute the values that `batch` makes or changes, given the rows before it that their windows hold."""
    values: list[OnlineValue] = []
    for aggregate in aggregates:
        first_us = first_changed_us(aggregate, batch)
        if first_us is None:
            continue
        made = aggregate_rows(aggregate, _together(aggregate, history, batch), from_us=first_us)
        changed = made.filter(
            pl.col("known_at_us") < _unchanged_from_us(aggregate, batch[aggregate.known_at])
        )
        values.extend(OnlineValue(aggregate.key, *row) for row in changed.iter_rows())
    return values


def _all(
    aggregates: Sequence[Aggregate], history: pl.DataFrame, batch: pl.DataFrame | None
) -> list[OnlineValue]:
    """Compute the values from all rows."""
    values: list[OnlineValue] = []
    for aggregate in aggregates:
        rows = _together(aggregate, history, batch)
        if rows.height:
            values.extend(
                OnlineValue(aggregate.key, *row) for row in aggregate_rows(aggregate, rows).iter_rows()
            )
    return values


def _together(aggregate: Aggregate, history: pl.DataFrame, batch: pl.DataFrame | None) -> pl.DataFrame:
    columns = _columns([aggregate])
    frames = [each.select(columns) for each in (history, batch) if each is not None and each.height]
    return pl.concat(frames) if frames else pl.DataFrame()


def _oldest(feed: Feed, aggregates: Sequence[Aggregate], batch: pl.DataFrame) -> datetime | None:
    """Return the event time that the windows of `batch` reach back to; None if all rows are needed."""
    event_time = feed.contract.event_time
    # The ledger knows the span of each load in event time; another column's span it does not know.
    if not aggregates or any(aggregate.known_at != event_time for aggregate in aggregates):
        return None
    oldest = batch[event_time].min()
    return (
        oldest - max(aggregate.history for aggregate in aggregates) if isinstance(oldest, datetime) else None
    )


def _read(
    store: Store,
    feed: Feed,
    found: Sequence[FileFacts],
    aggregates: Sequence[Aggregate],
    at_least: tuple[str, datetime] | None,
) -> pl.DataFrame:
    if not aggregates:
        return pl.DataFrame()
    # Files of an older contract are shown in the dtypes of this one, which the batch has: else they do not fit together.
    kinds = dtypes(feed.contract)
    columns = {name: kinds[name] for name in _columns(aggregates) if name in kinds}
    return data_files.read(store.root, found, columns, at_least=at_least)


def _us(at: datetime) -> int:
    return round(at.timestamp() * 1e6)


def _columns(aggregates: Sequence[Aggregate]) -> list[str]:
    """Return the columns that `aggregates` read, each once."""
    return list(
        dict.fromkeys(column for each in aggregates for column in (each.by, each.value, each.known_at))
    )


def _unchanged_from_us(aggregate: Aggregate, known: pl.Series) -> int:
    """Return the first timestamp whose window holds no row of the batch any more."""
    last_us = int(known.drop_nulls().to_physical().to_numpy().max()) + aggregate.available_after_us
    grid_us = -(-last_us // aggregate.every_us) * aggregate.every_us
    return grid_us + aggregate.window_us
