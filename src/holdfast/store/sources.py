"""Reads what a sender delivered: a Parquet or CSV file.

The file is taken into memory once, so that what was digested is what is loaded, even if somebody writes to
it meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.contract import MISSING_WORDS, Contract, Typed, from_frame, from_text
from holdfast.errors import InputError
from holdfast.store import delimited

_PARQUET_MAGIC: Final = b"PAR1"
_CSV_SUFFIXES: Final = frozenset({".csv", ".gz", ".txt", ".zst"})


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of one delivery. `name` is what the ledger keeps of where they came from."""

    name: str
    data: bytes

    @property
    def is_parquet(self) -> bool:
        """Whether the bytes begin as a Parquet file does, whatever the file is called."""
        return self.data.startswith(_PARQUET_MAGIC)


def open_source(path: Path) -> Source:
    """The content of the file at `path`; `InputError` HF201 when it is missing, unreadable, empty or of an
    unknown kind.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (
            "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        )
        raise _refused(path.name, reason) from error
    source = Source(path.name, data)
    if not data:
        raise _refused(path.name, "is empty")
    if not source.is_parquet and path.suffix.lower() not in _CSV_SUFFIXES:
        raise _refused(path.name, "is neither Parquet nor CSV: name CSV files *.csv or *.csv.gz")
    return source


def read(path: Path, contract: Contract, *, missing_words: tuple[str, ...] = MISSING_WORDS) -> Typed:
    """The rows of the file at `path` as the contract's batch check takes them.

    Raises `InputError` HF201 when the file cannot be read and HF202 when its columns are not the contract's.
    """
    return parse(open_source(path), contract, missing_words=missing_words)


def parse(source: Source, contract: Contract, *, missing_words: tuple[str, ...] = MISSING_WORDS) -> Typed:
    """The rows of `source`. CSV is text and read by the contract's rules, `missing_words` being what means a missing
    value; Parquet brings types, which are widened as `from_frame` says.
    """
    if source.is_parquet:
        return from_frame(contract, _read_parquet(source))
    try:
        found = delimited.read(source.data)
    except delimited.UnreadableError as error:
        raise _refused(source.name, str(error)) from error
    return replace(from_text(contract, found.frame, missing_words=missing_words), lines=found.lines)


def _read_parquet(source: Source) -> pl.DataFrame:
    try:
        file = pq.ParquetFile(pa.BufferReader(source.data), page_checksum_verification=True)
        _check_types(file.schema_arrow)
        return pl.DataFrame(pl.from_arrow(file.read()))
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError, ValueError) as error:
        raise _refused(source.name, f"is not a readable Parquet file ({_first_line(error)})") from error


def _check_types(schema: pa.Schema) -> None:
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


def _refused(name: str, reason: str) -> InputError:
    return InputError("HF201", f"the source {name} {reason}", state="nothing was loaded")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
