"""Rows recorded under one contract, read under another: units are converted, then the row is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from holdfast.contract import Contract, Timestamp
from holdfast.contract.row.aliases import map_row
from holdfast.contract.row.compiler import compile_row
from holdfast.contract.schema.source_metadata import (
    ColumnFacts,
    ColumnMismatch,
    column_conversion,
)
from holdfast.contract.schema.timestamps import read_timestamp
from holdfast.contract.schema.units import InexactError, convert_value
from holdfast.records import microseconds


class RowAdapter:
    """Convert rows of `recorded`, the contract of the version that served a request, to the contract `target`.

    Columns unknown to `target` are dropped, as it drops unknown columns of requests. Numbers in another unit are
    converted. An alias of `recorded` becomes its word, and then an alias of `target`.
    """

    def __init__(self, recorded: Contract, target: Contract) -> None:
        self._names = tuple(column.name for column in recorded.request_columns)
        self._recorded, self._target = recorded, target
        self._check = compile_row(target, request=True)
        columns = {column.name: column for column in target.request_columns}
        self._conversions = {}
        for column in recorded.request_columns:
            if (wanted := columns.get(column.name)) is not None:
                implied = ColumnFacts.of(column)
                self._conversions[column.name] = wanted, column_conversion(wanted, implied)
        event = target.column(target.event_time)
        assert isinstance(event, Timestamp), "a contract's event time is a timestamp"
        self._event = event

    def admit(self, rows: Sequence[Sequence[Any]]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        """Return the rows by column, with the event time in microseconds UTC, and the reasons of rejection, each once.

        If there are reasons, the rows are incomplete.
        """
        found: list[dict[str, Any]] = []
        reasons: dict[str, None] = {}
        for values in rows:
            row, reasons_of_row = self._convert(values)
            reasons_of_row = reasons_of_row or self._check(row)
            if not reasons_of_row:
                timestamp = read_timestamp(
                    row[self._event.name], ZoneInfo(self._event.tz), local=self._event.naive == "local"
                )
                assert not isinstance(timestamp, str), "the check has read it"
                row[self._event.name] = microseconds(timestamp)
            reasons |= dict.fromkeys(reasons_of_row)
            found.append(row)
        return found, tuple(reasons)

    def _convert(self, values: Sequence[Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        row: dict[str, Any] = {}
        reasons_of_row: list[str] = []
        for name, value in zip(self._names, values, strict=False):
            if name not in self._conversions:
                continue
            column, conversion = self._conversions[name]
            if isinstance(conversion, ColumnMismatch):
                reasons_of_row.append(conversion.reason)
            elif conversion is None:
                row[name] = value
            else:
                try:
                    row[name] = convert_value(column, conversion, value)
                except InexactError:
                    reasons_of_row.append(f"{name}|not_exact")
        return map_row(self._target, map_row(self._recorded, row)), tuple(reasons_of_row)
