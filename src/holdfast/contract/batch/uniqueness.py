"""Which rows of a batch repeat the key of an earlier one: what costs most of all that is checked.

Three proofs that nothing is repeated, the cheapest that applies first; only rows that none of them clears are compared
by their keys.

1. Numbers and instants that nearly rise, as ids and event times do: the rows that do not fit are taken out, the rest is
   strictly rising, and only what was taken out can repeat anything.
2. Numbers that lie close together: counted one by one.
3. Anything else by its hash: equal keys have equal hashes, and sorting hashes is five times as fast as finding first
   occurrences.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

_FEW: Final = 64
"""One row in so many may be out of order."""

_SPARSE: Final = 8
"""So many times the rows may the span of numbers be that are marked one by one."""

Whole: TypeAlias = NDArray[np.int64]


def incomplete(frame: pl.DataFrame, names: tuple[str, ...]) -> pl.Series | None:
    """The rows in which one of `names` is missing, null or an empty word; None when there is none."""
    found = frame.select(
        pl.any_horizontal(_is_missing(name, kind) for name, kind in frame.select(names).schema.items()).alias(
            "incomplete"
        )
    ).to_series()
    return found if found.any() else None


def _is_missing(name: str, kind: pl.DataType) -> pl.Expr:
    value = pl.col(name)
    return value.is_null() | (value == "").fill_null(value=False) if kind == pl.String else value.is_null()


def suspects(frame: pl.DataFrame, key: tuple[str, ...]) -> pl.Expr:
    """Where a row of a frame like `frame` may repeat another, or be repeated: every such row, and few besides.

    It knows nothing of bad rows, so that Polars can find them at the same time.
    """
    if _is_whole(frame, key):
        return pl.col(key[0]).to_physical().map_batches(_numbers, return_dtype=pl.Boolean()).alias("suspect")
    return _hash(key).map_batches(_hashes, return_dtype=pl.Boolean()).alias("suspect")


def may_repeat(frame: pl.DataFrame, key: tuple[str, ...]) -> bool:
    """Whether `suspects` would find any row, for few rows without the price of a query."""
    if _is_whole(frame, key):
        return len(_twice(frame.get_column(key[0]).to_physical())) > 0
    return bool(frame.select_seq(suspects(frame, key).any()).item())


def _is_whole(frame: pl.DataFrame, key: tuple[str, ...]) -> bool:
    kind = frame.schema[key[0]]
    return len(key) == 1 and (kind == pl.Int64 or kind.is_temporal())


def repeated(
    frame: pl.DataFrame, key: tuple[str, ...], bad: pl.Series, suspect: pl.Series | None = None
) -> pl.Series | None:
    """The rows whose key an earlier good row has; None when there is none. Rows that are `bad` are no part of it.

    `suspect` is what `suspects` found, when that is known already.
    """
    if suspect is None:
        suspect = frame.select(suspects(frame, key)).to_series()
    if not suspect.any() or not (suspect := suspect & ~bad).any():
        return None
    rows = frame.select(key).with_row_index("_row").filter(suspect)
    later = rows.filter(~rows.select(key).select(pl.struct(pl.all()).is_first_distinct()).to_series())["_row"]
    if later.is_empty():
        return None
    flags = np.zeros(frame.height, dtype=np.bool_)
    flags[later.to_numpy()] = True
    return pl.Series("repeated", flags)


def _numbers(numbers: pl.Series) -> pl.Series:
    return _are_among(numbers, _twice(numbers))


def _twice(numbers: pl.Series) -> NDArray[Any]:
    """The numbers that are there twice; 0 may stand for one that is missing."""
    values = (numbers.fill_null(0) if numbers.null_count() else numbers).to_numpy()
    twice = _twice_in_order(values)
    if twice is None:
        twice = _twice_when_close(values)
    if twice is None:
        twice = _twice_sorted(values)
    return twice


def _hashes(hashes: pl.Series) -> pl.Series:
    return _are_among(hashes, _twice_sorted(hashes.to_numpy()))


def _are_among(values: pl.Series, twice: NDArray[Any]) -> pl.Series:
    if len(twice) == 0:
        return pl.repeat(value=False, n=len(values), dtype=pl.Boolean(), eager=True)
    return values.is_in(pl.Series(twice, dtype=values.dtype).implode()).fill_null(value=False)


def _twice_sorted(values: NDArray[Any]) -> NDArray[Any]:
    ordered = np.sort(values)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _twice_in_order(values: Whole) -> Whole | None:
    """The values that are there twice, when nearly all rise; None when too many do not.

    Both sides of every step that does not rise are taken out. If what is left rises strictly, it holds each value once.
    """
    if len(values) < 2:
        return values[:0]
    falls = np.flatnonzero(values[1:] <= values[:-1])
    if len(falls) == 0:
        return values[:0]
    if len(falls) * _FEW > len(values):
        return None
    out = np.unique(np.concatenate((falls, falls + 1)))
    rising, loose = np.delete(values, out), np.sort(values[out])
    gaps = np.unique(out - np.arange(len(out)))  # where what was taken out is missing in what is left
    inner = gaps[(gaps > 0) & (gaps < len(rising))]
    if not (rising[inner] > rising[inner - 1]).all():
        return None
    among = loose[1:][loose[1:] == loose[:-1]]
    if len(rising) == 0:
        return np.unique(among)
    at = np.searchsorted(rising, loose)
    there = loose[rising[np.minimum(at, len(rising) - 1)] == loose]
    return np.unique(np.concatenate((among, there)))


def _twice_when_close(values: Whole) -> Whole | None:
    """The values that are there twice, when all lie close together; None when they do not."""
    if len(values) == 0:
        return values
    low, high = int(values.min()), int(values.max())
    if high - low >= _SPARSE * len(values):
        return None
    counts = np.bincount(values - low)
    return np.flatnonzero(counts > 1) + low


def _hash(key: tuple[str, ...]) -> pl.Expr:
    mixed = pl.col(key[0]).hash(1)
    for place, name in enumerate(key[1:], start=2):
        mixed = mixed ^ pl.col(name).hash(place)
    return mixed.alias("hash")
