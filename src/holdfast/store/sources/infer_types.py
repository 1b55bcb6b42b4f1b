"""Infer the types of a delivery without a contract, to suggest a contract from it."""

from __future__ import annotations

import re
from typing import Final

import polars as pl

from holdfast.contract.batch.csv_format import Csv
from holdfast.contract.batch.text_input import PLAIN
from holdfast.contract.batch.typed_input import as_delivered
from holdfast.contract.profile.infer_form import type_texts
from holdfast.contract.schema.source_metadata import ColumnFacts
from holdfast.errors import InputError
from holdfast.store.sources import arrow_tables, json_lines
from holdfast.store.sources.csv_reader import read_csv
from holdfast.store.sources.delivery import Bundle, File, Kind, Rows, Source, reading, unpacked
from holdfast.store.sources.memory import Memory
from holdfast.store.sources.parquet_reader import read_parquet

_HEADER: Final = re.compile(r"([a-z0-9_-]+)\s*\[([^\[\]]+)\]")


def look(
    source: Source, *, missing_words: tuple[str, ...] = ("",), csv: Csv = PLAIN
) -> tuple[pl.DataFrame, dict[str, ColumnFacts]]:
    """Return the rows of `source` in the types that their values have, and the metadata of its columns.

    Text is read as numbers, timestamps and booleans, by the rules of a load; a unit in a header, as in
    `distance [km]`, is a fact. Raises `InputError` HF201 when a file cannot be read, and HF202 when its files differ.
    """
    if isinstance(source, Rows):
        return as_delivered(arrow_tables.frame_of(source.table)), arrow_tables.facts_of(source.table.schema)
    memory = source.memory()
    parts = [_file(source, file, missing_words, csv, memory) for file in source.files]
    try:
        frame = pl.concat([part for part, _ in parts], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise InputError(
            "HF202", f"the files of {source.name} differ: {error}", state="nothing was read"
        ) from error
    return frame, parts[0][1]


def _file(
    source: Bundle, file: File, missing_words: tuple[str, ...], csv: Csv, memory: Memory
) -> tuple[pl.DataFrame, dict[str, ColumnFacts]]:
    with reading(source, file):
        if file.kind is Kind.PARQUET:
            table, _ = read_parquet(file.data, source.limit_bytes, memory)
            return as_delivered(arrow_tables.frame_of(table)), arrow_tables.facts_of(table.schema)
        text = unpacked(file.data, source.limit_bytes, memory)
        if file.kind is Kind.JSON_LINES:
            return json_rows(text, memory), {}
        frame = type_texts(read_csv(text, csv.separator, memory).frame, csv, missing_words)
        units = {header: found for header in frame.columns if (found := _HEADER.fullmatch(header))}
        facts = {found[1]: ColumnFacts(unit=found[2].strip()) for found in units.values()}
        return frame.rename({header: found[1] for header, found in units.items()}), facts


def json_rows(text: bytes, memory: Memory) -> pl.DataFrame:
    """Return the rows of JSON lines in the types that their values have."""
    rows = [row for found in json_lines.read(text, memory) for row in found.rows]
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)
