"""The reasons why a row of a batch may be invalid: a Polars expression of each, bitmasks of those that hold, and repeated keys.

The row check in `row/compiler.py` states the same for one value; a property test compares both.

Two proofs of uniqueness; only rows that neither clears are compared by key.

1. Numbers and timestamps that nearly rise, as ids and event times do. The rows out of order are taken out, the rest
   rises strictly, and only what was taken out can repeat anything: 0.4 ms per million rows, against 12 ms for sorting.
2. Anything else by sorting, words by their hash, since equal keys have equal hashes: 20 ms per million rows, against
   190 ms for finding first occurrences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, assert_never

import numpy as np
import polars as pl
from numpy.typing import NDArray

from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.batch.rules import compile_rule_for_frame, is_any_of, is_text_such_that
from holdfast.contract.schema.columns import EXACT
from holdfast.contract.schema.missing import Reject

REASONS: Final = "_reasons"
"""The column of a quarantined row that lists its reasons; no contract can name a column so."""
_BITS: Final = 64

BitPosition: TypeAlias = tuple[int, int]
"""The mask and the bit in it of a reason. Two reasons may share a word: a time out of range as read, and as checked."""

_MAX_OUT_OF_ORDER_RATIO: Final = 64
"""One row in this many may be out of order."""
IntArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason and the expression that is true where it holds; null is false.

    `covered`: where it holds, another reason of the column holds too. `reads` are the columns of a rule of the
    contract, which is evaluated only where each of them is valid; empty for the reason of a column.
    """

    word: str
    broken: pl.Expr
    covered: bool = False
    reads: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        """Return the column of the reason; of a rule, the rule's name, which no column has."""
        return self.word.partition("|")[0]


def reasons_of(contract: Contract) -> tuple[Reason, ...]:
    """Return every reason that one row by itself can have: those of the columns in order, then those of the rules."""
    by_name = {column.name: column for column in contract.columns}
    of_columns = (
        reason
        for column in contract.columns
        for reason in _column_reasons(column, column.name in contract.key)
    )
    of_rules = (
        Reason(rule.reason, ~compile_rule_for_frame(rule, by_name), reads=rule.columns)
        for rule in contract.rules
    )
    return (*of_columns, *of_rules)


def _column_reasons(column: Column, in_key: bool) -> Iterator[Reason]:
    value, name = pl.col(column.name), column.name
    is_word = isinstance(column, (Category, Text))
    bounded = isinstance(column, (Number, Integer)) and column.low is not None and column.high is not None
    if isinstance(column.missing, Reject):
        yield Reason(f"{name}|missing", value.is_null())
        if is_word:
            closed = isinstance(column, Category) and column.unseen == "reject"
            yield Reason(f"{name}|missing", value.str.len_bytes() == 0, covered=closed)
    match column:
        case Number():
            yield Reason(f"{name}|not_finite", ~value.is_finite(), covered=bounded)
            yield from _range_reasons(name, value, column.low, column.high)
        case Integer():
            yield Reason(f"{name}|not_exact", ~value.is_between(-EXACT, EXACT), covered=bounded)
            yield from _range_reasons(name, value, column.low, column.high)
        case Category():
            if in_key:
                yield Reason(f"{name}|nul", _has_nul(value))
            # A row is too long before it is unseen; where only declared words pass, `unseen` finds both.
            closed = column.unseen == "reject"
            yield Reason(f"{name}|too_long", value.str.len_chars() > column.longest, covered=closed)
            if column.unseen == "reject":
                # Where missing is refused, the empty word is both: the reason `missing` comes first.
                empty = () if isinstance(column.missing, Reject) else ("",)
                yield Reason(f"{name}|unseen", ~is_any_of(value, (*(column.values or ()), *empty)))
        case Timestamp():
            yield Reason(f"{name}|range", ~value.dt.epoch("us").is_between(*column.bounds_us))
        case Text():
            yield Reason(f"{name}|nul", _has_nul(value))
            yield Reason(f"{name}|too_long", value.str.len_chars() > column.max_length)
            if column.pattern is not None:
                yield Reason(f"{name}|pattern", _pattern_mismatch(value, column.pattern, column.max_length))
        case Boolean() | Label():
            pass
        case _:
            assert_never(column)


def _has_nul(value: pl.Expr) -> pl.Expr:
    return value.cast(pl.Binary).bin.contains(b"\0")  # over bytes: nearly three times as fast as over text


