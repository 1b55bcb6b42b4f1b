"""Rows in an order and a form that depend on the rows alone: a query that is repeated has the same digest."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from holdfast.records import canonical_json
from holdfast.store.sources.arrow_tables import frame_of

_FORM = 1


def canonical(table: pa.Table) -> tuple[pa.Table, tuple[bytes, ...]]:
    """Return the rows of `table` sorted by all their values, columns by name, and the bytes that are digested.

    The form: for each column its name and kind as JSON, a byte a row that is 1 if there is a value, and the values:
    integers, timestamps (microseconds) and doubles as 8 bytes with the least first, booleans as one, texts as their lengths
    and then their UTF-8. Integers and doubles of any width have one form; NaN is one value, and 0.0 and -0.0 are two.

    >>> one, two = pa.table({"a": [2, 1], "b": ["x", None]}), pa.table({"b": [None, "x"], "a": [1, 2]})
    >>> canonical(one)[1] == canonical(two)[1]
    True
    """
    frame = frame_of(table)
    parts = {name: _parts(frame[name]) for name in sorted(frame.columns)}
    keys = pl.DataFrame(
        [
            series.alias(f"{number}")
            for number, series in enumerate(s for _, held in parts.values() for s in held)
        ]
    )
    order = (
        keys.select(pl.arg_sort_by(keys.columns)).to_series()
        if keys.width
        else pl.Series([], dtype=pl.UInt32)
    )
    pieces = [canonical_json({"form": _FORM, "rows": table.num_rows}).encode()]
    for name, (kind, (there, values)) in parts.items():
        pieces.append(canonical_json({"name": name, "kind": kind}).encode())
        pieces.append(there[order].cast(pl.UInt8).to_numpy().tobytes())
        pieces.extend(_bytes(values[order]))
    return table.select(sorted(table.column_names)).take(pa.array(order.to_numpy())), tuple(pieces)


def _parts(values: pl.Series) -> tuple[str, tuple[pl.Series, pl.Series]]:
    """Return the kind of a column, and its values as two series without nulls that sort by their bits."""
    there = values.is_not_null()
    kind = values.dtype
    if kind.is_float():
        doubles = values.cast(pl.Float64).fill_null(0.0).to_numpy()
        doubles = np.where(np.isnan(doubles), np.nan, doubles)
        return "double", (there, pl.Series(doubles.view(np.int64)))
    if kind.is_integer():
        return "integer", (there, values.cast(pl.Int64).fill_null(0))
    if isinstance(kind, pl.Datetime):
        word = "wall clock" if kind.time_zone is None else "timestamp"
        return word, (there, values.dt.cast_time_unit("us").to_physical().fill_null(0))
    if kind == pl.Boolean:
        return "boolean", (there, values.fill_null(value=False).cast(pl.UInt8))
    return "text", (there, values.cast(pl.String).fill_null(""))


def _bytes(values: pl.Series) -> list[bytes]:
    if values.dtype == pl.String:
        lengths = values.str.len_bytes().to_numpy().astype("<i8").tobytes()
        return [lengths, "".join(values.to_list()).encode()]
    numbers = values.to_numpy()
    return [numbers.astype("<i8").tobytes() if values.dtype == pl.Int64 else numbers.tobytes()]
