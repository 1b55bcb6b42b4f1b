"""What a model's requests must look like: the champion's contract, compiled for the wire and for the row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from holdfast.contract import Contract, Timestamp, compile_row, instant_us
from holdfast.serve.oip import InferRequest, RequestError, input_spec

NAMED_ROWS: Final = 20
"""How many bad rows an answer names; the counters count them all."""

Row = dict[str, Any]


class Endpoint:
    """The compiled contract. Cheap to call, and free of state."""

    __slots__ = ("_check", "_columns", "_event_column", "contract", "specs", "wire")

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.wire = tuple(input_spec(column) for column in contract.request_columns)
        self.specs = {spec.name: spec.datatypes for spec in self.wire}
        self._columns = tuple(spec.name for spec in self.wire)
        self._check = compile_row(contract, request=True)
        found = contract.column(contract.event_time)
        if not isinstance(found, Timestamp):
            raise TypeError(f"{contract.event_time} is not a timestamp")  # the contract itself forbids it
        self._event_column = found

    def rows(self, request: InferRequest, violations: Counter[str]) -> list[Row]:
        """The request as one mapping a row, each of them checked.

        Raises `RequestError` HF502 with rows and reasons when one breaks the contract; `violations` counts by reason.
        """
        columns = request.columns
        names = tuple(columns)
        rows = [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        check = self._check
        broken = [(number, reasons) for number, row in enumerate(rows) if (reasons := check(row))]
        if broken:
            raise self._violation(broken, violations)
        return rows

    def moments(self, rows: Sequence[Row]) -> list[int]:
        """The event time of each checked row, microseconds UTC; the rows keep it as that number, which features read faster."""
        column = self._event_column
        name = column.name
        moments = [instant_us(row[name], column) for row in rows]
        for row, moment in zip(rows, moments, strict=True):
            row[name] = moment
        return moments

    def received(self, request: InferRequest) -> list[tuple[Any, ...]]:
        """The rows as they came, in the order of the contract: what is logged."""
        columns = request.columns
        absent = [None] * request.rows
        return list(zip(*[columns.get(name, absent) for name in self._columns], strict=True))

    @staticmethod
    def _violation(broken: list[tuple[int, tuple[str, ...]]], violations: Counter[str]) -> RequestError:
        for _, reasons in broken:
            violations.update(reasons)
        named = [f"row {number}: {reason}" for number, reasons in broken[:NAMED_ROWS] for reason in reasons]
        return RequestError("HF502", f"{len(broken)} of the rows break the model's contract", named)
