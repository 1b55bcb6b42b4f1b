"""The contract compiled for batches: one pass of Polars finds the bad rows, a bitmask says what each breaks.

The first pass keeps one bit for a row and rule; bitmasks of the good rows would move 64 times as many bytes,
and lists of words many more. The row check in `row.py` states the same rules as closures; a property test
holds the two together.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

import numpy as np
import polars as pl

from holdfast.contract.columns import (
    EXACT,
    Boolean,
    Category,
    Column,
    Integer,
    Label,
    Number,
    Text,
    Timestamp,
)
from holdfast.contract.contract import Contract
from holdfast.contract.missing import Reject
from holdfast.contract.moments import EARLIEST_US, LATEST_US
from holdfast.contract.text import Typed
from holdfast.errors import InputError

REASONS: Final = "_reasons"
"""The column of a quarantined row that says why; no contract can name a column so."""

LINE: Final = "_line"
"""The column of the quarantine that holds a line which could not be taken apart into columns."""

_FIELDS: Final = f"{LINE}|fields"

_BITS: Final = 64

_FEW: Final = 12
"""Up to so many words, comparing with each is faster than looking up in a set."""


@dataclass(frozen=True, slots=True)
class BatchVerdict:
    """What the check found.

    `valid` has the columns of the contract in its order and dtypes, a missing word as null. `quarantined`
    has the columns as they were delivered and `_reasons`, a list of "column|rule" that is never empty. Both
    keep the order of the batch, and every row is in exactly one of them. Lines of a delivery that had not the
    header's number of fields come after them, whole in the column `_line`, with the reason "_line|fields".
    `counts` says how many rows each reason struck.
    """

    valid: pl.DataFrame
    quarantined: pl.DataFrame
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Rule:
    """A reason, and where it holds. `covered`: where it does, another rule of the column is broken too."""

    reason: str
    broken: pl.Expr
    covered: bool = False

    @property
    def column(self) -> str:
        return self.reason.partition("|")[0]


BatchCheck: TypeAlias = Callable[[pl.DataFrame | Typed], BatchVerdict]


def dtype(column: Column) -> pl.DataType:
    """The one Polars dtype that a column may have in a frame."""
    match column:
        case Number():
            return pl.Float64()
        case Integer():
            return pl.Int64()
        case Category() | Text():
            return pl.String()
        case Timestamp():
            return pl.Datetime("us", column.tz)
        case Boolean() | Label():
            return pl.Boolean()
        case _:
            assert_never(column)


def dtypes(contract: Contract) -> dict[str, pl.DataType]:
    """The dtype of each column, in the contract's order.

    >>> from holdfast.contract import Contract, Integer, Timestamp
    >>> dtypes(Contract(Integer("id"), Timestamp("at", tz="UTC"), key="id", event_time="at"))
    {'id': Int64, 'at': Datetime(time_unit='us', time_zone='UTC')}
    """
    return {column.name: dtype(column) for column in contract.columns}


def compile_batch(contract: Contract) -> BatchCheck:
    """A function from a batch to its valid and its quarantined rows.

    Returns
    -------
    A pure function of a frame, or of what `from_text` read. Row for row it gives the reasons that
    `compile_row` gives. In addition the key is unique among the valid rows: the first row of the batch that
    is valid otherwise is kept, each later one with its key gets the reason "<key>|duplicate" ("+" between
    the columns of a composite key). So a resent row is harmless, and a row that was sent damaged and then
    again in order is not lost.

    Raises
    ------
    InputError
        HF202, from the returned function, when a column is missing, is not in the contract or has another
        dtype than `dtype` says; nothing is cast to fit.

    Examples
    --------
    >>> from holdfast.contract import Contract, Integer, Timestamp
    >>> from datetime import UTC, datetime
    >>> pings = Contract(Integer("id", low=0), Timestamp("at", tz="UTC"), key="id", event_time="at")
    >>> batch = pl.DataFrame({"id": [7, -1, 7], "at": [datetime(2013, 1, 1, tzinfo=UTC)] * 3},
    ...                      schema={"id": pl.Int64, "at": pl.Datetime("us", "UTC")})
    >>> compile_batch(pings)(batch).counts
    {'id|range': 1, 'id|duplicate': 1}
    """
    schema = dtypes(contract)
    place = {name: number for number, name in enumerate(schema)}
    rules = tuple(rule for column in contract.columns for rule in _rules(column, column.name in contract.key))
    duplicate = f"{'+'.join(contract.key)}|duplicate"
    words = [column.name for column in contract.columns if isinstance(column, (Category, Text))]

    def check(batch: pl.DataFrame | Typed) -> BatchVerdict:
        typed = batch if isinstance(batch, Typed) else Typed(batch, batch, {})
        verdict = check_columns(typed)
        return _with_lines(verdict, typed.lines) if typed.lines else verdict

    def check_columns(typed: Typed) -> BatchVerdict:
        _check_schema(typed.frame, schema)
        frame = typed.frame.select(list(schema)).rechunk()
        # No column is named like a reason, so that the faults can stand beside the columns.
        wide = frame.with_columns(rows.alias(reason) for reason, rows in typed.faults.items())
        faults = [_Rule(reason, pl.col(reason)) for reason in typed.faults]
        # Stable: of one column the faults come first, since what could not be read is not missing.
        every = tuple(sorted((*faults, *rules), key=lambda rule: place[rule.column]))
        bad = wide.select(_any_broken(every)).to_series()
        repeated = _repeated(frame, contract.key, bad)
        if repeated is not None:
            bad = bad | repeated
        if not bad.any():
            return BatchVerdict(_words_null(frame, words), _with_no_reasons(typed.original), {})
        masks = wide.filter(bad).select(_masks(every))
        reasons = _decode(masks, every, None if repeated is None else (duplicate, repeated.filter(bad)))
        quarantined = typed.original.filter(bad).with_columns(reasons.alias(REASONS))
        order = [*(rule.reason for rule in every), duplicate]
        return BatchVerdict(_words_null(frame.filter(~bad), words), quarantined, _count(reasons, order))

    return check


def as_delivered(quarantined: pl.DataFrame) -> pl.DataFrame:
    """`quarantined` as the quarantine keeps it: every value as text, so that rows of one feed stand in one table whether
    they came as text or typed, and whatever was wrong with them. Moments are ISO 8601.

    >>> from datetime import UTC, datetime
    >>> bad = pl.DataFrame({"v": [9e9], "at": [datetime(2013, 1, 1, tzinfo=UTC)], "_reasons": [["v|range"]]})
    >>> as_delivered(bad).row(0)
    ('9000000000.0', '2013-01-01T00:00:00.000000+00:00', ['v|range'], None)
    """
    texts = [
        pl.col(name).dt.to_string("iso:strict") if kind.is_temporal() else pl.col(name).cast(pl.String)
        for name, kind in quarantined.schema.items()
        if name not in (REASONS, LINE)
    ]
    line = pl.col(LINE) if LINE in quarantined.columns else pl.lit(None, pl.String).alias(LINE)
    return quarantined.select(*texts, REASONS, line)


def _with_lines(verdict: BatchVerdict, lines: tuple[str, ...]) -> BatchVerdict:
    held = pl.DataFrame({LINE: lines}, schema={LINE: pl.String}).with_columns(
        pl.lit([_FIELDS], pl.List(pl.String)).alias(REASONS)
    )
    quarantined = pl.concat([verdict.quarantined, held], how="diagonal")
    return BatchVerdict(verdict.valid, quarantined, verdict.counts | {_FIELDS: len(lines)})


def _check_schema(frame: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> None:
    found = frame.schema
    missing = [name for name in schema if name not in found]
    extra = [name for name in found if name not in schema]
    wrong = [
        f"{name} is {found[name]}, not {wanted}"
        for name, wanted in schema.items()
        if name in found and found[name] != wanted
    ]
    parts = [
        f"{what}: {', '.join(names)}"
        for what, names in (("missing", missing), ("not in the contract", extra), ("of another type", wrong))
        if names
    ]
    if parts:
        raise InputError(
            "HF202",
            "; ".join(parts),
            state="no row was checked",
            next_command="correct the source, or the contract if the source is meant to look so",
        )


def _rules(column: Column, in_key: bool) -> Iterator[_Rule]:
    value, name = pl.col(column.name), column.name
    is_word = isinstance(column, (Category, Text))
    bounded = isinstance(column, (Number, Integer)) and column.low is not None and column.high is not None
    if isinstance(column.missing, Reject):
        yield _Rule(
            f"{name}|missing", value.is_null() | (value.str.len_bytes() == 0) if is_word else value.is_null()
        )
    match column:
        case Number():
            yield _Rule(f"{name}|not_finite", ~value.is_finite(), covered=bounded)
            yield from _range(name, value, column.low, column.high)
        case Integer():
            yield _Rule(f"{name}|not_exact", ~value.is_between(-EXACT, EXACT), covered=bounded)
            yield from _range(name, value, column.low, column.high)
        case Category():
            if in_key:
                yield _Rule(f"{name}|nul", _has_nul(value))
            if column.unseen == "reject":
                yield _Rule(f"{name}|unseen", _is_none_of(value, (*(column.values or ()), "")))
        case Timestamp():
            yield _Rule(f"{name}|range", ~value.dt.epoch("us").is_between(EARLIEST_US, LATEST_US))
        case Text():
            yield _Rule(f"{name}|nul", _has_nul(value))
            yield _Rule(f"{name}|too_long", value.str.len_chars() > column.max_length)
            if column.pattern is not None:
                yield _Rule(f"{name}|pattern", _mismatch(value, column.pattern, column.max_length))
        case Boolean() | Label():
            pass
        case _:
            assert_never(column)


def _has_nul(value: pl.Expr) -> pl.Expr:
    return value.cast(pl.Binary).bin.contains(b"\0")  # over bytes: nearly three times as fast as over text


def _is_none_of(value: pl.Expr, words: tuple[str, ...]) -> pl.Expr:
    if len(words) > _FEW:
        return ~value.is_in(words)
    return functools.reduce(operator.and_, (value != word for word in words))


def _range(name: str, value: pl.Expr, low: float | None, high: float | None) -> Iterator[_Rule]:
    if low is not None and high is not None:
        yield _Rule(f"{name}|range", ~value.is_between(low, high))
    elif low is not None:
        yield _Rule(f"{name}|range", value < low)
    elif high is not None:
        yield _Rule(f"{name}|range", value > high)


def _mismatch(value: pl.Expr, pattern: str, longest: int) -> pl.Expr:
    # Python's `re`, because Polars' expressions differ (no look-around, another $), and both back ends must
    # mean the same. A text that is too long has its reason already, and may cost a pattern much time.
    matches = re.compile(pattern).fullmatch

    def broken(texts: pl.Series) -> pl.Series:
        distinct = texts.unique().drop_nulls().to_list()
        odd = [text for text in distinct if 0 < len(text) <= longest and not matches(text)]
        return texts.is_in(odd)

    return value.map_batches(broken, return_dtype=pl.Boolean())


def _any_broken(rules: tuple[_Rule, ...]) -> pl.Expr:
    return pl.any_horizontal(rule.broken.fill_null(value=False) for rule in rules if not rule.covered)


def _masks(rules: tuple[_Rule, ...]) -> list[pl.Expr]:
    """One UInt64 column for every 64 rules, bit i set where its rule i is broken. Null breaks no rule."""
    masks = []
    for start in range(0, len(rules), _BITS):
        bits = [
            pl.when(rule.broken).then(pl.lit(1 << bit, pl.UInt64)).otherwise(pl.lit(0, pl.UInt64))
            for bit, rule in enumerate(rules[start : start + _BITS])
        ]
        masks.append(pl.sum_horizontal(bits).alias(f"mask{start // _BITS}"))
    return masks


def _repeated(frame: pl.DataFrame, key: tuple[str, ...], bad: pl.Series) -> pl.Series | None:
    """The rows whose key an earlier good row has; None when there is none.

    Equal keys have equal hashes, so when no hash is there twice no key is: sorting hashes is five times as
    fast as finding first occurrences. Only rows whose hash is there twice are compared by their keys.
    """
    hashes = frame.select(_hash(key)).to_series()
    any_bad = bool(bad.any())
    good = hashes.filter(~bad) if any_bad else hashes
    ordered = np.sort(good.to_numpy())
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice) == 0:
        return None
    suspect = hashes.is_in(pl.Series(np.unique(twice)).implode()) & ~bad
    rows = frame.select(key).with_row_index("_row").filter(suspect)
    later = rows.filter(~rows.select(key).select(pl.struct(pl.all()).is_first_distinct()).to_series())["_row"]
    if later.is_empty():
        return None
    flags = np.zeros(frame.height, dtype=np.bool_)
    flags[later.to_numpy()] = True
    return pl.Series("repeated", flags)


def _hash(key: tuple[str, ...]) -> pl.Expr:
    mixed = pl.col(key[0]).hash(1)
    for place, name in enumerate(key[1:], start=2):
        mixed = mixed ^ pl.col(name).hash(place)
    return mixed.alias("hash")


def _decode(
    masks: pl.DataFrame, rules: tuple[_Rule, ...], duplicate: tuple[str, pl.Series] | None
) -> pl.Series:
    """The words for the rows of `masks`: of each column the first broken rule, then the batch's own rule."""
    found = masks.select(pl.all().bitwise_or()).row(0)
    chains: dict[str, list[tuple[str, pl.Expr]]] = {}
    for place, rule in enumerate(rules):
        word, bit = divmod(place, _BITS)
        if found[word] >> bit & 1:
            broken = (pl.col(f"mask{word}") & pl.lit(1 << bit, pl.UInt64)) != 0
            chains.setdefault(rule.column, []).append((rule.reason, broken))
    listed = []
    for chain in chains.values():
        choice = pl.lit(None, pl.String)
        for reason, broken in reversed(chain):
            choice = pl.when(broken).then(pl.lit(reason)).otherwise(choice)
        listed.append(choice)
    if duplicate is not None:
        reason, rows = duplicate
        listed.append(pl.when(pl.lit(rows)).then(pl.lit(reason)).otherwise(pl.lit(None, pl.String)))
    return masks.select(pl.concat_list(listed).list.drop_nulls().alias(REASONS)).to_series()


def _count(reasons: pl.Series, order: list[str]) -> dict[str, int]:
    counted = dict(reasons.explode().value_counts().iter_rows())
    return {reason: counted[reason] for reason in dict.fromkeys(order) if reason in counted}


def _words_null(frame: pl.DataFrame, words: list[str]) -> pl.DataFrame:
    """`frame` with each empty word as null, so that what follows sees one form of missing."""
    empty = frame.select((pl.col(words).str.len_bytes() == 0).any()).row(0) if words else ()
    changed = [name for name, has_empty in zip(words, empty, strict=True) if has_empty]
    return frame.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in changed)


def _with_no_reasons(original: pl.DataFrame) -> pl.DataFrame:
    return original.clear().with_columns(pl.lit(None, pl.List(pl.String)).alias(REASONS))
