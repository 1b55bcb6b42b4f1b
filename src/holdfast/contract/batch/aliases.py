"""Aliases in a batch: each is replaced by its word, and counted. `row/aliases.py` does the same for rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from holdfast.contract.schema.contract import Contract
from holdfast.lazy_module import LazyModule

if TYPE_CHECKING:
    import polars as pl
else:
    pl = LazyModule("polars")

AliasCounts: TypeAlias = Mapping[str, Mapping[str, int]]
"""By column and alias, how many values were that alias."""


def map_aliases(contract: Contract, frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, dict[str, int]]]:
    """Return `frame` with the word of each alias of `contract`, and the number of values by column and alias.

    Columns that the frame lacks, or that are no text, are left as they are.

    >>> from holdfast.contract import Category, Timestamp
    >>> town = Category("town", aliases={"NYC": "New York"})
    >>> contract = Contract(town, Timestamp("at", tz="UTC"), key="at", event_time="at")
    >>> frame, counts = map_aliases(contract, pl.DataFrame({"town": ["NYC", "Oslo", "NYC"]}))
    >>> frame["town"].to_list(), counts
    (['New York', 'Oslo', 'New York'], {'town': {'NYC': 2}})
    """
    counts: dict[str, dict[str, int]] = {}
    changed: list[pl.Series] = []
    for name, words in contract.aliases.items():
        if frame.schema.get(name) != pl.String:
            continue
        values = frame.get_column(name)
        found = values.filter(values.is_in(list(words)))
        if found.len():
            counted = found.rename("alias").value_counts(name="values").sort("alias")
            counts[name] = dict(counted.iter_rows())
            changed.append(values.replace(dict(words)))
    return (frame.with_columns(changed) if changed else frame), counts
