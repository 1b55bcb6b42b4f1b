"""Rows of a batch that repeat the key of an earlier one: the most expensive part of the check.

Two proofs of uniqueness; only rows that neither clears are compared by key.

1. Numbers and timestamps that nearly rise, as ids and event times do. The rows out of order are taken out, the rest
   rises strictly, and only what was taken out can repeat anything: 0.4 ms per million rows, against 12 ms for sorting.
2. Anything else by sorting, words by their hash, since equal keys have equal hashes: 20 ms per million rows, against
   190 ms for finding first occurrences.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

_MAX_OUT_OF_ORDER_RATIO: Final = 64
"""One row in this many may be out of order."""

IntArray: TypeAlias = NDArray[np.int64]


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
    if _is_whole(frame, key):
        return (
            pl.col(key[0])
            .to_physical()
            .map_batches(_flag_repeated_numbers, return_dtype=pl.Boolean())
            .alias("suspect")
        )
    return _hash_key(key).map_batches(_flag_repeated_hashes, return_dtype=pl.Boolean()).alias("suspect")


def has_possible_repeats(frame: pl.DataFrame, key: tuple[str, ...]) -> bool:
    """Return True if `possible_repeats` would mark any row; without the cost of a query (70 us against 170 us for 100 rows)."""
    if _is_whole(frame, key):
        return len(_repeated_values(frame.get_column(key[0]).to_physical())) > 0
    return bool(frame.select_seq(possible_repeats(frame, key).any()).item())


def _is_whole(frame: pl.DataFrame, key: tuple[str, ...]) -> bool:
    kind = frame.schema[key[0]]
    return len(key) == 1 and (kind == pl.Int64 or kind.is_temporal())


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
