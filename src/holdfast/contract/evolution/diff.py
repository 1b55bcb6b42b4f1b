"""Which differences two contracts have; what each means is said in `changes.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final, TypeAlias

from holdfast.contract.evolution.compatibility import RULES, Border, Change, Evolution, Kind, What, worst
from holdfast.contract.schema.columns import Category, Column, Label
from holdfast.contract.schema.contract import Contract
from holdfast.contract.schema.missing import Reject, as_policy, policy_json
from holdfast.records import canonical_json

__all__ = ["Border", "Change", "Evolution", "Kind", "What", "compare"]


def compare(old: Contract, new: Contract) -> Evolution:
    """Every difference of `new` from `old`, and what it means to what was made under `old`.

    Guarantee: where the kind is `COMPATIBLE`, every row and every request that is valid under `old` is valid under `new`.

    >>> from holdfast.contract import Contract, Number, Text, Timestamp
    >>> def trips(**distance):
    ...     return Contract(Text("id"), Number("distance", **distance), Timestamp("at", tz="UTC"), key="id", event_time="at")
    >>> evolution = compare(trips(unit="mi", high=100), trips(unit="km", high=200))
    >>> evolution.kind, [(change.what.value, change.kind.value) for change in evolution.changes]
    (<Kind.BREAKING: 'breaking'>, [('unit changed', 'breaking'), ('bound widened', 'compatible')])
    """
    changes = (*_columns(old, new), *_whole(old, new), *_rules(old, new))
    return Evolution(worst(change.kind for change in changes), changes)


def _change(column: str, what: What, before: object, after: object) -> Change:
    effect = RULES[what]
    kind = worst(effect.at(border) for border in Border)
    return Change(column, what, _shown(before), _shown(after), kind, effect.why)


def _shown(value: object) -> str:
    text = "none" if value is None else value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= 120 else text[:117] + "..."


# --- columns ----------------------------------------------------------------------------------------------------------


def _columns(old: Contract, new: Contract) -> Iterator[Change]:
    before = {column.name: column for column in old.columns}
    after = {column.name: column for column in new.columns}
    for name in before.keys() & after.keys():
        if isinstance(before[name], Label) != isinstance(after[name], Label):
            del after[name]  # told as another label, below
    removed = [
        column for name, column in before.items() if name not in after and not isinstance(column, Label)
    ]
    added = [column for name, column in after.items() if name not in before and not isinstance(column, Label)]
    renamed = _renamed(removed, added)
    for name, column in before.items():
        if name in renamed:
            yield _change(name, What.RENAMED, name, renamed[name])
        elif name in after:
            yield from _column(column, after[name])
        elif column in removed:
            optional = not isinstance(column.missing, Reject)
            what = What.REMOVED_OPTIONAL if optional else What.REMOVED_REQUIRED
            yield _change(name, what, _told(column), "absent")
    for column in added:
        if column.name not in renamed.values():
            optional = not isinstance(column.missing, Reject)
            what = What.ADDED_OPTIONAL if optional else What.ADDED_REQUIRED
            yield _change(column.name, what, "absent", _told(column))
    if [name for name in before if name in after] != [name for name in after if name in before]:
        yield _change("", What.REORDERED, ", ".join(before), ", ".join(after))


def _renamed(removed: Sequence[Column], added: Sequence[Column]) -> dict[str, str]:
    """The new name of each column that went while exactly one came that is the same but for its name."""

    def alike(one: Column, other: Column) -> bool:
        return type(one) is type(other) and replace(one, name=other.name) == other

    found = {}
    for column in removed:
        heirs = [other for other in added if alike(column, other)]
        if len(heirs) == 1 and sum(alike(other, heirs[0]) for other in removed) == 1:
            found[column.name] = heirs[0].name
    return found


def _told(column: Column) -> str:
    return type(column).__name__


def _column(old: Column, new: Column) -> Iterator[Change]:
    if type(old) is not type(new):
        yield _change(old.name, What.TYPE, _told(old), _told(new))
        return
    for field in fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        find = _FACTS.get(field.name, _unknown)
        yield from find(old, new, before, after)


Facts: TypeAlias = Callable[[Any, Any, Any, Any], Iterator[Change]]
"""From the old column, the new one, and one fact of each that differs, to the changes."""


def _always(what: What) -> Facts:
    def find(old: Column, _new: Column, before: object, after: object) -> Iterator[Change]:
        yield _change(old.name, what, before, after)

    return find


def _bound(*, upper: bool) -> Facts:
    def find(old: Column, _new: Column, before: float | None, after: float | None) -> Iterator[Change]:
        wider = after is None or (before is not None and (after > before) is upper)
        what = What.BOUND_WIDENED if wider else What.BOUND_NARROWED
        yield _change(old.name, what, before, after)

    return find


def _missing(old: Column, _new: Column, before: object, after: object) -> Iterator[Change]:
    match isinstance(before, Reject), isinstance(after, Reject):
        case (True, False):
            what = What.MISSING_ALLOWED
        case (False, True):
            what = What.MISSING_REFUSED
        case _:
            what = What.MISSING_FILLED
    told = [policy_json(as_policy(policy)) for policy in (old.missing, _new.missing)]
    yield _change(old.name, what, told[0], told[1])


def _values(old: Category, new: Category, _before: object, _after: object) -> Iterator[Change]:
    before, after = set(old.values or ()), set(new.values or ())
    lost, gained = sorted(before - after), sorted(after - before)
    if new.unseen == "other":
        yield _change(old.name, What.WORDS_CHANGED, _words(old), _words(new))
        return
    if old.unseen == "other":
        return  # told by `unseen`
    if lost:
        yield _change(old.name, What.WORDS_REMOVED, lost, "absent")
    if gained:
        yield _change(old.name, What.WORDS_ADDED, "absent", gained)
    if not lost and not gained:
        yield _change(old.name, What.REORDERED, _words(old), _words(new))


def _words(column: Category) -> str:
    return "any" if column.values is None else ", ".join(column.values)


def _length(old: Column, _new: Column, before: int, after: int) -> Iterator[Change]:
    what = What.LENGTH_RAISED if after > before else What.LENGTH_LOWERED
    yield _change(old.name, what, before, after)


def _either(field: object, if_so: What, otherwise: What) -> Facts:
    """The one change where the new fact is `field`, else the other."""

    def find(old: Column, _new: Column, before: object, after: object) -> Iterator[Change]:
        yield _change(old.name, if_so if after == field else otherwise, before, after)

    return find


def _semantic(old: Column, _new: Column, before: object, after: object) -> Iterator[Change]:
    what = (
        What.SEMANTIC_STATED if before is None else What.SEMANTIC_DROPPED if after is None else What.SEMANTIC
    )
    yield _change(old.name, what, before, after)


def _delay(old: Label, new: Label, _before: object, _after: object) -> Iterator[Change]:
    yield _change(old.name, What.LABEL_DELAY, str(old.delay_span), str(new.delay_span))


def _unknown(old: Column, _new: Column, before: object, after: object) -> Iterator[Change]:
    yield _change(old.name, What.OTHER, repr(before), repr(after))


_FACTS: Final[Mapping[str, Facts]] = {
    "unit": _always(What.UNIT),
    "semantic": _semantic,
    "low": _bound(upper=False),
    "high": _bound(upper=True),
    "missing": _missing,
    "values": _values,
    "unseen": _either("other", What.UNSEEN_ALLOWED, What.UNSEEN_REFUSED),
    "tz": _always(What.ZONE),
    "naive": _either("local", What.LOCAL_TIMES_READ, What.LOCAL_TIMES_REFUSED),
    "max_length": _length,
    "pattern": _either(None, What.PATTERN_REMOVED, What.PATTERN_CHANGED),
    "delay": _delay,
}


# --- the whole row ----------------------------------------------------------------------------------------------------

_BY_COLUMN: Final = frozenset({"format", "columns", "key", "event_time", "slices", "rules", "unique"})
"""What the JSON of a contract holds that is compared by name."""


def _whole(old: Contract, new: Contract) -> Iterator[Change]:
    if set(old.key) != set(new.key):
        yield _change("", What.KEY, "+".join(old.key), "+".join(new.key))
    elif old.key != new.key:
        yield _change("", What.REORDERED, "+".join(old.key), "+".join(new.key))
    if old.event_time != new.event_time:
        yield _change("", What.EVENT_TIME, old.event_time, new.event_time)
    labels = [contract.label.name if contract.label else None for contract in (old, new)]
    if labels[0] != labels[1]:
        yield _change("", What.LABEL, labels[0], labels[1])
    if old.slices != new.slices:
        yield _change("", What.SLICES, ", ".join(old.slices) or "none", ", ".join(new.slices) or "none")


def _rules(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = json.loads(old.to_json()), json.loads(new.to_json())
    ruled, rules = _by_name(before), _by_name(after)
    for name in [*ruled, *(name for name in rules if name not in ruled)]:
        if ruled.get(name) != rules.get(name):
            what = What.RULE_ADDED if name in rules else What.RULE_REMOVED
            yield _change(name, what, ruled.get(name, "absent"), rules.get(name, "absent"))
    once, now = _sets(before), _sets(after)
    for names in sorted(once ^ now, key=sorted):
        what = What.UNIQUE_ADDED if names in now else What.UNIQUE_REMOVED
        told = "+".join(sorted(names))
        yield _change(told, what, *(("absent", told) if names in now else (told, "absent")))
    for name in sorted((before.keys() | after.keys()) - _BY_COLUMN):
        if before.get(name) != after.get(name):
            yield _change(name, What.OTHER, before.get(name), after.get(name))


def _by_name(contract: Mapping[str, Any]) -> dict[str, str]:
    return {rule["name"]: canonical_json(rule) for rule in contract.get("rules", ())}


def _sets(contract: Mapping[str, Any]) -> set[frozenset[str]]:
    return {frozenset(names) for names in contract.get("unique", ())}
