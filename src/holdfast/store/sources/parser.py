"""Parse the rows of a delivery into what the batch check of a contract takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.contract import MISSING_WORDS, Contract, TypedBatch, from_objects, from_text
from holdfast.errors import InputError
from holdfast.store.sources import arrow_tables, csv_reader, json_lines
from holdfast.store.sources.decompress import TooLargeError, unpacked
from holdfast.store.sources.delivery import Bundle, File, Kind, Rows, Source, first_line, refused, too_large
from holdfast.store.sources.opener import Spec, open_source

_SMALL_BYTES: Final = 1 << 20


def read(spec: Spec, contract: Contract, *, missing_words: tuple[str, ...] = MISSING_WORDS) -> TypedBatch:
    """Return the rows of the source at `spec`; raises as `open_source` and `parse` do."""
    return parse(open_source(spec), contract, missing_words=missing_words)


def parse(
    source: Source, contract: Contract, *, missing_words: tuple[str, ...] = MISSING_WORDS
) -> TypedBatch:
    """Return the rows of `source`, the files of one delivery in the order of their names.

    CSV is text and is read by the rules of the contract; `missing_words` mean a missing value. JSON, Parquet and a database
    bring types, which are widened by `from_objects` and `from_frame`.

    Raises `InputError` HF201 when a file cannot be read or is larger than the limit when unpacked, and HF202 when its
    columns are not the contract's.
    """
    match source:
        case Rows():
            return arrow_tables.typed(contract, source.table)
        case Bundle(files=files):
            left = source.limit_bytes
            parts = []
            for file in files:
                part, size = _parse_file(source, file, contract, missing_words, left)
                parts.append(part)
                left -= size
            return parts[0] if len(parts) == 1 else _joined(parts)


def _parse_file(
    source: Bundle, file: File, contract: Contract, missing_words: tuple[str, ...], limit_bytes: int
) -> tuple[TypedBatch, int]:
    """Return the rows of one file, and its size in bytes when unpacked."""
    name = source.name if source.alone else f"{source.name}: {file.name}"
    try:
        if file.kind is Kind.PARQUET:
            table, size = _read_parquet(name, file.data, limit_bytes)
            return arrow_tables.with_facts(contract, table), size
        text = unpacked(file.data, limit_bytes)
        if file.kind is Kind.JSON_LINES:
            found = json_lines.read(text)
            return replace(from_objects(contract, found.rows), lines=found.broken), len(text)
        cells = csv_reader.read(text)
        typed = from_text(contract, cells.frame, missing_words=missing_words)
        return replace(typed, lines=cells.lines), len(text)
    except (csv_reader.UnreadableError, json_lines.UnreadableError) as error:
        raise refused(name, str(error)) from error
    except TooLargeError as error:
        raise too_large(source.name, source.limit_bytes) from error
    except OSError as error:
        raise refused(name, f"is not a readable {file.kind} file ({first_line(error)})") from error


def _read_parquet(name: str, data: bytes, limit_bytes: int) -> tuple[pa.Table, int]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        size = _unpacked_bytes(file.metadata)
        if size > limit_bytes:
            raise TooLargeError
        check_types(file.schema_arrow)
        # Threads take longer to wake than a small file takes to read.
        return file.read(use_threads=size > _SMALL_BYTES), size
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError, ValueError) as error:
        raise refused(name, f"is not a readable Parquet file ({first_line(error)})") from error


def _unpacked_bytes(metadata: pq.FileMetaData) -> int:
    """Return a lower bound of the size in memory: a column that repeats one value is small on disk only."""
    groups = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    return max(int(groups), int(metadata.num_rows) * int(metadata.num_columns))


def _joined(parts: Sequence[TypedBatch]) -> TypedBatch:
    """Return the rows of several files, one after the other."""
    originals = [part.original for part in parts]
    if any(frame.schema != originals[0].schema for frame in originals):
        originals = [_as_text(frame) for frame in originals]
    reasons = dict.fromkeys(reason for part in parts for reason in part.faults)
    return TypedBatch(
        pl.concat([part.frame for part in parts], how="vertical"),
        pl.concat(originals, how="diagonal"),
        {reason: pl.concat([_fault_rows(part, reason) for part in parts]) for reason in reasons},
        lines=tuple(line for part in parts for line in part.lines),
        line_rule=parts[0].line_rule,
    )


def _fault_rows(part: TypedBatch, reason: str) -> pl.Series:
    none = pl.repeat(value=False, n=part.frame.height, dtype=pl.Boolean, eager=True)
    return part.faults.get(reason, none).rename(reason)


def _as_text(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        pl.col(name).dt.to_string("iso:strict") if kind.is_temporal() else pl.col(name).cast(pl.String)
        for name, kind in frame.schema.items()
    )


def check_types(schema: pa.Schema) -> None:
    """Refuse what no contract can ask for, before Polars meets it: at some types it panics."""
    names = schema.names
    wrong = [f"{name} is there twice" for name in sorted({name for name in names if names.count(name) > 1})]
    wrong += [
        f"{field.name} is {field.type}, which no column of a contract can be"
        for field in schema
        if not any(fits(field.type) for fits in _TYPES)
    ]
    if wrong:
        raise InputError(
            "HF202",
            "; ".join(wrong),
            state="no row was read",
            next_command="write these columns as numbers, text, timestamps or booleans",
        )


def _is_words(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.DictionaryType) and any(
        fits(kind.value_type) for fits in (pa.types.is_string, pa.types.is_large_string)
    )


_TYPES: Final = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_timestamp,
    pa.types.is_null,
    _is_words,
)
