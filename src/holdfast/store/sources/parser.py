"""Parse the rows of a delivery into what the batch check of a contract takes."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Mapping, Sequence
from csv import Error as CsvError
from csv import reader as csv_rows
from dataclasses import replace
from functools import partial
from typing import Final

import polars as pl
import pyarrow as pa

from holdfast.contract import Contract
from holdfast.contract.batch.csv_format import SEPARATORS, Csv
from holdfast.contract.batch.input_columns import MOST_UNKNOWN, renamed_columns, require_columns
from holdfast.contract.batch.json_input import check_names, names_of, read_objects
from holdfast.contract.batch.text_input import MISSING_WORDS, PLAIN, TypedBatch, from_text, plain_headers
from holdfast.errors import InputError
from holdfast.feeds.schema_drift import Kind as ColumnKind
from holdfast.store.sources import arrow_tables, json_lines
from holdfast.store.sources.csv_reader import read_csv
from holdfast.store.sources.delivery import (
    READ_ERRORS,
    Bundle,
    Kind,
    Rows,
    Source,
    UnreadableError,
    reading,
    unpacked,
    unpacked_head,
)
from holdfast.store.sources.memory import Memory, TooLargeError
from holdfast.store.sources.parquet_reader import parquet_schema, read_parquet

NO_HEADERS: Final[Mapping[str, str]] = {}
_HEADER_BYTES: Final = 1 << 20
_MOST_TYPED: Final = 10_000
"""The types of the columns of a wider file are not looked at when it is refused."""


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
            memory = source.memory()
            parts: list[TypedBatch] = []
            for file in files:
                with reading(source, file):
                    if file.kind is Kind.PARQUET:
                        table, size = read_parquet(
                            file.data, left, memory, partial(_refuse_foreign, contract, headers)
                        )
                        parts.append(arrow_tables.typed(contract, _renamed(table, contract, headers)))
                    else:
                        text = unpacked(file.data, left, memory)
                        size = len(text)
                        parts += (
                            _from_json(text, contract, headers, memory)
                            if file.kind is Kind.JSON_LINES
                            else [_from_csv(text, contract, missing_words, csv, headers, memory)]
                        )
                        if text is not file.data:
                            memory.release(size)
                left -= size
            return parts[0] if len(parts) == 1 else _joined(parts)


def _from_json(
    text: bytes, contract: Contract, headers: Mapping[str, str], memory: Memory
) -> list[TypedBatch]:
    """Return the rows of a file, some at a time, so that few are there as Python's objects at once."""
    parts = [read_objects(contract, [])]
    names = set[str]()
    rows_read = 0
    for found in json_lines.read(text, memory):
        rows = found.rows
        if headers:
            rows = [
                {new.get(name, name): value for name, value in row.items()}
                for row in rows
                for new in [renamed_columns(contract, row, headers)]
            ]
        names |= names_of(rows)
        rows_read += len(rows)
        if len(names) > len(contract.names) + MOST_UNKNOWN:
            break  # enough to refuse the file: the rest is not read
        memory.hold_objects(len(rows), len(contract.names))
        part = replace(read_objects(contract, rows), lines=found.broken)
        memory.hold_text(_text_bytes(part.original))
        parts.append(part)
    if rows_read:
        check_names(contract, names)
    return parts[1:] or parts


def _text_bytes(frame: pl.DataFrame) -> int:
    return int(frame.select(pl.sum_horizontal(pl.all().str.len_bytes().sum())).item() or 0)


def _from_csv(
    text: bytes,
    contract: Contract,
    missing_words: tuple[str, ...],
    csv: Csv,
    headers: Mapping[str, str],
    memory: Memory,
) -> TypedBatch:
    cells = read_csv(text, csv.separator, memory)
    frame = cells.frame.rename(renamed_columns(contract, cells.frame.columns, headers))
    return replace(from_text(contract, frame, missing_words=missing_words, csv=csv), lines=cells.lines)


