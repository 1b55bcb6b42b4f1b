"""Read Parquet files in the types that a contract can ask for, in no more memory than they may take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from holdfast.store.sources import parquet_pages
from holdfast.store.sources.arrow_tables import refuse_columns
from holdfast.store.sources.delivery import UnreadableError
from holdfast.store.sources.memory import Memory, TooLargeError
from holdfast.store.sources.parquet_pages import RowGroup

_SMALL_BYTES: Final = 1 << 20
_FOOTER_TIMES: Final = 512
"""How many bytes of memory a byte of a footer can become: a column's description is a few bytes in the file."""
_MAGIC_AND_LENGTH: Final = 8


def read_parquet(
    data: bytes,
    limit_bytes: int,
    memory: Memory,
    check_names: Callable[[Sequence[str]], None] = lambda _names: None,
) -> tuple[pa.Table, int]:
    """Return the rows of a file, and its size in bytes when unpacked; timestamps with a zone are in UTC.

    `check_names` is called with the names of its columns before anything else is read, and may raise.

    Raises `InputError` HF202 for a type that no column of a contract can be and for a duplicate name, `TooLargeError` beyond
    `limit_bytes` or `memory`, before it is taken, and `UnreadableError` when the file has other rows than its footer counts.
    """
    file = _opened(data, memory)
    about = file.metadata
    check_names(file.schema_arrow.names)
    if about.num_rows < 0:
        raise UnreadableError(f"has {about.num_rows:,} rows by its footer")
    groups = parquet_pages.row_groups(data)
    # A lower bound of the size in memory: a column that repeats one value is small on disk only.
    size = max(sum(group.size for group in groups), about.num_rows * about.num_columns)
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
    memory.hold_rows(about.num_rows, about.num_columns, 0)
    table = _read(file, data, groups, memory, use_threads=size > _SMALL_BYTES)
    if table.num_rows != about.num_rows:
        raise UnreadableError(f"has {table.num_rows:,} rows, and {about.num_rows:,} by its footer")
    return table.cast(_in_utc(table.schema)), size


def parquet_schema(data: bytes, memory: Memory) -> pa.Schema:
    """Return the columns of a file in the types in which `read_parquet` returns them."""
    return _in_utc(_opened(data, memory).schema_arrow)


def _opened(data: bytes, memory: Memory) -> pq.ParquetFile:
    footer_bytes = int.from_bytes(data[-_MAGIC_AND_LENGTH:-4], "little")
    memory.require(min(footer_bytes, len(data)) * _FOOTER_TIMES)
    # As nanoseconds, INT96 timestamps outside 1677 to 2262 would become others.
    return pq.ParquetFile(
        pa.BufferReader(data), page_checksum_verification=True, coerce_int96_timestamp_unit="us"
    )


def _read(
    file: pq.ParquetFile, data: bytes, groups: list[RowGroup], memory: Memory, *, use_threads: bool
) -> pa.Table:
    """Return the rows: all at once if their texts fit however they are coded, else in batches that are counted."""
    has_words = [file.schema.column(place).physical_type == "BYTE_ARRAY" for place in range(len(file.schema))]
    words = 0
    longest_rows = []
    for group in groups:
        if len(group.chunks) != len(has_words):
            raise UnreadableError(f"has a row group of {len(group.chunks)} columns, not of {len(has_words)}")
        columns = [
            parquet_pages.measure(data, chunk, group.rows, has_words=words_there)
            for chunk, words_there in zip(group.chunks, has_words, strict=True)
        ]
        memory.require(sum(column.page_bytes for column in columns))
        words += sum(column.words_bytes for column in columns)
        longest_rows.append(sum(column.longest_bytes for column in columns))
    if memory.fits_text(words):
        # Threads take longer to wake than a small file takes to read.
        table = file.read(use_threads=use_threads)
        memory.hold_text(sum(map(_text_bytes, table.columns)))
        return table
    batches = []
    for number, longest in enumerate(longest_rows):
        # Of these rows even the longest values fit.
        rows = min(memory.text_rows(longest), groups[number].rows)
        for batch in file.iter_batches(max(rows, 1), row_groups=[number], use_threads=use_threads):
            memory.hold_text(sum(map(_text_bytes, batch.columns)))
            batches.append(batch)
    return pa.Table.from_batches(batches, file.schema_arrow)


def _text_bytes(values: Any) -> int:
    """Return the bytes that the texts of a column are, each as often as it is there."""
    kind = values.type
    if isinstance(kind, pa.DictionaryType):
        chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
        return sum(
            pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0 for chunk in chunks
        )
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pc.sum(pc.binary_length(values)).as_py() or 0
    return 0


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
