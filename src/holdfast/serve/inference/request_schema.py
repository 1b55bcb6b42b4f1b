"""The schema of a model's requests: a version's contract, compiled for the wire and for the row, and the units of requests."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Final
from zoneinfo import ZoneInfo

from holdfast.contract import Column, ColumnFacts, Contract, Integer, Timestamp
from holdfast.contract.row.aliases import map_columns, map_row
from holdfast.contract.row.compiler import compile_row, compile_rules
from holdfast.contract.row.explain import explain
from holdfast.contract.schema.columns import EXACT
from holdfast.contract.schema.source_metadata import ColumnMismatch, column_conversion
from holdfast.contract.schema.timestamps import DATE, read_timestamp
from holdfast.contract.schema.units import InexactError, convert_value, is_loaded, load_definitions
from holdfast.errors import UnavailableError
from holdfast.records import microseconds
from holdfast.serve.inference.fast_check import compile_fast_check
from holdfast.serve.protocol.metadata import input_spec
from holdfast.serve.protocol.oip import InferRequest, RequestError

MAX_NAMED_ROWS: Final = 20
"""How many bad rows an error names; the counters count them all."""

FAST_CHECK_ROWS: Final = 4
"""From so many rows on the fast checks of the columns run first."""

Row = dict[str, Any]

_IS_DATE: Final = re.compile(DATE).fullmatch
_DATE: Final = len("2026-12-01")

_LOADING: Final = threading.Lock()


@dataclass(slots=True)
class BrokenRows:
    """The rows of one request that break the contract, gathered over the pieces in which it is checked."""

    count: int = 0
    named: list[str] = field(default_factory=list)
    """Row, reason and explanation, of the first rows."""
    rules: dict[str, None] = field(default_factory=dict)
    rows_named: int = 0

    def error(self) -> RequestError:
        """Return the refusal of the request."""
        what = f"{self.count} of the rows break the model's contract"
        return RequestError("HF502", what, self.named, uncounted=(), rules=tuple(self.rules))


class RequestSchema:
    """A compiled contract. Cheap to call, and free of state."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.wire = tuple(input_spec(column) for column in contract.request_columns)
        self.specs = {spec.name: spec.datatypes for spec in self.wire}
        self.facts = {spec.name: spec.facts for spec in self.wire}
        self.aliases = contract.aliases
        self._by_name = {column.name: column for column in contract.request_columns}
        self._columns = tuple(self._by_name)
        self._check = compile_row(contract, request=True)
        self._rules = compile_rules(contract, request=True)
        found = contract.column(contract.event_time)
        if not isinstance(found, Timestamp):
            raise TypeError(f"{contract.event_time} is not a timestamp")  # the contract itself forbids it
        self._event = (found.name, ZoneInfo(found.tz), found.naive == "local")
        self._fast_checks = {
            column.name: quick
            for column in contract.request_columns
            if (quick := compile_fast_check(column, in_key=column.name in contract.key)) is not None
        }
        self._integers = tuple(
            column.name for column in contract.request_columns if isinstance(column, Integer)
        )
        self._dated = tuple(
            column.name
            for column in contract.request_columns
            if isinstance(column, Timestamp) and column.naive == "local"
        )
        self._timestamps = tuple(
            (column.name, ZoneInfo(column.tz), column.naive == "local", _declared_bounds(column))
            for column in contract.request_columns
            if isinstance(column, Timestamp)
        )

    def accept(
        self,
        request: InferRequest,
        violations: Counter[str],
        *,
        first_row: int = 0,
        broken: BrokenRows | None = None,
    ) -> tuple[list[Row], list[int]]:
        """Check the request; return one mapping per row, and the event time of each in microseconds UTC.

        The rows hold the word of each alias, and their event time as that number, which features read faster.

        Parameters
        ----------
        request
            A request, or a piece of one.
        violations
            Counts by reason.
        first_row
            The number of the piece's first row.
        broken
            Where rows that break the contract are gathered; the result is then empty.

        Raises
        ------
        RequestError
            HF502 with rows and reasons when a row breaks the contract and nothing gathers them.
        UnavailableError
            HF503 while the definitions of units are read.
        """
        columns = self._read_words(self._plain(request))
        rows = _as_rows(columns, request.rows)
        known: dict[str, int] = {}
        check: Callable[[Row], tuple[str, ...]] | None = self._check
        if request.rows >= FAST_CHECK_ROWS and self._is_surely_valid(columns, known):
            check = self._rules
        if check is not None:
            found = [(number, reasons) for number, row in enumerate(rows) if (reasons := check(row))]
            if found:
                self._gather(rows, found, violations, first_row, broken)
                return [], []
        name, zone, local = self._event
        event_times = [
            known.get(row[name]) or self._read_event_time(row[name], name, zone, local) for row in rows
        ]
        for row, event_time in zip(rows, event_times, strict=True):
            row[name] = event_time
        return rows, event_times

    def check_columns(
        self, request: InferRequest, names: Set[str], violations: Counter[str], *, first_row: int = 0
    ) -> None:
        """Check the columns `names` alone, and the rules that read one of them; ignore what else breaks the contract.

        Parameters
        ----------
        request
            A request with at least one row, without columns that the contract does not have.
        names
            Columns of the contract.
        violations
            Counts the reasons.
        first_row
            The number of the first row, if this is a piece of a request.

        Raises
        ------
        RequestError
            HF502 with rows and reasons when a value breaks the contract.
        UnavailableError
            HF503 while the definitions of units are read.
        """
        rules = {rule.reason for rule in self.contract.rules if not names.isdisjoint(rule.columns)}
        try:
            columns = self._plain(request)
        except RequestError as error:
            if any(reason.partition("|")[0] in names for reason in error.reasons):
                raise
            return
        rows = _as_rows(self._read_words(columns), request.rows)
        broken = [
            (number, found)
            for number, row in enumerate(rows)
            if (
                found := tuple(
                    reason
                    for reason in self._check(row)
                    if reason in rules or reason.partition("|")[0] in names
                )
            )
        ]
        if broken:
            self._gather(rows, broken, violations, first_row, None)

    def read_key(self, key: Mapping[str, Any]) -> dict[str, Any]:
        """Return the key of a row with each timestamp as text in UTC and each alias as its word, so that equal keys are equal.

        `key` has the key columns and no other. Raises `RequestError` HF511 with the value and what its column allows.
        """
        key = {
            name: values[0]
            for name, values in self._with_plain_values(
                {name: [value] for name, value in key.items()}
            ).items()
        }
        for reason in self._check(key):
            name, _, rule = reason.partition("|")
            if name in key:
                column = self._by_name[name]
                explanation = explain(column, rule, key[name]) or reason
                raise RequestError(
                    "HF511", f"the key has no valid {name}: {explanation}", [reason], uncounted=()
                )
        times = {name: (zone, local) for name, zone, local, _ in self._timestamps}
        return {
            name: _utc_text(value, *times[name]) if name in times else value
            for name, value in map_row(self.contract, key).items()
        }

    def _is_surely_valid(self, columns: dict[str, list[Any]], known: dict[str, int]) -> bool:
        """Return True if every column is valid beyond doubt; `known` then has every event time by its text."""
        if len(columns) != len(self._columns):
            return False  # something is missing, which may be allowed
        if not all(quick(columns[name]) for name, quick in self._fast_checks.items()):
            return False
        for name, zone, local, bounds in self._timestamps:
            values = columns[name]
            if set(map(type, values)) != {str}:
                return False
            event = name == self._event[0]
            for value in set(values):
                event_time = read_timestamp(value, zone, local=local)
                if isinstance(event_time, str):
                    return False
                if not event and bounds is None:
                    continue
                at_us = microseconds(event_time)
                if bounds is not None and not bounds[0] <= at_us <= bounds[1]:
                    return False
                if event:
                    known[value] = at_us
        return True

    @staticmethod
    def _read_event_time(text: object, name: str, zone: ZoneInfo, local: bool) -> int:
        event_time = read_timestamp(text, zone, local=local)
        if isinstance(event_time, str):
            raise RequestError(
                "HF502", f"the event time cannot be read: {event_time}", [f"{name}|{event_time}"]
            )
        return microseconds(event_time)

    def received_rows(self, request: InferRequest) -> list[tuple[Any, ...]]:
        """Return the rows as received, aliases included, in the order and the units of the contract, for the log."""
        columns = self._plain(request)
        if request.rows == 1:
            return [tuple([columns[name][0] if name in columns else None for name in self._columns])]
        absent = [None] * request.rows
        return list(zip(*[columns.get(name, absent) for name in self._columns], strict=True))

    def differing_facts(self, other: RequestSchema) -> dict[str, ColumnFacts]:
        """Return the facts of `other` about columns that both have and describe differently."""
        return {name: facts for name, facts in other.facts.items() if self.facts.get(name, facts) != facts}

    def differing_aliases(self, other: RequestSchema) -> dict[str, Mapping[str, str]]:
        """Return, of the aliases of `other` in columns that both have, those that are not aliases of the same word here."""
        found = {
            name: {
                alias: word for alias, word in words.items() if self.aliases.get(name, {}).get(alias) != word
            }
            for name, words in other.aliases.items()
            if name in self.specs
        }
        return {name: words for name, words in found.items() if words}

    def _read_words(self, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return map_columns(columns, self.aliases) if self.aliases else columns

    def _plain(self, request: InferRequest) -> dict[str, list[Any]]:
        """Return the columns with whole numbers as integers, dates as midnights, and numbers in the contract's units."""
        columns = self._with_plain_values(request.columns)
        return columns if request.facts is None else convert_units(self._by_name, columns, request.facts)

    def _with_plain_values(self, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        changed: dict[str, list[Any]] = {}
        for name in self._integers:
            values = columns.get(name)
            if values is not None and float in map(type, values):
                changed[name] = [as_whole(value) for value in values]
        for name in self._dated:
            values = columns.get(name)
            if values is not None and any(type(value) is str and len(value) == _DATE for value in values):
                changed[name] = [as_midnight(value) for value in values]
        return {**columns, **changed} if changed else columns

    def _explain(self, reason: str, row: Row) -> str:
        name, _, rule = reason.partition("|")
        column = self._by_name.get(name)
        explanation = explain(column, rule, row[name]) if column is not None and name in row else ""
        return f" ({explanation})" if explanation else ""

    def _gather(
        self,
        rows: list[Row],
        found: list[tuple[int, tuple[str, ...]]],
        violations: Counter[str],
        first_row: int,
        broken: BrokenRows | None,
    ) -> None:
        """Count rows that break the contract and name the first ones; raise the refusal if nothing gathers them."""
        gathered = BrokenRows() if broken is None else broken
        for _, reasons in found:
            violations.update(reasons)
        for number, reasons in found[: MAX_NAMED_ROWS - gathered.rows_named]:
            gathered.rows_named += 1
            gathered.rules |= dict.fromkeys(reasons)
            gathered.named += [
                f"row {first_row + number}: {reason}{self._explain(reason, rows[number])}"
                for reason in reasons
            ]
        gathered.count += len(found)
        if broken is None:
            raise gathered.error()


def as_whole(value: object) -> object:
    """Return a whole number in double precision as an integer, which is the same number; any other value as it is.

    >>> as_whole(19.0), as_whole(19.5), as_whole(1e300), as_whole(None)
    (19, 19.5, 1e+300, None)
    """
    if type(value) is float and value.is_integer() and abs(value) < EXACT:
        return int(value)
    return value


def as_midnight(value: object) -> object:
    """Return a date alone as the midnight at which it begins; any other value as it is.

    >>> as_midnight("2026-12-01"), as_midnight("2026-12-01T10:00:00"), as_midnight("1.12.2026")
    ('2026-12-01T00:00:00', '2026-12-01T10:00:00', '1.12.2026')
    """
    if type(value) is str and _IS_DATE(value):
        return f"{value}T00:00:00"
    return value


def _utc_text(value: object, zone: ZoneInfo, local: bool) -> str:
    found = read_timestamp(value, zone, local=local)
    assert not isinstance(found, str), "the check has read it"
    return found.astimezone(UTC).isoformat()


def _declared_bounds(column: Timestamp) -> tuple[int, int] | None:
    return None if column.low is None and column.high is None else column.bounds_us


def _as_rows(columns: dict[str, list[Any]], rows: int) -> list[Row]:
    if rows == 1:  # most requests, and half the work
        return [{name: values[0] for name, values in columns.items()}]
    names = tuple(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def convert_units(
    columns: Mapping[str, Column], values: dict[str, list[Any]], facts: Mapping[str, ColumnFacts]
) -> dict[str, list[Any]]:
    """Return `values` in the units of `columns`, as a new mapping: another contract may have other units.

    Raises
    ------
    RequestError
        HF502 when a column cannot be converted, or is something else by its semantic or window.
    UnavailableError
        HF503 while the definitions of units are read, which takes a second once per process, in a thread.
    """
    # Facts of another contract may name a column that the request leaves out.
    known = [name for name in facts if name in columns and name in values]
    if not is_loaded() and any(_has_other_unit(columns[name], facts[name]) for name in known):
        _load_in_thread()
    found = dict(values)
    for name in known:
        column = columns[name]
        how = column_conversion(column, facts[name])
        if isinstance(how, ColumnMismatch):
            raise RequestError("HF502", how.what, [how.reason])
        if how is not None:
            try:
                found[name] = [convert_value(column, how, value) for value in values[name]]
            except InexactError as error:
                what = f"input {name!r} has a number that is not an integer in the contract's unit"
                raise RequestError("HF502", what, [f"{name}|not_exact"]) from error
    return found


def _has_other_unit(column: Column, facts: ColumnFacts) -> bool:
    return facts.unit is not None and facts.unit != getattr(column, "unit", facts.unit)


def _load_in_thread() -> None:
    if _LOADING.acquire(blocking=False):
        threading.Thread(target=_load, name="units", daemon=True).start()
    raise UnavailableError(
        "HF503", "the definitions of units are being read; send the request again in a second"
    )


def _load() -> None:
    try:
        load_definitions()
    finally:
        _LOADING.release()
