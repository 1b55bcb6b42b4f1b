"""Reads what a sender delivered: a Parquet or CSV file.

The file is taken into memory once, so that what was digested is what is loaded, even if somebody writes to
it meanwhile.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.contract import Contract, Typed, dtype, from_text
from holdfast.errors import InputError

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


def read(path: Path, contract: Contract) -> Typed:
    """The rows of the file at `path` as the contract's batch check takes them.

    Raises `InputError` HF201 when the file cannot be read and HF202 when its columns are not the contract's.
    """
    return parse(open_source(path), contract)


def parse(source: Source, contract: Contract) -> Typed:
    """The rows of `source`. CSV is text and read by the contract's rules; Parquet brings types, which are
    widened where no value can change (whole numbers to 64 bits, single to double precision, moments to
    microseconds in the contract's zone). Any other type is left as it is, for the contract to refuse.
    """
    if not source.is_parquet:
        return from_text(contract, _read_csv(source))
    frame = _widen(_read_parquet(source), contract)
    return Typed(frame, frame, {})


def _read_parquet(source: Source) -> pl.DataFrame:
    try:
        table = pq.read_table(pa.BufferReader(source.data), page_checksum_verification=True)
        return pl.DataFrame(pl.from_arrow(table))
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError, ValueError) as error:
        raise _refused(source.name, f"is not a readable Parquet file ({_first_line(error)})") from error


def _read_csv(source: Source) -> pl.DataFrame:
    """UTF-8, a header, commas; gzip and Zstandard are unpacked. Every value is still text."""
    try:
        return pl.read_csv(io.BytesIO(source.data), infer_schema=False, encoding="utf8")
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise _refused(source.name, f"is not a readable CSV file ({_first_line(error)})") from error


def _widen(frame: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    wanted = {column.name: dtype(column) for column in contract.columns}
    return frame.with_columns(
        [
            _widened(frame[name], wanted[name])
            for name, found in frame.schema.items()
            if name in wanted and found != wanted[name]
        ]
    )


def _widened(values: pl.Series, wanted: pl.DataType) -> pl.Series:
    """`values` as `wanted` when every value survives unchanged, else as they are."""
    found = values.dtype
    if found == pl.Null or (wanted == pl.String and found in (pl.Categorical, pl.Enum)):
        return values.cast(wanted)
    if isinstance(wanted, pl.Datetime):
        if not isinstance(found, pl.Datetime) or found.time_zone is None or wanted.time_zone is None:
            return values
        moments = values.dt.cast_time_unit("us")
        same = moments.dt.cast_time_unit(found.time_unit).equals(values)
        return moments.dt.convert_time_zone(wanted.time_zone) if same else values
    if not (wanted.is_numeric() and found.is_numeric()) or (wanted.is_integer() and not found.is_integer()):
        return values
    wide = values.cast(wanted, strict=False)
    return wide if wide.cast(found, strict=False).equals(values) else values


def _refused(name: str, reason: str) -> InputError:
    return InputError("HF201", f"the source {name} {reason}", state="nothing was loaded")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
