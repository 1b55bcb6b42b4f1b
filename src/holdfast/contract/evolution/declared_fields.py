"""The fields of a declaration as flat text, and how two declarations differ field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final

from holdfast.contract import Contract
from holdfast.contract.schema.expressions import Expression
from holdfast.records import sha256_hex

MOST_SHOWN: Final = 8
"""How many changes `describe_field_changes` names."""
_LONGEST: Final = 120
_SCALARS: Final = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of two declarations. `before` is None for a field that was added, `after` for one that was removed."""

    field: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.field} added: {self.after}"
        return f"{self.field} {self.before} -> {self.after or 'not declared'}"


def flatten_declaration(value: object) -> dict[str, str]:
    """Return every declared field of `value` by its path, without those that have their default.

    Parts of a list are named by their name or column, so that an inserted part changes no other path. An object that is
    no dataclass is its class, its name and its parameters: a learner of a user, for example. What the declaration
    keeps out of its own `repr`, such as the URL of a database, is left out.

    >>> from holdfast.contract import Number, Text, Timestamp
    >>> trips = Contract(Text("id"), Number("far", unit="km"), Timestamp("at", tz="UTC"), key="id", event_time="at")
    >>> flatten_declaration(trips)["columns[far].unit"]
    "'km'"
    """
    return dict(_walk("", value))


def compare_declarations(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[FieldChange, ...]:
    """Return the fields in which two flat declarations differ, by path.

    Of a part that was added or removed as a whole, such as a column, only the part is named.

    >>> [str(each) for each in compare_declarations({"a": "Csv", "a.b": "1"}, {"c": "2"})]
    ['a Csv -> not declared', 'c added: 2']
    """
    found: list[FieldChange] = []
    whole: list[str] = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old == new or any(_is_part(path, of) for of in whole):
            continue
        if old is None or new is None:
            whole.append(path)
        found.append(FieldChange(path, old, new))
    return tuple(found)


def describe_field_changes(changes: Sequence[FieldChange]) -> str:
    """Return the first changes in words, and how many more there are.

    >>> describe_field_changes([FieldChange("holdout", "14 days", "7 days")])
    'holdout 14 days -> 7 days'
    """
    named = [str(each) for each in changes[:MOST_SHOWN]]
    rest = len(changes) - len(named)
    return "; ".join([*named, f"and {rest} more"] if rest else named)


def _is_part(path: str, of: str) -> bool:
    return path.startswith((f"{of}.", f"{of}["))


def _walk(path: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Enum):
        yield path, repr(value.value)
    elif isinstance(value, (*_SCALARS, Expression)):
        yield path, _short(repr(value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield path or "declaration", type(value).__name__
        for each in fields(value):
            found = getattr(value, each.name, None)
            # The label of a contract is the last of its columns.
            is_listed = isinstance(value, Contract) and each.name == "label"
            if each.repr and not is_listed and not _is_default(each, found):
                yield from _walk(f"{path}.{each.name}" if path else each.name, found)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield from _walk(f"{path}[{key}]", value[key])
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from _walk_list(path, sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value)
    elif hasattr(value, "parameters"):
        yield path, type(value).__name__
        yield from _walk(f"{path}.parameters", value.parameters)
    else:
        # The text of an unknown object may hold its address, which differs in each process.
        text = str(value)
        yield path, type(value).__name__ if " at 0x" in text else _short(text)


def _walk_list(path: str, values: Sequence[object]) -> Iterator[tuple[str, str]]:
    if all(isinstance(each, _SCALARS) for each in values):
        yield path, _short(repr(tuple(values)))
        return
    labels = [_label(each, position) for position, each in enumerate(values)]
    for position, (label, each) in enumerate(zip(labels, values, strict=True)):
        unique = label if labels.count(label) == 1 else f"{label}, {position}"
        yield from _walk(f"{path}[{unique}]", each)


def _label(value: object, position: int) -> str:
    """Return what names a part of a list: its name, else its class and column, else its position."""
    name, column = getattr(value, "name", None), getattr(value, "column", None)
    if isinstance(name, str) and name:
        return name
    if isinstance(column, str):
        return f"{type(value).__name__} {column}"
    return str(position)


def _is_default(of: Field[Any], value: object) -> bool:
    if of.default_factory is not MISSING:
        return bool(value == of.default_factory())
    return of.default is not MISSING and bool(value == of.default)


def _short(text: str) -> str:
    # The digest keeps two long texts apart that begin alike.
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (SHA-256 {sha256_hex(text)[:8]})"
