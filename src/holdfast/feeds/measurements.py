"""Measurements of a delivery: everything that `admission.judge` looks at.

Only what the feed expects is measured, so that a feed without expectations pays for two digests and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from holdfast.contract import Category, Contract, Label
from holdfast.contract.batch.aliases import AliasCounts, map_aliases
from holdfast.feeds.expectations import Completeness, Expectations, Granularity
from holdfast.lazy_module import LazyModule
from holdfast.records import sha256_hex

if TYPE_CHECKING:
    import polars as pl
else:
    pl = LazyModule("polars")

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US

_MOST_REASONS: Final = 10
_MOST_ROWS: Final = 1_000
_MOST_VALUES: Final = 3
_LONGEST_VALUE: Final = 40

LEAST_UNSEEN: Final = 5
"""An unseen word in fewer rows is not reported: it may be one mistake."""

_MOST_UNSEEN: Final = 5

LEAST_VALUES: Final = 30
"""With fewer different rows than this, equal values in two batches may be chance: they are not called stale."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without an event, microseconds UTC.

    `entity` is the value of the column that it is about, "" for all.
    """

    entity: str
    from_us: int
    to_us: int
    counted_us: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """The ends of the numbers in a counting column, and how many numbers between them are missing."""

    low: int
    high: int
    holes: int


@dataclass(frozen=True, slots=True)
class LabelMatches:
    """How many of the labelled keys in a delivery of labels were found, each once.

    `what` names what they were looked up in, such as "row in feed loans". `had_before` is True if the loaded labels of
    the feed have rows. The count ends where they are no longer few.
    """

    labels: int
    found: int
    what: str
    had_before: bool = False

    @property
    def are_few(self) -> bool:
        """Return True if fewer than 1 % were found: single ids of another model may be equal by chance."""
        return self.found * 100 < self.labels


@dataclass(frozen=True, slots=True)
class DeliveryFacts:
    """One delivery in numbers. What the feed does not expect is empty or None.

    `rows_known` are those of `rows_dropped` that meet the contract and whose key is loaded already.
    `dropped` has for each slice value, as "column=value", the rows received and those dropped. `shares` has for each column
    of a composition the rows of each value, `busiest` for each column its most frequent value with its rows. `steps_us` has
    for each time between neighbouring events of an entity how often it occurs. `values_digest` leaves the key and the event
    time out of account, and is "" where too few rows differ. `offending` has some values of each reason if no row is valid.
    `aliases` has for each category, and each alias in it, how many of the delivered values were that alias.
    `matches` is None for a feed that labels no other.
    `unseen` has for each category with declared words that accepts others the number of accepted rows, and the rows of each
    frequent word that it does not list.
    """

    rows_loaded: int
    rows_dropped: int
    event_time_min_us: int | None
    event_time_max_us: int | None
    rows_digest: str
    rows_known: int = 0
    values_digest: str = ""
    rows_expected: int | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    day_us: int | None = None
    rows_elsewhere: int = 0
    sequence: Sequence | None = None
    steps_us: Mapping[int, int] = field(default_factory=dict)
    shares: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    busiest: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    newest_label_us: int | None = None
    offending: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: AliasCounts = field(default_factory=dict)
    unseen: Mapping[str, tuple[int, Mapping[str, int]]] = field(default_factory=dict)
    matches: LabelMatches | None = None

    @property
    def rows_received(self) -> int:
        """Rows that were delivered."""
        return self.rows_loaded + self.rows_dropped


def measure(
    contract: Contract,
    expects: Expectations,
    valid: pl.DataFrame,
    quarantined: pl.DataFrame,
    reasons: Mapping[str, int],
    *,
    rows_expected: int | None = None,
    aliases: AliasCounts | None = None,
) -> DeliveryFacts:
    """Measure a delivery whose rows the contract divided into `valid` (in event order) and `quarantined`.

    Parameters
    ----------
    valid
        The accepted rows, in the order of event time.
    quarantined
        The rejected rows.
    reasons
        The number of rejected rows by reason.
    rows_expected
        The number of rows that the sender declares, None if it declares none.
    aliases
        How many values were an alias, by column and alias.
    """
    times = valid[contract.event_time].to_physical()
    day_us, elsewhere = (
        _day(contract, valid) if expects.completeness and expects.completeness.daily else (None, 0)
    )
    return DeliveryFacts(
        rows_loaded=valid.height,
        rows_dropped=quarantined.height,
        event_time_min_us=int(times[0]) if valid.height else None,
        event_time_max_us=int(times[-1]) if valid.height else None,
        rows_digest=digest_of(valid),
        values_digest=_values_digest(contract, valid) if expects.duplicates == "stale" else "",
        rows_expected=rows_expected,
        reasons=dict(reasons),
        offending={} if valid.height else offending_values(quarantined, reasons),
        dropped=_dropped(contract, valid, quarantined) if expects.invalid_rows and quarantined.height else {},
        gaps=_gaps(contract, expects.completeness, valid) if expects.completeness else (),
        day_us=day_us,
        rows_elsewhere=elsewhere,
        sequence=_sequence(valid[expects.sequence]) if expects.sequence and valid.height else None,
        steps_us=_steps(contract, expects.granularity, valid) if expects.granularity else {},
        shares={each.column: _counts(valid[each.column]) for each in expects.composition},
        busiest={
            each.column: _busiest(valid[each.column])
            for each in expects.top_value_share
            if valid[each.column].count()
        },
        newest_label_us=_newest_label(contract, valid) if expects.early_labels == "refuse" else None,
        aliases=aliases or {},
        unseen=_unseen(contract, valid) if expects.unseen_words or expects.unseen_slices else {},
    )


def offending_values(quarantined: pl.DataFrame, reasons: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Return for the most frequent reasons some values that have them, as delivered, quoted and of bounded length.

    A reason of several columns, such as a rule, has none.

    >>> rows = pl.DataFrame({"km": ["far", "-1", None], "_reasons": [["km|type"], ["km|range"], ["km|missing"]]})
    >>> offending_values(rows, {"km|type": 1, "km|range": 1, "km|missing": 1})
    {'km|missing': ('nothing',), 'km|range': ('"-1"',), 'km|type': ('"far"',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for reason in sorted(reasons, key=lambda each: (-reasons[each], each))[:_MOST_REASONS]:
        column = reason.partition("|")[0]
        if column in quarantined.columns:
            rows = quarantined.filter(pl.col("_reasons").list.contains(reason)).head(_MOST_ROWS)
            values = rows[column].unique(maintain_order=True).head(_MOST_VALUES)
            found[reason] = tuple(map(quoted, values.to_list()))
    return found


def quoted(value: object) -> str:
    """Return a value on one line: control characters, and the ends of lines, are escaped."""
    if value is None:
        return "nothing"
    text = str(value)
    shown = json.dumps(text[:_LONGEST_VALUE], ensure_ascii=False)
    shown = "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in shown)
    return shown if len(text) <= _LONGEST_VALUE else f'{shown[:-1]}..."'


def digest_of(frame: pl.DataFrame) -> str:
    """Return a digest of the rows that does not depend on their order; a row may occur twice.

    Made of 64-bit hashes of the rows, added and mixed: two sets of rows are equal by chance once in 2 to the power of 64.
    Polars may hash otherwise in its next version; digests of different versions are never equal, and so never wrong.

    >>> one = pl.DataFrame({"a": [1, 2, 2]})
    >>> digest_of(one) == digest_of(one[::-1]), digest_of(one) == digest_of(one.head(2))
    (True, False)
    """
    if frame.is_empty():
        return ""
    hashes = frame.hash_rows(seed=2013).to_numpy()
    mixed = hashes ^ (hashes >> np.uint64(32))
    parts = (pl.__version__, frame.height, hashes.sum(), mixed.sum(), np.bitwise_xor.reduce(hashes))
    return sha256_hex(",".join(map(str, parts)))


def _values_digest(contract: Contract, valid: pl.DataFrame) -> str:
    values = valid.drop(*contract.key, contract.event_time, strict=False)
    if not values.width or values.height < LEAST_VALUES or values.n_unique() < LEAST_VALUES:
        return ""
    return digest_of(values)


def _dropped(
    contract: Contract, valid: pl.DataFrame, quarantined: pl.DataFrame
) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    words, _ = map_aliases(
        contract, quarantined
    )  # a rejected row is in the slice that it would be in, were it valid
    for name in contract.slices:
        if name not in quarantined.columns:
            continue
        bad = _counts(words[name].cast(pl.String))
        good = _counts(valid[name].cast(pl.String))
        for value, rows in bad.items():
            found[f"{name}={value}"] = (rows + good.get(value, 0), rows)
    return found


def _unseen(contract: Contract, valid: pl.DataFrame) -> dict[str, tuple[int, dict[str, int]]]:
    found: dict[str, tuple[int, dict[str, int]]] = {}
    for column in contract.columns:
        if isinstance(column, Category) and column.values is not None and column.unseen == "other":
            values = valid[column.name]
            others = _counts(values.filter(~values.is_in(list(column.values))))
            most = sorted(others.items(), key=lambda each: (-each[1], each[0]))[:_MOST_UNSEEN]
            found[column.name] = (valid.height, {word: rows for word, rows in most if rows >= LEAST_UNSEEN})
    return {name: each for name, each in found.items() if each[1]}


def _day(contract: Contract, valid: pl.DataFrame) -> tuple[int | None, int]:
    """Return the local day of most rows (its start, microseconds UTC), and the number of rows of other days."""
    if valid.is_empty():
        return None, 0
    days = valid[contract.event_time].dt.truncate("1d").to_physical().value_counts(sort=True)
    most = days.row(0)
    return int(most[0]), valid.height - int(most[1])


def _gaps(contract: Contract, complete: Completeness, valid: pl.DataFrame) -> tuple[Gap, ...]:
    """Return the times without an event that are longer than allowed; quiet hours do not count."""
    if valid.is_empty():
        return ()
    entity = pl.lit("") if complete.by is None else pl.col(complete.by).cast(pl.String)
    times = valid.select(entity.alias("entity"), pl.col(contract.event_time).alias("at")).drop_nulls("entity")
    if complete.daily:
        start = valid[contract.event_time].dt.truncate("1d").value_counts(sort=True).row(0)[0]
        days = pl.Series("at", [start]).dt.cast_time_unit("us")
        zone = valid.schema[contract.event_time]
        ends = pl.concat([days, days.dt.offset_by("1d")]).cast(zone)
        edges = times.select("entity").unique().join(pl.DataFrame({"at": ends}), how="cross")
        times = pl.concat([times, edges.with_columns(pl.col("entity").cast(pl.String))])
        times = times.filter(pl.col("at").is_between(ends[0], ends[1]))
    longest = (
        times.unique()
        .sort("entity", "at")
        .with_columns(pl.col("at").shift(1).over("entity").alias("before"))
        .drop_nulls("before")
        .filter(pl.col("at") - pl.col("before") > pl.lit(timedelta(microseconds=complete.max_gap_us)))
    )
    found = []
    for name, to, since in longest.select("entity", "at", "before").iter_rows():
        span_us = (to - since) // timedelta(microseconds=1)
        quiet_us = (
            0
            if complete.quiet_hours is None
            else _quiet_us(longest.schema["at"], since, to, complete.quiet_hours)
        )
        if span_us - quiet_us > complete.max_gap_us:
            found.append(Gap(name, _us(since), _us(to), span_us - quiet_us))
    return tuple(found)


def _quiet_us(zone: pl.DataType, since: object, to: object, quiet: tuple[int, int]) -> int:
    """Return how much of the time between two timestamps is in the quiet hours, to the minute."""
    minutes = pl.datetime_range(
        pl.lit(since).cast(zone), pl.lit(to).cast(zone), "1m", closed="left", eager=False
    )
    hours = pl.select(minutes.dt.hour().alias("hour"))["hour"]
    return int(hours.is_between(quiet[0], quiet[1] - 1).sum()) * (HOUR_US // 60)


def _us(timestamp: object) -> int:
    return int(pl.Series([timestamp]).dt.epoch("us")[0])


def _sequence(numbers: pl.Series) -> Sequence | None:
    there = numbers.drop_nulls().unique()
    if there.is_empty():
        return None
    ends = pl.select(low=there.min(), high=there.max()).row(0)
    low, high = int(ends[0]), int(ends[1])
    return Sequence(low, high, high - low + 1 - there.len())


def _steps(contract: Contract, granularity: Granularity, valid: pl.DataFrame) -> dict[int, int]:
    at = pl.col(contract.event_time)
    if granularity.by is None:
        steps = at.diff()
    else:
        valid, steps = valid.drop_nulls(granularity.by), at.diff().over(granularity.by)
    found = valid.select(steps.dt.total_microseconds().alias("us"))["us"].drop_nulls()
    return {int(us): int(count) for us, count in found.filter(found > 0).value_counts().iter_rows()}


def _counts(values: pl.Series) -> dict[str, int]:
    counted = values.drop_nulls().value_counts()
    return {str(value): int(count) for value, count in counted.iter_rows()}


def _busiest(values: pl.Series) -> tuple[str, int]:
    counted = values.drop_nulls().value_counts()
    most = counted.sort(counted.columns[1], counted.columns[0], descending=[True, False]).row(0)
    return str(most[0]), int(most[1])


def _newest_label(contract: Contract, valid: pl.DataFrame) -> int | None:
    label = contract.label
    if not isinstance(label, Label):
        return None
    newest = valid.filter(pl.col(label.name).is_not_null())[contract.event_time].to_physical().max()
    return int(newest) if isinstance(newest, int) else None
