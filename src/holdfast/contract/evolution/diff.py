"""The differences between two contracts; `compatibility.py` classifies them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final, TypeAlias

from holdfast.contract import Category, Column, Contract, Label
from holdfast.contract.evolution.compatibility import Boundary, Change, Difference, Evolution, worst
from holdfast.contract.schema.missing import Reject, policy_json
from holdfast.records import canonical_json


def compare(old: Contract, new: Contract) -> Evolution:
    """Return every difference of `new` from `old`, with its effect on what was made under `old`.

    Guarantee: where the kind is `COMPATIBLE`, every row and every request that is valid under `old` is valid under `new`.

    >>> from holdfast.contract import Contract, Number, Text, Timestamp
    >>> def trips(**distance):
    ...     return Contract(Text("id"), Number("distance", **distance), Timestamp("at", tz="UTC"), key="id", event_time="at")
    >>> evolution = compare(trips(unit="mi", high=100), trips(unit="km", high=200))
    >>> evolution.kind, [(change.what.value, change.kind.value) for change in evolution.changes]
    (<Compatibility.BREAKING: 'breaking'>, [('unit changed', 'breaking'), ('bound widened', 'compatible')])
    """
    changes = (
        *_diff_columns(old, new),
        *_diff_aliases(old, new),
        *_diff_row_level(old, new),
        *_diff_rules(old, new),
    )
    return Evolution(worst(change.kind for change in changes), changes)


def _make_change(column: str, what: Difference, before: object, after: object) -> Change:
    kind = worst(what.effect.at(boundary) for boundary in Boundary)
    return Change(column, what, _format_value(before), _format_value(after), kind, what.effect.why)


def _format_value(value: object) -> str:
    text = "none" if value is None else value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= 120 else text[:117] + "..."


# --- columns ----------------------------------------------------------------------------------------------------------


def _diff_columns(old: Contract, new: Contract) -> Iterator[Change]:
    before = {column.name: column for column in old.columns}
    after = {column.name: column for column in new.columns}
    for name in before.keys() & after.keys():
        if isinstance(before[name], Label) != isinstance(after[name], Label):
            del after[name]  # reported as another label, below
    removed = [
        column for name, column in before.items() if name not in after and not isinstance(column, Label)
    ]
    added = [column for name, column in after.items() if name not in before and not isinstance(column, Label)]
    renamed = _renamed(removed, added)
    for name, column in before.items():
        if name in renamed:
            yield _make_change(name, Difference.RENAMED, name, renamed[name])
        elif name in after:
            yield from _diff_column(column, after[name])
        elif column in removed:
            optional = not isinstance(column.missing, Reject)
            what = Difference.REMOVED_OPTIONAL if optional else Difference.REMOVED_REQUIRED
            yield _make_change(name, what, _type_name(column), "absent")
    for column in added:
        if column.name not in renamed.values():
            optional = not isinstance(column.missing, Reject)
            what = Difference.ADDED_OPTIONAL if optional else Difference.ADDED_REQUIRED
            yield _make_change(column.name, what, "absent", _type_name(column))
    if [name for name in before if name in after] != [name for name in after if name in before]:
        yield _make_change("", Difference.REORDERED, ", ".join(before), ", ".join(after))


def _renamed(removed: Sequence[Column], added: Sequence[Column]) -> dict[str, str]:
    """Return the new name of each removed column that has exactly one equal among the added ones, but for its name."""

    def alike(one: Column, other: Column) -> bool:
        return type(one) is type(other) and replace(one, name=other.name) == other

    found = {}
    for column in removed:
        heirs = [other for other in added if alike(column, other)]
        if len(heirs) == 1 and sum(alike(other, heirs[0]) for other in removed) == 1:
            found[column.name] = heirs[0].name
    return found


def _type_name(column: Column) -> str:
    return type(column).__name__


def _diff_column(old: Column, new: Column) -> Iterator[Change]:
    if type(old) is not type(new):
        yield _make_change(old.name, Difference.TYPE, _type_name(old), _type_name(new))
        return
    for field in fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        match field.name:
            case "missing":
                what = _missing_difference(before, after)
                yield _make_change(old.name, what, policy_json(before), policy_json(after))
            case "values":
                assert isinstance(old, Category)
                assert isinstance(new, Category)
                yield from _diff_values(old, new)
            case "aliases":
                pass  # by `_diff_aliases`
            case "delay":
                yield _make_change(old.name, Difference.LABEL_DELAY, str(before), str(after))
            case name if name in _FACT_DIFFERENCES:
                yield _make_change(old.name, _FACT_DIFFERENCES[name](before, after), before, after)
            case _:
                yield _make_change(old.name, Difference.OTHER, repr(before), repr(after))


def _missing_difference(before: object, after: object) -> Difference:
    match isinstance(before, Reject), isinstance(after, Reject):
        case (True, False):
            return Difference.MISSING_ALLOWED
        case (False, True):
            return Difference.MISSING_REFUSED
        case _:
            return Difference.MISSING_FILLED


def _diff_values(old: Category, new: Category) -> Iterator[Change]:
    before, after = set(old.values or ()), set(new.values or ())
    # A word that is an alias now is no word less, and one that was an alias no word more: see `_diff_aliases`.
    lost, gained = sorted(before - after - new.aliases.keys()), sorted(after - before)
    if new.unseen == "other":
        yield _make_change(old.name, Difference.WORDS_CHANGED, _format_words(old), _format_words(new))
        return
    if old.unseen == "other":
        return  # reported by `unseen`
    if lost:
        yield _make_change(old.name, Difference.WORDS_REMOVED, lost, "absent")
    if gained:
        yield _make_change(old.name, Difference.WORDS_ADDED, "absent", gained)
    if before == after:
        yield _make_change(old.name, Difference.REORDERED, _format_words(old), _format_words(new))


def _diff_aliases(old: Contract, new: Contract) -> Iterator[Change]:
    """Yield the differences of the aliases in categories that both contracts have."""
    by_name = {column.name: column for column in new.columns}
    for column in old.columns:
        heir = by_name.get(column.name)
        if not isinstance(column, Category) or not isinstance(heir, Category):
            continue
        for alias in sorted(column.aliases.keys() | heir.aliases.keys()):
            before, after = column.aliases.get(alias), heir.aliases.get(alias)
            if before != after:
                what = _alias_difference(old, column, alias, before, after)
                words = (
                    repr(alias) if word is None else f"{alias!r} is {word!r}" for word in (before, after)
                )
                yield _make_change(column.name, what, *words)


def _alias_difference(
    old: Contract, column: Category, alias: str, before: str | None, after: str | None
) -> Difference:
    if before is not None:
        return Difference.ALIAS_REMOVED if after is None else Difference.ALIAS_CHANGED
    is_word = alias in (column.values or ())
    if not is_word and column.unseen == "reject":
        return Difference.ALIAS_ADDED  # no row has it
    if column.name in old.key:
        return Difference.KEY
    compared = {name for rule in old.rules for name in rule.columns} | {
        each for names in old.unique for each in names
    }
    return Difference.WORDS_MERGED if is_word or column.name in compared else Difference.ALIAS_ADDED


def _format_words(column: Category) -> str:
    return "any" if column.values is None else ", ".join(column.values)


def _semantic_difference(before: str | None, after: str | None) -> Difference:
    if before is None:
        return Difference.SEMANTIC_STATED
    return Difference.SEMANTIC_DROPPED if after is None else Difference.SEMANTIC


def _window_difference(before: str | None, after: str | None) -> Difference:
    if before is None:
        return Difference.WINDOW_STATED
    return Difference.WINDOW_DROPPED if after is None else Difference.WINDOW


FactDifference: TypeAlias = Callable[[Any, Any], Difference]
"""From two unequal values of a fact to what their difference is."""


def _choose(holds: Callable[[Any, Any], bool], so: Difference, otherwise: Difference) -> FactDifference:
    return lambda before, after: so if holds(before, after) else otherwise


_WIDENED: Final = (Difference.BOUND_WIDENED, Difference.BOUND_NARROWED)

_FACT_DIFFERENCES: Final[Mapping[str, FactDifference]] = {
    "unit": lambda _before, _after: Difference.UNIT,
    "tz": lambda _before, _after: Difference.ZONE,
    "semantic": _semantic_difference,
    "window": _window_difference,
    "low": _choose(lambda old, new: new is None or (old is not None and new < old), *_WIDENED),
    "high": _choose(lambda old, new: new is None or (old is not None and new > old), *_WIDENED),
    "unseen": _choose(lambda _, new: new == "other", Difference.UNSEEN_ALLOWED, Difference.UNSEEN_REFUSED),
    "naive": _choose(
        lambda _, new: new == "local", Difference.LOCAL_TIMES_READ, Difference.LOCAL_TIMES_REFUSED
    ),
    "max_length": _choose(lambda old, new: new > old, Difference.LENGTH_RAISED, Difference.LENGTH_LOWERED),
    "pattern": _choose(lambda _, new: new is None, Difference.PATTERN_REMOVED, Difference.PATTERN_CHANGED),
}
"""By the name of a fact, the difference that two unequal values of it make."""


# --- the whole row ----------------------------------------------------------------------------------------------------

_BY_COLUMN: Final = frozenset({"format", "columns", "key", "event_time", "slices", "rules", "unique"})
"""Parts of a contract's JSON that are compared by name."""