def _range_reasons(name: str, value: pl.Expr, low: float | None, high: float | None) -> Iterator[Reason]:
    if low is not None and high is not None:
        yield Reason(f"{name}|range", ~value.is_between(low, high))
    elif low is not None:
        yield Reason(f"{name}|range", value < low)
    elif high is not None:
        yield Reason(f"{name}|range", value > high)


def _pattern_mismatch(value: pl.Expr, pattern: str, longest: int) -> pl.Expr:
    # A text that is too long has its reason already, and may cost a pattern much time.
    matches = re.compile(pattern).fullmatch
    return is_text_such_that(value, lambda text: 0 < len(text) <= longest and not matches(text))


def has_reason_of(column: str) -> pl.Expr:
    """Return an expression for quarantined rows: true if a reason of the row is about `column` itself."""
    return pl.col(REASONS).list.eval(pl.element().str.starts_with(f"{column}|")).list.any()


def is_any_broken(reasons: tuple[Reason, ...]) -> pl.Expr:
    """Return an expression that is true in each row for which any reason holds."""
    # Null where one is null and none holds, so that one look at the end is enough.
    return pl.any_horizontal(reason.broken for reason in reasons if not reason.covered).fill_null(value=False)


def bitmasks(reasons: tuple[Reason, ...]) -> list[pl.Expr]:
    """Return one UInt64 column for every 64 reasons, with bit i set where reason i holds."""
    masks = []
    for start in range(0, len(reasons), _BITS):
        bits = [
            pl.when(reason.broken).then(pl.lit(1 << bit, pl.UInt64)).otherwise(pl.lit(0, pl.UInt64))
            for bit, reason in enumerate(reasons[start : start + _BITS])
        ]
        masks.append(pl.sum_horizontal(bits).alias(f"mask{start // _BITS}"))
    return masks


def list_reasons(
    masks: pl.DataFrame, reasons: tuple[Reason, ...], repeats: Iterable[tuple[str, pl.Series]]
) -> pl.Series:
    """Return the list of reasons of each row of `masks`.

    Each column gives the first reason that holds; then follow the rules whose columns are all valid, then those of
    `repeats`: the rows that repeat an earlier row, by reason.
    """
    found = masks.select(pl.all().bitwise_or()).row(0)
    chains: dict[str, list[tuple[BitPosition, Reason]]] = {}
    for number, reason in enumerate(reasons):
        mask, bit = divmod(number, _BITS)
        if found[mask] >> bit & 1:
            chains.setdefault(reason.column, []).append(((mask, bit), reason))
    listed = []
    for chain in chains.values():
        choice = pl.lit(None, pl.String)
        for place, reason in reversed(chain):
            of_read = [other for name in reason.reads for other, _ in chains.get(name, ())]
            holds = _any_bit([place]) & ~_any_bit(of_read) if of_read else _any_bit([place])
            choice = pl.when(holds).then(pl.lit(reason.word)).otherwise(choice)
        listed.append(choice)
    for word, rows in repeats:
        listed.append(pl.when(pl.lit(rows)).then(pl.lit(word)).otherwise(pl.lit(None, pl.String)))
    return masks.select(pl.concat_list(listed).list.drop_nulls().alias(REASONS)).to_series()


def count_reasons(reasons: pl.Series, order: list[str]) -> dict[str, int]:
    """Return the number of rows per reason, in the given order."""
    counted = dict(reasons.explode().value_counts().iter_rows())
    return {reason: counted[reason] for reason in dict.fromkeys(order) if reason in counted}


def _any_bit(places: list[BitPosition]) -> pl.Expr:
    wanted: dict[int, int] = {}
    for word, bit in places:
        wanted[word] = wanted.get(word, 0) | 1 << bit
    return pl.any_horizontal(
        (pl.col(f"mask{word}") & pl.lit(bits, pl.UInt64)) != 0 for word, bits in wanted.items()
    )


def find_incomplete(frame: pl.DataFrame, names: tuple[str, ...]) -> pl.Series | None:
    """Return the rows in which one of `names` is missing, null or an empty word; None if there is none."""
    found = frame.select(
        pl.any_horizontal(_is_missing(name, kind) for name, kind in frame.select(names).schema.items()).alias(
            "incomplete"
        )
    ).to_series()
    return found if found.any() else None


