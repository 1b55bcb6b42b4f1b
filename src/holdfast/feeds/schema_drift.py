"""Compare the columns of a delivery with its contract: missing, new, renamed or of another type (R41)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, assert_never

from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.batch.csv_format import SEPARATORS
from holdfast.contract.batch.input_columns import MOST_UNKNOWN, list_names
from holdfast.records import Level, Violation

Kind: TypeAlias = Literal["number", "text", "time", "boolean", "any"]
"""Kind of the values of a delivered column; "any" if they are text that is not parsed yet, or all missing."""

RENAMED: Final = "it is probably "
"""Stands in the explanation of a column that was given another name."""

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_LIKE: Final = 0.5
"""Names this similar (ratio of Ratcliff and Obershelp) are taken for one name that was changed."""

_LIKE_IN_PLACE: Final = 0.3
"""Names this similar are taken for one name that was changed if they stand at the same place of a text."""


def changed_columns(
    contract: Contract, delivered: Mapping[str, Kind], headers: Mapping[str, str] = _NO_HEADERS
) -> tuple[Violation, ...]:
    """Return what is wrong with the columns of a delivery: violations of "schema" at level "critical".

    A new column is the likely new name of a missing one if its values are of the same type, and its name is like that of
    the missing one. At the place of the missing one less likeness is needed, and none if the type of its values is known.
    `headers` has the contract's names of columns that are delivered under others. More than `MOST_UNKNOWN` new columns are
    one violation, and are compared with nothing.

    >>> trips = Contract(Text("id"), Number("distance", unit="mi"), Timestamp("at", tz="UTC"), key="id", event_time="at")
    >>> found, = changed_columns(trips, {"id": "text", "dist": "number", "at": "time"})
    >>> found.subject, found.explanation
    ('distance', "column 'distance' is missing; it is probably 'dist' now, which is new")
    """
    names = tuple(delivered)
    required, declared = set(contract.delivered_names(names)), set(contract.names)
    missing = [
        column for column in contract.columns if column.name in required and column.name not in delivered
    ]
    new = [name for name in names if name not in declared]
    if len(new) > MOST_UNKNOWN:
        text = f"{len(new):,} columns are not in the contract: {list_names(new)}"
        return (Violation("schema", "", Level.CRITICAL, text, len(new), 0),)
    renamed = likely_renames(contract, delivered, headers)
    shown = shown_columns(headers)
    words = {
        column.name: f"column {column.name!r}{shown(column.name)} is missing"
        + (
            f"; {RENAMED}{renamed[column.name]!r} now, which is new"
            if column.name in renamed
            else f"; the delivery has {list_names(names)}"
        )
        for column in missing
    }
    words |= {name: f"column {name!r} is not in the contract" for name in new if name not in renamed.values()}
    words |= {
        column.name: f"column {column.name!r} comes as {delivered[column.name]}; the contract declares {_kind(column)}"
        for column in contract.columns
        if column.name in delivered and not _fits(column, delivered[column.name])
    }
    return tuple(Violation("schema", name, Level.CRITICAL, text) for name, text in words.items())


def shown_columns(headers: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that names the header of a column, to follow its name; empty if it has none of its own.

    >>> shown_columns({"Speed (mph)": "speed"})("speed")
    " (header 'Speed (mph)')"
    """
    header_of: dict[str, list[str]] = {}
    for header, column in headers.items():
        header_of.setdefault(column, []).append(header)

    def shown(column: str) -> str:
        known = header_of.get(column, [])
        return f" (header {' or '.join(map(repr, known))})" if known and known != [column] else ""

    return shown


def likely_renames(
    contract: Contract, delivered: Mapping[str, Kind], headers: Mapping[str, str] = _NO_HEADERS
) -> dict[str, str]:
    """Return the likely new name of each missing column; a new column is given to one of them only."""
    required = set(contract.delivered_names(tuple(delivered)))
    missing = [each for each in contract.columns if each.name in required and each.name not in delivered]
    new = [name for name in delivered if name not in contract.names]
    if len(new) > MOST_UNKNOWN:
        return {}
    names_of = {column.name: [column.name] for column in missing}
    for header, column_name in headers.items():
        if column_name in names_of:
            names_of[column_name].append(header.lower())
    places, found = list(delivered), dict[str, str]()
    scored = sorted(
        (
            (
                _likeness(contract, places, column, names_of[column.name], name, delivered[name]),
                column.name,
                name,
            )
            for column in missing
            for name in new
            if _fits(column, delivered[name]) and not _is_whole_line(name)
        ),
        key=lambda each: (-each[0], each[1], each[2]),
    )
    for likeness, column_name, name in scored:
        if likeness >= _LIKE and column_name not in found and name not in found.values():
            found[column_name] = name
    return found


def _likeness(
    contract: Contract, places: Sequence[str], column: Column, names: Sequence[str], name: str, kind: Kind
) -> float:
    same_place = places.index(name) == contract.names.index(column.name)
    ratio = max(SequenceMatcher(None, each, name.lower()).ratio() for each in names)
    is_supported = kind != "any" or ratio >= _LIKE_IN_PLACE
    return ratio + (_LIKE if same_place and is_supported else 0.0)


def _is_whole_line(name: str) -> bool:
    """Return True if a header is many, joined by a separator that the file was not split at."""
    return any(name.count(separator) > 1 for separator in SEPARATORS)


def _fits(column: Column, kind: Kind) -> bool:
    if isinstance(column, (Boolean, Label)) and kind == "number":
        return True  # 0 and 1
    return kind in ("any", _kind(column))


def _kind(column: Column) -> Kind:
    match column:
        case Number() | Integer():
            return "number"
        case Category() | Text():
            return "text"
        case Timestamp():
            return "time"
        case Boolean() | Label():
            return "boolean"
        case _:
            assert_never(column)