def _diff_row_level(old: Contract, new: Contract) -> Iterator[Change]:
    if old.key != new.key:
        what = Difference.REORDERED if set(old.key) == set(new.key) else Difference.KEY
        yield _make_change("", what, "+".join(old.key), "+".join(new.key))
    if old.event_time != new.event_time:
        yield _make_change("", Difference.EVENT_TIME, old.event_time, new.event_time)
    labels = [contract.label.name if contract.label else None for contract in (old, new)]
    if labels[0] != labels[1]:
        yield _make_change("", Difference.LABEL, labels[0], labels[1])
    if old.slices != new.slices:
        yield _make_change(
            "", Difference.SLICES, ", ".join(old.slices) or "none", ", ".join(new.slices) or "none"
        )


def _diff_rules(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = json.loads(old.to_json()), json.loads(new.to_json())
    ruled, rules = _rules_by_name(before), _rules_by_name(after)
    for name in [*ruled, *(name for name in rules if name not in ruled)]:
        if ruled.get(name) != rules.get(name):
            what = Difference.RULE_ADDED if name in rules else Difference.RULE_REMOVED
            yield _make_change(name, what, ruled.get(name, "absent"), rules.get(name, "absent"))
    once, now = _unique_sets(before), _unique_sets(after)
    for names in sorted(once ^ now, key=sorted):
        text = "+".join(sorted(names))
        if names in now:
            yield _make_change(text, Difference.UNIQUE_ADDED, "absent", text)
        else:
            yield _make_change(text, Difference.UNIQUE_REMOVED, text, "absent")
    for name in sorted((before.keys() | after.keys()) - _BY_COLUMN):
        if before.get(name) != after.get(name):
            yield _make_change(name, Difference.OTHER, before.get(name), after.get(name))


def _rules_by_name(contract: Mapping[str, Any]) -> dict[str, str]:
    return {rule["name"]: canonical_json(rule) for rule in contract["rules"]}


def _unique_sets(contract: Mapping[str, Any]) -> set[frozenset[str]]:
    return {frozenset(names) for names in contract["unique"]}
