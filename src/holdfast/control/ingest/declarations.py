"""Record what is declared: by feed with each load that it judges, and by model when a command runs with another file.

So an edit of the model file is in the event log with its fields (R209), and an earlier declaration of contracts,
expectations, features and filters can be compared and restored (R17).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from holdfast.contract.evolution.declared_fields import (
    FieldChange,
    compare_declarations,
    describe_field_changes,
    flatten_declaration,
)
from holdfast.declaration import Model
from holdfast.feeds import Feed
from holdfast.records import DeclarationKind
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import declarations
from holdfast.store.feeds.declarations import DeclarationRow

CHANGED: Final = "declaration.changed"
RESTORED: Final = "declaration.restored"
"""The kinds of the events, whose subject is the model."""

_MOST_FEEDS: Final = 64
_FIELDS: Final[dict[int, tuple[Feed, Mapping[str, str]]]] = {}
"""The fields of the feeds that this process loads, by the object's id: a feed holds mappings, and has no hash."""


@dataclass(frozen=True, slots=True)
class DeclarationChange:
    """A declaration and what it changed: the fields, and the source files whose text differs."""

    row: DeclarationRow
    fields: tuple[FieldChange, ...]
    files: tuple[str, ...]
    is_first: bool = False

    @property
    def explanation(self) -> str:
        """Return what changed in words."""
        return "the first one" if self.is_first else explain_change(self.fields, self.files)


def explain_change(fields: tuple[FieldChange, ...], files: tuple[str, ...]) -> str:
    """Return what changed in words: the fields, or the files if no field did."""
    if fields:
        return describe_field_changes(fields)
    return f"no field changed; text of {', '.join(files)} changed" if files else "nothing changed"


def fields_of_model(model: Model) -> dict[str, str]:
    """Return the fields of a model's declaration; the feed of its examples, which is one of its feeds, by name."""
    found = flatten_declaration(model)
    return {name: text for name, text in found.items() if not name.startswith("examples")} | {
        "examples": repr(model.examples.name)
    }


def fields_of_feed(feed: Feed) -> Mapping[str, str]:
    """Return the fields of a feed's declaration; made once for each feed, because each of its loads asks."""
    known = _FIELDS.get(id(feed))
    if known is None or known[0] is not feed:
        if len(_FIELDS) >= _MOST_FEEDS:
            _FIELDS.clear()
        known = _FIELDS[id(feed)] = (
            feed,
            flatten_declaration(feed),
        )  # the feed is kept, so its id stays its own
    return known[1]


def record_feed(
    connection: Transaction, feed: Feed, fields: Mapping[str, str], *, table_version: int, now_us: int
) -> None:
    """Record the declaration of `feed` in the transaction of a load, if it is not the one in force."""
    kind = DeclarationKind.FEED
    if declarations.newest_digest(connection, kind, feed.name) != declarations.digest_of(fields):
        declarations.add(
            connection,
            kind,
            feed.name,
            fields,
            actor=events.SYSTEM,
            now_us=now_us,
            table_version=table_version,
        )


def record_model(
    store: Store, model: Model, sources: Mapping[str, str], *, actor: str, now_us: int
) -> DeclarationChange | None:
    """Record the declaration of `model` if it is not the one in force, with an event that names what changed.

    Parameters
    ----------
    model, sources
        The declared model, and the text of each source file by its path.
    actor
        The user whose command runs with it.
    now_us
        Microseconds since 1970 UTC.

    The first one is no change, and returns None.
    """
    fields = fields_of_model(model)
    digest, kind = declarations.digest_of(fields, sources), DeclarationKind.MODEL
    with store.ledger.read() as connection:
        if declarations.newest_digest(connection, kind, model.name) == digest:
            return None
    with store.ledger.write() as connection:
        before = declarations.newest(connection, kind, model.name)
        if before is not None and before.digest == digest:
            return None
        declarations.add(connection, kind, model.name, fields, sources=sources, actor=actor, now_us=now_us)
        after = declarations.newest(connection, kind, model.name)
        if before is None or after is None:
            return None
        change = change_between(before, after)
        events.append(
            connection,
            at_us=now_us,
            kind=CHANGED,
            subject=model.name,
            actor=actor,
            explanation=(
                f"declaration {before.declaration_id} -> {after.declaration_id} ({digest[:12]}): {change.explanation}"
            ),
        )
        return change


def change_between(before: DeclarationRow, after: DeclarationRow) -> DeclarationChange:
    """Return what `after` declares differently from `before`."""
    old, new = before.sources, after.sources
    files = tuple(path for path in sorted({*old, *new}) if old.get(path) != new.get(path))
    return DeclarationChange(after, compare_declarations(before.fields, after.fields), files)


def history(store: Store, name: str | None = None) -> list[tuple[DeclarationChange, int | None]]:
    """Return every declaration with what it changed, and how many loads it judged (None for a model), oldest first."""
    with store.ledger.read() as connection:
        found = declarations.history(connection, name)
        judged = declarations.loads_judged(connection, found)
    before: dict[tuple[DeclarationKind, str], DeclarationRow] = {}
    lines: list[tuple[DeclarationChange, int | None]] = []
    for row in found:
        last = before.get((row.kind, row.name))
        change = DeclarationChange(row, (), (), is_first=True) if last is None else change_between(last, row)
        is_feed = row.kind is DeclarationKind.FEED
        lines.append((change, judged.get(row.declaration_id, 0) if is_feed else None))
        before[row.kind, row.name] = row
    return lines


def record_restored(store: Store, row: DeclarationRow, *, reason: str, actor: str, now_us: int) -> None:
    """Write the event that `row`, a declaration of a model, was restored."""
    with store.ledger.write() as connection:
        events.append(
            connection,
            at_us=now_us,
            kind=RESTORED,
            subject=row.name,
            actor=actor,
            explanation=f"declaration {row.declaration_id} ({row.digest[:12]}) was restored: {reason}",
        )
