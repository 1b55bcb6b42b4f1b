"""Columns of numbers in another unit, converted like single values by `units.convert_value`."""

from __future__ import annotations

import numpy as np
import polars as pl

from holdfast.contract.schema.columns import EXACT, Column, Integer, Number
from holdfast.contract.schema.units import Conversion


def convert_column(
    column: Column, conversion: Conversion, values: pl.Series, faults: dict[str, pl.Series]
) -> tuple[pl.Series, dict[str, pl.Series]]:
    """Return `values` in the contract's unit, and the faulty rows by rule, `faults` included.

    A whole number that would not stay whole is a fault and becomes null. A column of another dtype than the
    contract's is returned as it is; the batch check refuses it.

    >>> hours = Integer("hours", unit="h")
    >>> values, faults = convert_column(hours, Conversion(1, 0, 60), pl.Series([120, 90, None]), {})
    >>> values.to_list(), faults["not_exact"].to_list()
    ([2, None, None], [False, True, False])
    """
    match column:
        case Number() if values.dtype == pl.Float64:
            return _apply(conversion, values), faults
        case Integer() if values.dtype == pl.Int64:
            whole = _apply(conversion, values.cast(pl.Float64))
            lost = (whole != whole.floor()) | (whole.abs() > EXACT) | ~values.is_between(-EXACT, EXACT)
            lost = lost.fill_null(value=False)
            already = faults.get("not_exact")
            faults = {**faults, "not_exact": lost if already is None else lost | already}
            return whole.set(lost, None).cast(pl.Int64), faults
        case _:
            return values, faults


def _apply(conversion: Conversion, values: pl.Series) -> pl.Series:
    # By NumPy, because Polars divides by a constant as it multiplies by its reciprocal, which rounds twice.
    with np.errstate(over="ignore", invalid="ignore"):
        found = pl.Series(values.name, conversion.apply(values.to_numpy()), dtype=pl.Float64)
    return found.set(values.is_null(), None)
