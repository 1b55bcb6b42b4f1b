"""Parse the rows of a delivery into what the batch check of a contract takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from holdfast.contract import Contract
from holdfast.contract.batch.csv_format import Csv
from holdfast.contract.batch.input_columns import renamed_columns
from holdfast.contract.batch.json_input import from_objects
from holdfast.contract.batch.text_input import MISSING_WORDS, PLAIN, TypedBatch, from_text
from holdfast.feeds.schema_drift import Kind as ColumnKind
from holdfast.formatting import first_line
from holdfast.store.sources import arrow_tables, json_lines
from holdfast.store.sources.delivery import (
    Bundle,
    Kind,
    Rows,
    Source,
    TooLargeError,
    UnreadableError,
    reading,
    unpacked,
)

NO_HEADERS: Final[Mapping[str, str]] = {}

_SMALL_BYTES: Final = 1 << 20

_LONGEST_LINE_BYTES: Final = 1 << 22
_ENDS: Final = b"\r\n"


def parse(
    source: Source,
    contract: Contract,
    *,
    missing_words: tuple[str, ...] = MISSING_WORDS,
    csv: Csv = PLAIN,
    headers: Mapping[str, str] = NO_HEADERS,
) -> TypedBatch:
    """Return the rows of `source`, the files of one delivery in the order of their names.

    CSV is text in the form `csv` and is read by the rules of the contract; `missing_words` mean a missing value. JSON,
    Parquet and a database bring types, which are widened by `from_objects` and `from_frame`. `headers` has the contract's
    names of columns that are delivered under others.

    Raises `InputError` HF201 when a file cannot be read or is larger than the limit when unpacked, and HF202 when its
    columns are not the contract's.
    """
    match source:
        case Rows():
            return arrow_tables.typed(contract, _renamed(source.table, contract, headers))
        case Bundle(files=files):
            left = source.limit_bytes
            parts = []
            for file in files:
                with reading(source, file):
                    if file.kind is Kind.PARQUET:
                        table, size = _read_parquet(file.data, left)
                        parts.append(arrow_tables.with_facts(contract, _renamed(table, contract, headers)))
                    else:
                        text = unpacked(file.data, left)
                        size = len(text)
                        parts.append(
                            _from_json(text, contract, headers)
                            if file.kind is Kind.JSON_LINES
                            else _from_csv(text, contract, missing_words, csv, headers)
                        )
                left -= size
            return parts[0] if len(parts) == 1 else _joined(parts)


def _from_json(text: bytes, contract: Contract, headers: Mapping[str, str]) -> TypedBatch:
    found = json_lines.read(text)
    rows = found.rows
    if headers:
        rows = [
            {new.get(name, name): value for name, value in row.items()}
            for row in rows
            for new in [renamed_columns(contract, row, headers)]
        ]
    return replace(from_objects(contract, rows), lines=found.broken)


def _from_csv(
    text: bytes, contract: Contract, missing_words: tuple[str, ...], csv: Csv, headers: Mapping[str, str]
) -> TypedBatch:
    cells = read_csv(text, csv.separator)
    frame = cells.frame.rename(renamed_columns(contract, cells.frame.columns, headers))
    return replace(from_text(contract, frame, missing_words=missing_words, csv=csv), lines=cells.lines)


def _renamed(table: pa.Table, contract: Contract, headers: Mapping[str, str]) -> pa.Table:
    new = renamed_columns(contract, table.column_names, headers)
    return table.rename_columns([new.get(name, name) for name in table.column_names]) if new else table


def _read_parquet(data: bytes, limit_bytes: int) -> tuple[pa.Table, int]:
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    about = file.metadata
    groups = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
    # A lower bound of the size in memory: a column that repeats one value is small on disk only.
    size = max(int(groups), int(about.num_rows) * int(about.num_columns))
    if size > limit_bytes:
        raise TooLargeError
    # No contract can ask for other types, and at some of them Polars panics.
    arrow_tables.refuse_columns(
        file.schema_arrow,
        {
            field.name: field.type
            for field in file.schema_arrow
            if not any(fits(field.type) for fits in _TYPES)
        },
        next_command="write these columns as numbers, text, timestamps or booleans",
    )
    # Threads take longer to wake than a small file takes to read.
    return file.read(use_threads=size > _SMALL_BYTES), size


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


@dataclass(frozen=True, slots=True)
class Delimited:
    """The rows of a CSV file, and its broken lines.

    `lines` are those with more or fewer fields than the header, as they were delivered; they are not in `frame`.
    """

    frame: pl.DataFrame
    lines: tuple[str, ...]


def read_csv(text: bytes, separator: str = ",") -> Delimited:
    """Read UTF-8 with a header, separators and double quotes; empty lines are skipped.

    Raises `UnreadableError` for a file that is no such thing, and for one that ends within a line or within quotes: rows
    would be missing without a sign. A file whose last line ends without a line feed is complete if that line has all its
    fields; whether its last value was truncated cannot be known.
    """
    try:
        pa.array([text], pa.large_binary()).cast(pa.large_string())  # whether it is UTF-8, without a copy
        names = _header(text, separator)
        broken: list[pc.InvalidRow] = []
        table = _table(text, names, broken, separator)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableError(f"is not a readable CSV file ({first_line(error)})") from error
    if _is_truncated(text, broken) or _is_open(text, table):
        raise UnreadableError(
            "ends within a line or within quotes: it was truncated in transit, or a quote is not closed"
        )
    return Delimited(pl.DataFrame(pl.from_arrow(table)), tuple(row.text for row in broken))


def _header(text: bytes, separator: str) -> list[str]:
    """Return the names in the first line. Each must be there once, or a value would belong to two columns."""
    first = pc.open_csv(
        pa.BufferReader(text[: _end_of_header(text)]),
        parse_options=pc.ParseOptions(newlines_in_values=True, delimiter=separator),
    ).schema.names
    twice = sorted({name for name in first if first.count(name) > 1})
    if twice:
        raise UnreadableError(f"names a column twice in its header: {', '.join(twice)}")
    return list(first)


def _end_of_header(text: bytes) -> int:
    """Return where the first line ends that holds an even number of quotes."""
    end, start = 0, len(text) - len(text.lstrip(_ENDS))
    while True:
        end = text.find(b"\n", max(end, start))
        if end < 0:
            return len(text)
        end += 1
        if text.count(b'"', 0, end) % 2 == 0:
            return end


def _table(text: bytes, names: list[str], broken: list[pc.InvalidRow], separator: str) -> pa.Table:
    def keep(row: pc.InvalidRow) -> str:
        broken.append(row)
        return "skip"

    return pc.read_csv(
        pa.BufferReader(text),
        read_options=pc.ReadOptions(block_size=_LONGEST_LINE_BYTES),
        # Without quotes each line is a row, and the blocks can be taken apart side by side.
        parse_options=pc.ParseOptions(
            newlines_in_values=b'"' in text, invalid_row_handler=keep, delimiter=separator
        ),
        convert_options=pc.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )


def _is_truncated(text: bytes, broken: list[pc.InvalidRow]) -> bool:
    """Return True if the last line is short and without an end, or if quotes run through it to the end."""
    last = text.rstrip(_ENDS)
    for row in broken:
        tail = row.text.encode()
        if row.actual_columns < row.expected_columns and last.endswith(tail.rstrip(_ENDS)):
            return last == text or b"\n" in tail
    return False


def _is_open(text: bytes, table: pa.Table) -> bool:
    """Return True if the last value begins with a quote and ends with the file."""
    if not table.num_rows:
        return False
    value = table.column(table.num_columns - 1)[table.num_rows - 1].as_py().encode().replace(b'"', b'""')
    return any(end.endswith(b'"' + value if value else b',"') for end in (text, text.rstrip(_ENDS)))


def columns(
    source: Source, *, csv: Csv = PLAIN, headers: Mapping[str, str] = NO_HEADERS
) -> dict[str, ColumnKind]:
    """Return the columns of a delivery, or of its first file if it has several, with the kind of their values.

    `csv` and `headers` are as for `parse`. Empty if the delivery cannot be read.
    """
    return {headers.get(name, name): kind for name, kind in _delivered_columns(source, csv).items()}


def _delivered_columns(source: Source, csv: Csv) -> dict[str, ColumnKind]:
    if isinstance(source, Rows):
        return kinds(pl.DataFrame(pl.from_arrow(source.table.slice(0, 0))).schema)
    file = source.files[0]
    try:
        if file.kind is Kind.PARQUET:
            return kinds(pl.read_parquet_schema(BytesIO(file.data)))
        text = unpacked(file.data, source.limit_bytes)
        if file.kind is Kind.CSV:
            return dict.fromkeys(read_csv(text, csv.separator).frame.columns, "any")
        return dict.fromkeys(json.loads(bytes(text).split(b"\n", 1)[0]), "any")
    except (pl.exceptions.PolarsError, UnreadableError, TooLargeError, ValueError, OSError):
        return {}


def kinds(schema: Mapping[str, pl.DataType]) -> dict[str, ColumnKind]:
    """Return the kind of the values of each column.

    >>> kinds({"a": pl.Float32(), "b": pl.String(), "c": pl.Null()})
    {'a': 'number', 'b': 'text', 'c': 'any'}
    """
    return {name: _kind(dtype) for name, dtype in schema.items()}


def _kind(dtype: pl.DataType) -> ColumnKind:
    if dtype.is_numeric():
        return "number"
    if dtype.is_temporal():
        return "time"
    if dtype == pl.Boolean:
        return "boolean"
    return "any" if dtype == pl.Null else "text"
