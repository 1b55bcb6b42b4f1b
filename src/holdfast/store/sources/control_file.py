"""The columns of a delivery, and the number of rows that its sender declares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Final

import polars as pl

from holdfast.errors import InputError
from holdfast.feeds.schema_drift import Kind
from holdfast.store.sources import Bounded, Rows, Source, Spec, csv_reader
from holdfast.store.sources import Kind as FileKind
from holdfast.store.sources.decompress import TooLargeError, unpacked

COUNT_SUFFIX: Final = ".count"
"""A file `day.csv.count` next to `day.csv` declares its number of rows: a number, or JSON with "rows"."""


def columns(source: Source) -> dict[str, Kind]:
    """Return the columns of a delivery, or of its first file if it has several, with the kind of their values.

    Empty if the delivery cannot be read.
    """
    if isinstance(source, Rows):
        return kinds(pl.DataFrame(pl.from_arrow(source.table.slice(0, 0))).schema)
    file = source.files[0]
    try:
        if file.kind is FileKind.PARQUET:
            return kinds(pl.read_parquet_schema(BytesIO(file.data)))
        text = unpacked(file.data, source.limit_bytes)
        if file.kind is FileKind.CSV:
            return dict.fromkeys(csv_reader.read(text).frame.columns, "any")
        return dict.fromkeys(json.loads(bytes(text).split(b"\n", 1)[0]), "any")
    except (pl.exceptions.PolarsError, csv_reader.UnreadableError, TooLargeError, ValueError, OSError):
        return {}


def kinds(schema: Mapping[str, pl.DataType]) -> dict[str, Kind]:
    """Return the kind of the values of each column.

    >>> kinds({"a": pl.Float32(), "b": pl.String(), "c": pl.Null()})
    {'a': 'number', 'b': 'text', 'c': 'any'}
    """
    return {name: _kind(dtype) for name, dtype in schema.items()}


def _kind(dtype: pl.DataType) -> Kind:
    if dtype.is_numeric():
        return "number"
    if dtype.is_temporal():
        return "time"
    if dtype == pl.Boolean:
        return "boolean"
    return "any" if dtype == pl.Null else "text"


def rows_declared(spec: Spec) -> int | None:
    """Return the number of rows that the control file of `spec` declares.

    None if `spec` is no file, or has no control file next to it.

    Raises `InputError` HF201 when the control file cannot be read: what the sender meant must not be guessed.
    """
    place = spec.spec if isinstance(spec, Bounded) else spec
    if not isinstance(place, (str, Path)) or "://" in str(place):
        return None
    path = Path(place)
    control = path.with_name(path.name + COUNT_SUFFIX)
    try:
        text = control.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(control) from error
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _unreadable(control) from error
    rows = found.get("rows") if isinstance(found, dict) else found
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        raise _unreadable(control)
    return rows


def _unreadable(control: Path) -> InputError:
    return InputError(
        "HF201",
        f'the control file {control.name} holds neither a number of rows nor JSON such as {{"rows": 900}}',
        state="nothing was loaded",
    )