def _is_missing(name: str, kind: pl.DataType) -> pl.Expr:
    value = pl.col(name)
    return value.is_null() | (value == "").fill_null(value=False) if kind == pl.String else value.is_null()


def possible_repeats(frame: pl.DataFrame, key: tuple[str, ...]) -> pl.Expr:
    """Return an expression that marks every row that may repeat another or be repeated, and few others.

    It ignores bad rows, so that Polars can find them in the same pass.
    """
    kind = frame.schema[key[0]]
    if len(key) == 1 and (kind == pl.Int64 or kind.is_temporal()):
        return (
            pl.col(key[0])
            .to_physical()
            .map_batches(_flag_repeated_numbers, return_dtype=pl.Boolean())
            .alias("suspect")
        )
    return _hash_key(key).map_batches(_flag_repeated_hashes, return_dtype=pl.Boolean()).alias("suspect")


def find_repeats(
    frame: pl.DataFrame, key: tuple[str, ...], bad: pl.Series, suspect: pl.Series | None = None
) -> pl.Series | None:
    """Return the rows whose key an earlier good row has; None if there is none. Rows that are `bad` are ignored.

    `suspect` is the result of `possible_repeats`, if known.
    """
    if suspect is None:
        suspect = frame.select(possible_repeats(frame, key)).to_series()
    if not suspect.any() or not (suspect := suspect & ~bad).any():
        return None
    rows = frame.select(key).with_row_index("_row").filter(suspect)
    later = rows.filter(~rows.select(key).select(pl.struct(pl.all()).is_first_distinct()).to_series())["_row"]
    if later.is_empty():
        return None
    flags = np.zeros(frame.height, dtype=np.bool_)
    flags[later.to_numpy()] = True
    return pl.Series("repeated", flags)


def _flag_repeated_numbers(numbers: pl.Series) -> pl.Series:
    return _is_among(numbers, _repeated_values(numbers))


def _repeated_values(numbers: pl.Series) -> NDArray[Any]:
    """Return the numbers that occur twice; 0 may represent a missing one."""
    values = (numbers.fill_null(0) if numbers.null_count() else numbers).to_numpy()
    repeated = _repeated_if_rising(values)
    return _repeated_by_sorting(values) if repeated is None else repeated


def _flag_repeated_hashes(hashes: pl.Series) -> pl.Series:
    return _is_among(hashes, _repeated_by_sorting(hashes.to_numpy()))


def _is_among(values: pl.Series, repeated: NDArray[Any]) -> pl.Series:
    if len(repeated) == 0:
        return pl.repeat(value=False, n=len(values), dtype=pl.Boolean(), eager=True)
    return values.is_in(pl.Series(repeated, dtype=values.dtype).implode()).fill_null(value=False)


def _repeated_by_sorting(values: NDArray[Any]) -> NDArray[Any]:
    ordered = np.sort(values)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _repeated_if_rising(values: IntArray) -> IntArray | None:
    """Return the values that occur twice, if nearly all rise; None if too many do not.

    Both sides of every step that does not rise are taken out. If the rest rises strictly, it holds each value once.
    """
    if len(values) < 2:
        return values[:0]
    falls = np.flatnonzero(values[1:] <= values[:-1])
    if len(falls) == 0:
        return values[:0]
    if len(falls) * _MAX_OUT_OF_ORDER_RATIO > len(values):
        return None
    out = np.unique(np.concatenate((falls, falls + 1)))
    rising, loose = np.delete(values, out), np.sort(values[out])
    gaps = np.unique(out - np.arange(len(out)))  # gaps in `rising`
    inner = gaps[(gaps > 0) & (gaps < len(rising))]
    if not (rising[inner] > rising[inner - 1]).all():
        return None
    repeated = loose[1:][loose[1:] == loose[:-1]]
    if len(rising) == 0:
        return np.unique(repeated)
    at = np.searchsorted(rising, loose)
    there = loose[rising[np.minimum(at, len(rising) - 1)] == loose]
    return np.unique(np.concatenate((repeated, there)))


def _hash_key(key: tuple[str, ...]) -> pl.Expr:
    mixed = pl.col(key[0]).hash(1)
    for place, name in enumerate(key[1:], start=2):
        mixed = mixed ^ pl.col(name).hash(place)
    return mixed.alias("hash")
