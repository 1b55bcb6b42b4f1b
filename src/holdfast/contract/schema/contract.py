"""The contract: one declaration of a row, with a hash that is stored with every model trained under it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

from holdfast.contract.schema.columns import (
    Boolean,
    Category,
    Column,
    Integer,
    Label,
    Number,
    Text,
    Timestamp,
)
from holdfast.contract.schema.expressions import Rule
from holdfast.contract.schema.missing import Keep, Reject, as_policy, policy_from_json, policy_json
from holdfast.contract.schema.rule_types import check_rule
from holdfast.errors import InputError
from holdfast.formatting import with_article
from holdfast.records import canonical_json, sha256_hex

FORMAT: Final = 1
"""The version of the JSON form."""

_COLUMN_TYPES: Final[dict[str, type[Column]]] = {
    "number": Number,
    "integer": Integer,
    "category": Category,
    "timestamp": Timestamp,
    "boolean": Boolean,
    "text": Text,
    "label": Label,
}
_TYPE_NAMES: Final = {cls: kind for kind, cls in _COLUMN_TYPES.items()}
_KEY_TYPES: Final = (Integer, Category, Text, Timestamp, Boolean)


@dataclass(frozen=True, init=False)
class Contract:
    """The declaration of a row: its columns, key, event time, label and slices.

    Parameters
    ----------
    columns
        In the order of valid frames; names are unique.
    key
        The column or columns that identify a row: integer, category, text, timestamp or boolean columns
        that reject missing values. A batch holds a key once.
    event_time
        The timestamp column of the event; it rejects missing values.
    label
        The value to predict; becomes the last column. A feed that only supplies features has none.
    slices
        Category, integer or boolean columns by which quality is reported, in the status, the page and the metrics.
    rules
        Conditions between the columns of a row.
    unique
        Columns, or tuples of columns, that identify a row besides the key. Within a batch, a valid row with the
        values of an earlier valid one gets the reason "<a>+<b>|unique". A row in which one of them is missing
        equals no other.

    Raises
    ------
    InputError
        HF104 if the declaration contradicts itself.

    Examples
    --------
    >>> departures = Contract(
    ...     Text("flight_id"), Number("distance", unit="mi", low=0, high=6000),
    ...     Timestamp("scheduled", tz="UTC"),
    ...     key="flight_id", event_time="scheduled", label=Label("late", delay="12h"),
    ... )
    >>> [column.name for column in departures.request_columns]
    ['flight_id', 'distance', 'scheduled']
    >>> Contract.from_json(departures.to_json()).hash == departures.hash
    True
    """

    columns: tuple[Column, ...]
    key: tuple[str, ...]
    event_time: str
    label: Label | None
    slices: tuple[str, ...]
    rules: tuple[Rule, ...]
    unique: tuple[tuple[str, ...], ...]

    def __init__(
        self,
        *columns: Column,
        key: tuple[str, ...] | list[str] | str,
        event_time: str,
        label: Label | None = None,
        slices: tuple[str, ...] | list[str] | str = (),
        rules: Iterable[Rule] = (),
        unique: Iterable[str | Iterable[str]] | str = (),
    ) -> None:
        rowwise = [kind for kind in _COLUMN_TYPES.values() if kind is not Label]
        stray = [column for column in columns if type(column) not in rowwise]
        if stray:
            raise InputError("HF104", f"{stray[0]!r} cannot be a column; a label goes into label=")
        if label is not None and not isinstance(label, Label):
            raise InputError(
                "HF104",
                f"label={label!r} cannot be predicted: it is a Label, true or false; regression and several classes: not yet",
            )
        stated = _check_arguments(event_time, {"key": key, "slices": slices, "unique": unique}, rules)
        object.__setattr__(self, "columns", columns if label is None else (*columns, label))
        object.__setattr__(self, "key", (key,) if isinstance(key, str) else tuple(key))
        object.__setattr__(self, "event_time", event_time)
        object.__setattr__(self, "label", label)
        object.__setattr__(self, "slices", (slices,) if isinstance(slices, str) else tuple(slices))
        object.__setattr__(self, "rules", stated)
        object.__setattr__(self, "unique", tuple(_name_tuples(unique)))
        self._check()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def request_columns(self) -> tuple[Column, ...]:
        """Return the columns that a request must bring: all but the label."""
        return tuple(column for column in self.columns if not isinstance(column, Label))

    @property
    def late_label(self) -> Label | None:
        """Return the label if a row may be loaded before it is known; a delivery may then lack its column."""
        kept = self.label is not None and isinstance(as_policy(self.label.missing), Keep)
        return self.label if kept else None

    def delivered_names(self, found: Iterable[str]) -> tuple[str, ...]:
        """Return the columns that a delivery with the columns `found` must have: all, or all but a label that comes later."""
        late = self.late_label
        absent = late is not None and late.name not in set(found)
        return tuple(name for name in self.names if not (absent and late is not None and name == late.name))

    @cached_property
    def hash(self) -> str:
        """Return the SHA-256 of the JSON form, as 64 hexadecimal digits. Equal hashes mean equal contracts (R48)."""
        return sha256_hex(self._json)

    @cached_property
    def aliases(self) -> dict[str, Mapping[str, str]]:
        """Return the word of each alias, by the categories that declare some."""
        categories = (column for column in self.columns if isinstance(column, Category))
        return {column.name: column.aliases for column in categories if column.aliases}

    def word(self, name: str, value: object) -> object:
        """Return the word that `value` stands for if it is an alias in column `name`; any other value as it is."""
        words = self.aliases.get(name)
        return words.get(value, value) if words and isinstance(value, str) else value

    def column(self, name: str) -> Column:
        """Return the column of that name. Raises `InputError` HF104 if there is none."""
        found = self._by_name.get(name)
        if found is None:
            raise InputError("HF104", f"the contract has no column {name!r}; it has {', '.join(self.names)}")
        return found

    def to_json(self) -> str:
        """Return the contract as canonical JSON: the same contract gives the same bytes on every machine."""
        return self._json

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Return the contract that `to_json` wrote. Raises `InputError` HF108 if the text is not one."""
        try:
            value = json.loads(text)
            if value["format"] != FORMAT:
                raise InputError(
                    "HF108",
                    f"the contract has JSON format {value['format']!r}; this Holdfast reads {FORMAT}",
                    next_command="read it with the Holdfast that wrote it",
                )
            columns = [_column_from_json(column) for column in value["columns"]]
            label = columns.pop() if columns and isinstance(columns[-1], Label) else None
            return cls(
                *columns,
                key=tuple(value["key"]),
                event_time=value["event_time"],
                label=label if isinstance(label, Label) else None,
                slices=tuple(value["slices"]),
                rules=[Rule.from_json(rule) for rule in value["rules"]],
                unique=[tuple(names) for names in value["unique"]],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError("HF108", f"this is not the JSON of a contract: {error!r}") from error

    def __hash__(self) -> int:
        return hash(self.hash)

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    @cached_property
    def _json(self) -> str:
        return canonical_json(
            {
                "format": FORMAT,
                "columns": [_column_json(column) for column in self.columns],
                "key": self.key,
                "event_time": self.event_time,
                "slices": self.slices,
                "rules": [rule.to_json() for rule in self.rules],
                "unique": self.unique,
            }
        )

    def _check(self) -> None:
        if len(set(self.names)) != len(self.columns):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise InputError("HF104", f"the contract names {', '.join(twice)} more than once")
        if not self.key or len(set(self.key)) != len(self.key):
            raise InputError("HF104", f"the key {self.key!r} must name at least one column, each once")
        for name in self.key:
            self._must_be(name, _KEY_TYPES, "part of the key", required=True)
        self._must_be(self.event_time, (Timestamp,), "the event time", required=True)
        for name in self.slices:
            self._must_be(name, (Category, Integer, Boolean), "a slice")
        self._check_unique()
        self._check_rules()

    def _check_unique(self) -> None:
        for names in self.unique:
            if not names or len(set(names)) != len(names):
                raise InputError("HF104", f"unique={names!r} must name at least one column, each once")
            for name in names:
                self._must_be(name, _KEY_TYPES, "part of what is unique")
        sets = [frozenset(names) for names in (self.key, *self.unique)]
        for place, names in enumerate(self.unique, start=1):
            if sets[place] in sets[:place]:
                raise InputError("HF104", f"unique={names!r} is stated twice, or is the key")

    def _check_rules(self) -> None:
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise InputError("HF104", f"{rule!r} is no rule; write Rule(name, expression)")
            check_rule(rule, self._by_name)
        used = [*self.names, *(rule.name for rule in self.rules)]
        twice = sorted({name for name in used if used.count(name) > 1})
        if twice:
            raise InputError(
                "HF104", f"rules must not share a name with a column or a rule: {', '.join(twice)}"
            )

    def _must_be(
        self, name: str, kinds: tuple[type[Column], ...], role: str, *, required: bool = False
    ) -> None:
        column = self.column(name)
        if not isinstance(column, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(
                "HF104", f"{name!r} is {with_article(type(column).__name__)}; {role} must be {wanted}"
            )
        if required and not isinstance(column.missing, Reject):
            raise InputError("HF104", f"{name!r} is {role}, so its missing policy must be Reject()")


def _name_tuples(unique: Iterable[str | Iterable[str]] | str) -> Iterator[tuple[str, ...]]:
    for names in (unique,) if isinstance(unique, str) else unique:
        yield (names,) if isinstance(names, str) else tuple(names)


def _column_json(column: Column) -> dict[str, object]:
    value: dict[str, object] = {"type": _TYPE_NAMES[type(column)]}
    for field in fields(column):
        fact = getattr(column, field.name)
        if fact is None and isinstance(column, Timestamp) and field.name in ("low", "high"):
            continue  # written only where declared: contracts of before have no such bound, and keep their hash
        if field.name == "window" and fact is None:
            continue  # contracts from before there were windows keep their hash
        if field.name == "aliases" and not fact:
            continue  # as for windows
        if field.name == "missing":
            fact = policy_json(as_policy(fact))
        elif isinstance(fact, timedelta):
            fact = fact.total_seconds()
        value["delay_seconds" if field.name == "delay" else field.name] = fact
    return value


def _column_from_json(value: Mapping[str, Any]) -> Column:
    facts = dict(value)
    kind = _COLUMN_TYPES[facts.pop("type")]
    facts["missing"] = policy_from_json(facts["missing"])
    if facts.get("values") is not None:
        facts["values"] = tuple(facts["values"])
    if "delay_seconds" in facts:
        facts["delay"] = timedelta(seconds=facts.pop("delay_seconds"))
    return kind(**facts)


def _check_arguments(event_time: object, names: Mapping[str, object], rules: object) -> tuple[Rule, ...]:
    """Return the rules of a contract; `InputError` HF104 if an argument is not of its type."""
    if not isinstance(event_time, str):
        raise InputError("HF104", f"Contract: event_time is a column's name, not {event_time!r}")
    for name, given in names.items():
        if not _are_names(given, nested=name == "unique"):
            raise InputError(
                "HF104", f"Contract: {name} is a column's name or several of them, not {given!r}"
            )
    several = tuple(rules) if isinstance(rules, Iterable) else (rules,)
    stated = tuple(rule for rule in several if isinstance(rule, Rule))
    if len(stated) < len(several):
        raise InputError("HF104", f"Contract: rules are a Rule or several of them, not {rules!r}")
    return stated


def _are_names(names: object, *, nested: bool) -> bool:
    if isinstance(names, str):
        return True
    return (
        isinstance(names, Collection)
        and not isinstance(names, Mapping)
        and all(isinstance(each, str) or (nested and _are_names(each, nested=False)) for each in names)
    )
