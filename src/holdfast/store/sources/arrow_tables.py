"""Tables of Arrow, from a Parquet file or a database, as the contract's batch check takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Final

import polars as pl
import pyarrow as pa

from holdfast.contract import Contract, Integer, Number
from holdfast.contract.batch.input_columns import list_names
from holdfast.contract.batch.text_input import TypedBatch, plain_headers
from holdfast.contract.batch.typed_input import as_delivered, from_frame
from holdfast.contract.schema.source_metadata import ColumnFacts
from holdfast.errors import InputError

_KIND: Final = b"postgresql"
_WORDS: Final = frozenset({"text", "varchar", "bpchar", "name", "enum", "uuid"})
_PLAIN: Final = _WORDS | {
    "bool",
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "timestamp",
    "timestamptz",
}


def facts_of(schema: pa.Schema) -> dict[str, ColumnFacts]:
    """Return the metadata "unit", "semantic" and "window" of each field that has one, decoded as UTF-8."""
    found = {}
    for field in schema:
        stated = {
            key: (field.metadata or {}).get(key.encode(), b"").decode("utf-8", "replace")
            for key in ("unit", "semantic", "window")
        }
        if any(stated.values()):
            found[field.name] = ColumnFacts(**{key: text or None for key, text in stated.items()})
    return found


def frame_of(table: pa.Table) -> pl.DataFrame:
    """Return the rows of a table. Polars ends in a panic at metadata that are no UTF-8, so they are left out."""
    fields = [field.remove_metadata() for field in table.schema]
    return pl.DataFrame(pl.from_arrow(pa.Table.from_arrays(table.columns, schema=pa.schema(fields))))


def plain(table: pa.Table) -> pa.Table:
    """Convert the result of a PostgreSQL query to plain types; `numeric` stays text, and is marked.

    Raises `InputError` HF202 for a type that no column of a contract can be, and for a duplicate name.
    """
    refuse_columns(
        table.schema,
        {field.name: _kind(field) for field in table.schema if _kind(field) not in _PLAIN},
        next_command="cast these columns in the query: to float8, text, boolean or timestamptz",
    )
    columns = [
        _plain(table.column(number).combine_chunks(), _kind(field))
        for number, field in enumerate(table.schema)
    ]
    fields = [
        pa.field(field.name, column.type, metadata={_KIND: _kind(field)})
        for field, column in zip(table.schema, columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def typed(contract: Contract, table: pa.Table) -> TypedBatch:
    """Return the rows of a `plain` table or of a Parquet file, in the units that the fields name, or their headers.

    A decimal becomes the double or integer that is written the same. Where there is none, its row has the fault
    `not_exact`.
    """
    renamed, facts = plain_headers(contract, table.column_names, facts_of(table.schema))
    if renamed:
        table = table.rename_columns([renamed.get(name, name) for name in table.column_names])
    delivered = frame_of(table)
    frame = delivered
    faults: dict[str, pl.Series] = {}
    for field in table.schema:
        is_decimal = _kind(field) == "numeric" or pa.types.is_decimal(field.type)
        if not is_decimal or field.name not in contract.names:
            continue
        column = contract.column(field.name)
        if isinstance(column, (Number, Integer)):
            texts = delivered[field.name].cast(pl.String)
            values, lost = _numbers(texts, whole=isinstance(column, Integer))
            frame = frame.with_columns(values.alias(field.name))
            faults |= {f"{field.name}|not_exact": lost} if lost.any() else {}
    read = from_frame(contract, frame, facts)
    faults = {
        reason: rows | read.faults[reason] if reason in read.faults else rows
        for reason, rows in faults.items()
    }
    return replace(read, original=as_delivered(delivered), faults={**read.faults, **faults})


def _numbers(texts: pl.Series, *, whole: bool) -> tuple[pl.Series, pl.Series]:
    different = texts.drop_nulls().unique()
    exact = {text: _whole(text) if whole else _double(text) for text in different}
    values = pl.Series(
        [None if text is None else exact[text] for text in texts], dtype=pl.Int64 if whole else pl.Float64
    )
    return values, values.is_null() & texts.is_not_null()


def _double(text: str) -> float | None:
    value = float(text)
    number = Decimal(text)
    if not number.is_finite():
        return value
    is_whole = number == number.to_integral_value()
    # A whole number is exact or it is none, as in JSON; of a fraction the double that is written the same is meant.
    return value if Decimal(value if is_whole else repr(value)) == number else None


def _whole(text: str) -> int | None:
    number = Decimal(text)
    if not number.is_finite() or number != number.to_integral_value() or abs(number) >= 1 << 63:
        return None
    return int(number)


def refuse_columns(schema: pa.Schema, unknown: Mapping[str, object], *, next_command: str) -> None:
    """Raise `InputError` HF202 for duplicate names, and for columns whose type, by name, is in `unknown`."""
    twice = sorted(name for name, count in Counter(schema.names).items() if count > 1)
    wrong = [f"{name} is there twice" for name in twice]
    wrong += [f"{name} is {kind}, which no column of a contract can be" for name, kind in unknown.items()]
    if wrong:
        raise InputError("HF202", list_names(wrong), state="no row was read", next_command=next_command)


def _plain(column: pa.Array, kind: str) -> pa.Array:
    if isinstance(column.type, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if pa.types.is_binary(column.type):
        column = column.cast(pa.string())
    # Of char(n) the blanks at the end mean nothing: PostgreSQL adds them.
    return pa.compute.utf8_rtrim(column, " ") if kind == "bpchar" else column


def _kind(field: pa.Field) -> str:
    kind: bytes = (field.metadata or {}).get(_KIND, b"")
    return kind.decode()
