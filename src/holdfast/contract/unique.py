"""Which rows of a batch repeat the key of an earlier one: what costs most of all that is checked."""

from __future__ import annotations

import numpy as np
import polars as pl


def incomplete(frame: pl.DataFrame, names: tuple[str, ...]) -> pl.Series | None:
    """The rows in which one of `names` is missing, null or an empty word; None when there is none."""
    found = frame.select(
        pl.any_horizontal(
            pl.col(name).is_null() | (pl.col(name) == "").fill_null(value=False)
            if kind == pl.String
            else pl.col(name).is_null()
            for name, kind in frame.select(names).schema.items()
        ).alias("incomplete")
    ).to_series()
    return found if found.any() else None


def repeated(frame: pl.DataFrame, key: tuple[str, ...], bad: pl.Series) -> pl.Series | None:
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
