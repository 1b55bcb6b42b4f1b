"""Read Parquet files in the types that a contract can ask for."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.store.sources.arrow_tables import refuse_columns
from holdfast.store.sources.delivery import TooLargeError, UnreadableError

_SMALL_BYTES: Final = 1 << 20


def read_parquet(data: bytes, limit_bytes: int) -> tuple[pa.Table, int]:
    """Return the rows of a file, and its size in bytes when unpacked; timestamps with a zone are in UTC.

    Raises `InputError` HF202 for a type that no column of a contract can be and for a duplicate name, `TooLargeError` beyond
    `limit_bytes`, and `UnreadableError` when the file has other rows than its footer counts.
    """
    file = _opened(data)
    about = file.metadata
    groups = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
    # A lower bound of the size in memory: a column that repeats one value is small on disk only.
    size = max(int(groups), int(about.num_rows) * int(about.num_columns))
    if size > limit_bytes:
        raise TooLargeError
    # No contract can ask for other types, and at some of them Polars panics.
    refuse_columns(
        file.schema_arrow,
        {
            field.name: field.type
            for field in file.schema_arrow
            if not any(fits(field.type) for fits in _TYPES)
        },
        next_command="write these columns as numbers, text, timestamps or booleans",
    )
    # Threads take longer to wake than a small file takes to read.
    table = file.read(use_threads=size > _SMALL_BYTES)
    if table.num_rows != about.num_rows:
        raise UnreadableError(f"has {table.num_rows:,} rows, and {about.num_rows:,} by its footer")
    return table.cast(_in_utc(table.schema)), size


def parquet_schema(data: bytes) -> pa.Schema:
    """Return the columns of a file in the types in which `read_parquet` returns them."""
    return _in_utc(_opened(data).schema_arrow)


def _opened(data: bytes) -> pq.ParquetFile:
    # As nanoseconds, INT96 timestamps outside 1677 to 2262 would become others.
    return pq.ParquetFile(
        pa.BufferReader(data), page_checksum_verification=True, coerce_int96_timestamp_unit="us"
    )


def _in_utc(schema: pa.Schema) -> pa.Schema:
    """Return `schema` with UTC for each zone: a file keeps points in time in UTC, and Polars panics at some names."""
    return pa.schema(
        [
            field.with_type(pa.timestamp(field.type.unit, "UTC"))
            if pa.types.is_timestamp(field.type) and field.type.tz is not None
            else field
            for field in schema
        ],
        metadata=schema.metadata,
    )


def _is_words(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.DictionaryType) and any(
        fits(kind.value_type) for fits in (pa.types.is_string, pa.types.is_large_string)
    )


_TYPES: Final = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal128,
    pa.types.is_boolean,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_timestamp,
    pa.types.is_date,
    pa.types.is_null,
    _is_words,
)