def _refuse_foreign(contract: Contract, headers: Mapping[str, str], names: Sequence[str]) -> None:
    """Raise `InputError` HF202 if a file has so many columns of no contract that it is not worth reading."""
    if len(names) > len(contract.names) + MOST_UNKNOWN:
        new = renamed_columns(contract, names, headers)
        named = [new.get(name, name) for name in names]
        plain = plain_headers(contract, named, {})[0]
        found = [plain.get(name, name) for name in named]
        if len(set(found) - set(contract.names)) > MOST_UNKNOWN:
            require_columns(contract.delivered_names(found), found, {}, state="no row was read")


def _renamed(table: pa.Table, contract: Contract, headers: Mapping[str, str]) -> pa.Table:
    new = renamed_columns(contract, table.column_names, headers)
    return table.rename_columns([new.get(name, name) for name in table.column_names]) if new else table


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


def columns(
    source: Source, contract: Contract, *, csv: Csv = PLAIN, headers: Mapping[str, str] = NO_HEADERS
) -> dict[str, ColumnKind]:
    """Return the columns of a delivery, or of its first file if it has several, with the kind of their values.

    The parameters are those of `parse`; a column has its name in the contract, without the unit of its header. Empty if the
    delivery cannot be read.
    """
    found = _delivered_columns(source, csv)
    names = _names_in(contract, tuple(found), headers)
    return {names[name]: kind for name, kind in found.items()}


def _names_in(contract: Contract, names: Sequence[str], headers: Mapping[str, str]) -> dict[str, str]:
    """Return the contract's name of each delivered column; a column that the contract lacks keeps its name."""
    try:
        new = renamed_columns(contract, names, headers)
        plain = plain_headers(contract, [new.get(name, name) for name in names], {})[0]
    except InputError:  # one column is there twice
        new, plain = dict(headers), {}
    return {name: plain.get(new.get(name, name), new.get(name, name)) for name in names}


def is_text(source: Source) -> bool:
    """Return True if the delivery is CSV: text in the form that its feed declares."""
    return not isinstance(source, Rows) and source.files[0].kind is Kind.CSV


def known_columns(
    source: Source, contract: Contract, headers: Mapping[str, str] = NO_HEADERS
) -> dict[str, int]:
    """Return how many columns of the contract the header of the first file has, by the separator at which it is split.

    Empty for a delivery that is no CSV. `headers` is as for `parse`.
    """
    if isinstance(source, Rows) or not is_text(source):
        return {}
    try:
        text = unpacked_head(source.files[0].data, _HEADER_BYTES)
    except READ_ERRORS:
        return {}
    line = text.removeprefix(codecs.BOM_UTF8).decode(errors="replace").lstrip("\r\n")
    counts: dict[str, int] = {}
    for separator in SEPARATORS:
        try:
            names = next(csv_rows(io.StringIO(line, newline=""), delimiter=separator), [])
        except CsvError:  # a field that is too long
            continue
        if len(names) <= _MOST_TYPED:
            counts[separator] = len(set(_names_in(contract, names, headers).values()) & set(contract.names))
    return counts


def _delivered_columns(source: Source, csv: Csv) -> dict[str, ColumnKind]:
    if isinstance(source, Rows):
        return kinds(arrow_tables.frame_of(source.table.slice(0, 0)).schema)
    file = source.files[0]
    memory = source.memory()
    try:
        if file.kind is Kind.PARQUET:
            schema = parquet_schema(file.data, memory)
            # Of a file that is refused for its many columns no type is looked at.
            if len(schema.names) > _MOST_TYPED:
                return dict.fromkeys(schema.names, "any")
            return kinds(arrow_tables.frame_of(schema.empty_table()).schema)
        text = unpacked(file.data, source.limit_bytes, memory)
        if file.kind is Kind.CSV:
            return dict.fromkeys(read_csv(text, csv.separator, memory).frame.columns, "any")
        return dict.fromkeys(json.loads(bytes(text).split(b"\n", 1)[0]), "any")
    except (*READ_ERRORS, UnreadableError, TooLargeError, MemoryError):
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
