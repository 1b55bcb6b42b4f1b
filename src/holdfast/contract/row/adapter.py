"""Rows that were asked under one contract, as another contract reads them: conversion of units, and its row check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from holdfast.contract.row.compiler import compile_row
from holdfast.contract.schema.columns import Timestamp
from holdfast.contract.schema.contract import Contract
from holdfast.contract.schema.source_metadata import (
    ColumnFacts,
    InexactError,
    Misfit,
    convert_value,
    crossing,
)
from holdfast.contract.schema.timestamps import microseconds, read_moment


class Crossing:
    """From `told`, the contract of whoever answered a request, to `own`, the one that shall read it now.

    Columns that `own` does not know are left out, as it leaves out what callers send beyond it; numbers in another unit are
    converted.
    """

    def __init__(self, told: Contract, own: Contract) -> None:
        self._names = tuple(column.name for column in told.request_columns)
        self._check = compile_row(own, request=True)
        columns = {column.name: column for column in own.request_columns}
        self._ways = {
            column.name: (columns[column.name], crossing(columns[column.name], _facts(column)))
            for column in told.request_columns
            if column.name in columns
        }
        event = own.column(own.event_time)
        assert isinstance(event, Timestamp), "a contract's event time is a timestamp"
        self._event = event

    def admit(self, rows: Sequence[Sequence[Any]]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        """The rows by column, their event time in microseconds UTC; and why they are refused, each reason once: then the
        rows are as far as they were read.
        """
        found: list[dict[str, Any]] = []
        reasons: dict[str, None] = {}
        for values in rows:
            row, wrong = self._convert(values)
            if not wrong:
                wrong = self._check(row)
            if not wrong:
                moment = read_moment(
                    row[self._event.name], ZoneInfo(self._event.tz), local=self._event.naive == "local"
                )
                if isinstance(moment, str):
                    wrong = (f"{self._event.name}|{moment}",)
                else:
                    row[self._event.name] = microseconds(moment)
            reasons |= dict.fromkeys(wrong)
            found.append(row)
        return found, tuple(reasons)

    def _convert(self, values: Sequence[Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        row: dict[str, Any] = {}
        wrong: list[str] = []
        for name, value in zip(self._names, values, strict=False):
            if name not in self._ways:
                continue
            column, how = self._ways[name]
            if isinstance(how, Misfit):
                wrong.append(how.reason)
            elif how is None:
                row[name] = value
            else:
                try:
                    row[name] = convert_value(column, how, value)
                except InexactError:
                    wrong.append(f"{name}|not_exact")
        return row, tuple(wrong)


def _facts(column: Any) -> ColumnFacts:
    """What a caller who was told `column` says of its values without saying it."""
    return ColumnFacts(getattr(column, "unit", None), column.semantic)
