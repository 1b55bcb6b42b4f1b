"""The columns of a Delta table: their types, units and meanings, and the statistics by which readers skip files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.contract import Contract
from holdfast.contract.schema.source_metadata import column_metadata
from holdfast.errors import InputError

if TYPE_CHECKING:
    from deltalake import Schema

_MOST_ROWS_READ: Final = 100_000
_COMPARED: Final = (int, float, str, datetime)
"""The types of values that have bounds; Delta knows none of booleans."""


def schema_of(files: Iterable[Path], contract: Contract | None) -> Schema:
    """Return the columns of all `files` together, in the types of Delta, with the units and meanings of `contract`.

    Raises `InputError` HF212 when a column has no type that all its files' values have.
    """
    # Converted before they are merged: files of before and after a change of zone have the same timestamps.
    schemas = [
        pa.schema([field.with_type(_delta_type(field.type)) for field in pq.read_schema(path)])
        for path in sorted(files)
    ]
    try:
        merged = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise InputError(
            "HF212",
            f"a column has values of several kinds in different files, and a Delta table has one for each: {error}",
            state="this table was not exported",
            next_command="give the new column of the contract a name of its own, or back out the batches of the old contract",
        ) from error
    from deltalake import Schema

    return Schema.from_arrow(_described(merged, contract))


def _delta_type(found: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(found) and found.tz is not None:
        return pa.timestamp("us", "UTC")
    if pa.types.is_large_string(found):
        return pa.string()
    if pa.types.is_large_list(found):
        return pa.list_(_delta_type(found.value_type))
    return found


def _described(columns: pa.Schema, contract: Contract | None) -> pa.Schema:
    """Return `columns` with the unit and the meaning of each in the metadata of its field."""
    for name, metadata in column_metadata(contract).items() if contract is not None else ():
        index = columns.get_field_index(name)
        if index >= 0:
            columns = columns.set(index, columns.field(index).with_metadata(metadata))
    return columns


def column_stats(file: Path) -> dict[str, object]:
    """Return the bounds and the missing values of each column as Delta's statistics, so that readers skip files by them."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    missing: dict[str, int] = {}
    for name, (least, most, nulls) in _bounds(file).items():
        missing[name] = nulls
        if isinstance(least, _COMPARED) and isinstance(most, _COMPARED) and not isinstance(least, bool):
            if any(isinstance(each, float) and not math.isfinite(each) for each in (least, most)):
                continue
            low[name], high[name] = _stat(least, up=False), _stat(most, up=True)
    return {"minValues": low, "maxValues": high, "nullCount": missing}


def _bounds(file: Path) -> dict[str, tuple[Any, Any, int]]:
    """Return the least and greatest value and the missing ones of each plain column, from the footer or from few rows."""
    footer = pq.read_metadata(file)
    found: dict[str, tuple[Any, Any, int]] = {}
    for index in range(footer.num_columns if footer.num_row_groups else 0):
        groups = [footer.row_group(group).column(index) for group in range(footer.num_row_groups)]
        name, stats = groups[0].path_in_schema, [group.statistics for group in groups]
        if any(each is None or not (each.has_min_max and each.has_null_count) for each in stats):
            if footer.num_rows > _MOST_ROWS_READ:
                continue
            column = pl.read_parquet(file, columns=[name.partition(".")[0]]).to_series()
            if not column.dtype.is_nested():
                found[name] = column.min(), column.max(), column.null_count()
        elif "." not in name:
            least, most = min(each.min for each in stats), max(each.max for each in stats)
            found[name] = least, most, sum(each.null_count for each in stats)
    return found


def _stat(bound: Any, *, up: bool) -> Any:
    """Return a bound as Delta writes it: a timestamp has milliseconds."""
    if isinstance(bound, datetime):
        at = bound.astimezone(UTC) if bound.tzinfo is not None else bound
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        at += timedelta(milliseconds=1) if up and at.microsecond != bound.microsecond else timedelta(0)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return bound
