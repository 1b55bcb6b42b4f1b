"""Every way in which two contracts can differ, and what each does to what was made under the old one (R92, R93).

Three borders see a contract. *Rows*: what is loaded was checked by the old one and is read under the new one, and
senders go on delivering in the old form. *Callers*: whoever asks a model sends what the old one asked for. *Models*:
a version keeps the contract under which it was trained, beside versions with the new one.

`RULES` is the one table. What no rule knows is breaking: a difference is harmless only where somebody could say why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What must happen before a change."""

    COMPATIBLE = "compatible"  # nothing: whatever was valid stays valid and means the same
    EXPAND_CONTRACT = (
        "expand_contract"  # somebody has to follow; until then the old and the new form stand together
    )
    BREAKING = "breaking"  # what was valid is refused, or means something else


def worst(kinds: Iterable[Kind]) -> Kind:
    """The worst of `kinds`; compatible when there is none.

    >>> worst([Kind.COMPATIBLE, Kind.BREAKING, Kind.EXPAND_CONTRACT])
    <Kind.BREAKING: 'breaking'>
    """
    return max(kinds, key=list(Kind).index, default=Kind.COMPATIBLE)


class Border(StrEnum):
    """Who sees a contract."""

    ROWS = "rows"
    CALLERS = "callers"
    MODELS = "models"


class What(StrEnum):
    """A difference of two contracts."""

    BOUND_WIDENED = "bound widened"
    BOUND_NARROWED = "bound narrowed"
    WORDS_CHANGED = "known words changed"
    WORDS_ADDED = "allowed words added"
    WORDS_REMOVED = "allowed words removed"
    UNSEEN_ALLOWED = "unseen words allowed"
    UNSEEN_REFUSED = "unseen words refused"
    LENGTH_RAISED = "maximum length raised"
    LENGTH_LOWERED = "maximum length lowered"
    PATTERN_REMOVED = "pattern removed"
    PATTERN_CHANGED = "pattern added or changed"
    MISSING_ALLOWED = "missing values allowed"
    MISSING_REFUSED = "missing values refused"
    MISSING_FILLED = "missing values filled otherwise"
    LOCAL_TIMES_READ = "times without an offset read"
    LOCAL_TIMES_REFUSED = "times without an offset refused"
    UNIT = "unit changed"
    SEMANTIC = "meaning changed"
    SEMANTIC_STATED = "meaning stated"
    SEMANTIC_DROPPED = "meaning no longer stated"
    ZONE = "time zone changed"
    TYPE = "type changed"
    ADDED_OPTIONAL = "optional column added"
    ADDED_REQUIRED = "required column added"
    REMOVED_OPTIONAL = "optional column removed"
    REMOVED_REQUIRED = "required column removed"
    RENAMED = "column renamed"
    REORDERED = "order changed"
    KEY = "key changed"
    EVENT_TIME = "event time changed"
    LABEL = "label changed"
    LABEL_DELAY = "label delay changed"
    SLICES = "slices changed"
    RULE_ADDED = "rule added or changed"
    RULE_REMOVED = "rule removed"
    UNIQUE_ADDED = "uniqueness added"
    UNIQUE_REMOVED = "uniqueness removed"
    OTHER = "changed in a way that no rule knows"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a difference does at each border, and why.

    `misreads`: rows that were loaded under the old contract would be taken for what they are not, or lack what every row
    has. No consent makes that right, so nobody can give any while such rows are live.
    """

    rows: Kind
    callers: Kind
    models: Kind
    why: str
    misreads: bool = False

    def at(self, border: Border) -> Kind:
        """The kind at one border."""
        return {Border.ROWS: self.rows, Border.CALLERS: self.callers, Border.MODELS: self.models}[border]


_FINE: Final = Kind.COMPATIBLE
_STEPS: Final = Kind.EXPAND_CONTRACT
_BREAKS: Final = Kind.BREAKING

_WIDER: Final = "every row that was valid is valid, and means what it meant"
_NARROWER: Final = "rows that were valid are refused, and loaded ones may break the new contract"
_OTHER_MEANING: Final = "the same value means something else, and nothing in the rows shows it"
_RENAME: Final = (
    "rows, callers and models know the column by its old name; expand and contract instead: add the new column as optional "
    "and let the old one be missing, fill both, move every reader and caller, then remove the old one"
)

RULES: Final[Mapping[What, Effect]] = {
    What.BOUND_WIDENED: Effect(_FINE, _FINE, _FINE, _WIDER),
    What.BOUND_NARROWED: Effect(_BREAKS, _BREAKS, _FINE, _NARROWER),
    What.WORDS_CHANGED: Effect(
        _FINE, _FINE, _FINE, "any word is let through; which ones have a code is each version's own"
    ),
    What.WORDS_ADDED: Effect(_FINE, _FINE, _FINE, _WIDER),
    What.WORDS_REMOVED: Effect(_BREAKS, _BREAKS, _FINE, _NARROWER),
    What.UNSEEN_ALLOWED: Effect(_FINE, _FINE, _FINE, _WIDER),
    What.UNSEEN_REFUSED: Effect(_BREAKS, _BREAKS, _FINE, _NARROWER),
    What.LENGTH_RAISED: Effect(_FINE, _FINE, _FINE, _WIDER),
    What.LENGTH_LOWERED: Effect(_BREAKS, _BREAKS, _FINE, _NARROWER),
    What.PATTERN_REMOVED: Effect(_FINE, _FINE, _FINE, _WIDER),
    What.PATTERN_CHANGED: Effect(
        _BREAKS, _BREAKS, _FINE, "texts that were valid may be refused: which, no comparison of patterns tells"
    ),
    What.MISSING_ALLOWED: Effect(_FINE, _FINE, _FINE, _WIDER),
    What.MISSING_REFUSED: Effect(_BREAKS, _BREAKS, _FINE, _NARROWER),
    What.MISSING_FILLED: Effect(
        _FINE, _FINE, _FINE, "rows keep what they miss; what stands in for it is in each version's own file"
    ),
    What.LOCAL_TIMES_READ: Effect(_FINE, _FINE, _FINE, _WIDER),
    What.LOCAL_TIMES_REFUSED: Effect(_BREAKS, _BREAKS, _FINE, _NARROWER),
    What.UNIT: Effect(_BREAKS, _BREAKS, _BREAKS, _OTHER_MEANING, misreads=True),
    What.SEMANTIC: Effect(_BREAKS, _BREAKS, _BREAKS, _OTHER_MEANING, misreads=True),
    What.SEMANTIC_STATED: Effect(
        _STEPS, _STEPS, _FINE, "who states another meaning is refused now; see first that no sender and no caller does"
    ),
    What.SEMANTIC_DROPPED: Effect(_FINE, _FINE, _FINE, "less is promised; nothing that was valid is refused"),
    What.ZONE: Effect(_BREAKS, _BREAKS, _BREAKS, "hours and days of the same instants are others in another zone"),
    What.TYPE: Effect(_BREAKS, _BREAKS, _BREAKS, "values of the old type are refused", misreads=True),
    What.ADDED_OPTIONAL: Effect(
        _STEPS, _FINE, _FINE,
        "a request may leave it out, a delivery may not: let each sender add the column, with or without values, before "
        "or with the change; callers may send it once a version that knows it answers everything",
    ),
    What.ADDED_REQUIRED: Effect(
        _BREAKS, _BREAKS, _FINE,
        'loaded rows, senders and callers lack it; expand and contract instead: add it with missing="keep", let everybody '
        "fill it, and require it where that is certain",
        misreads=True,
    ),
    What.REMOVED_OPTIONAL: Effect(
        _STEPS, _STEPS, _FINE, "who still sends it is refused; see first that no sender and no caller does"
    ),
    What.REMOVED_REQUIRED: Effect(
        _BREAKS, _BREAKS, _BREAKS,
        'everybody sends it and would be refused; expand and contract instead: make it missing="keep", let senders and '
        "callers leave it out, then remove it",
    ),
    What.RENAMED: Effect(_BREAKS, _BREAKS, _BREAKS, _RENAME, misreads=True),
    What.REORDERED: Effect(_FINE, _FINE, _FINE, "columns are found by their names"),
    What.KEY: Effect(_BREAKS, _FINE, _BREAKS, "which rows are the same row is decided otherwise", misreads=True),
    What.EVENT_TIME: Effect(_BREAKS, _BREAKS, _BREAKS, "when a row happened is decided otherwise", misreads=True),
    What.LABEL: Effect(_BREAKS, _FINE, _BREAKS, "something else is foretold; call it another model", misreads=True),
    What.LABEL_DELAY: Effect(
        _FINE, _FINE, _BREAKS, "labels count as known from another moment, so models learnt from other rows"
    ),
    What.SLICES: Effect(_FINE, _FINE, _FINE, "rows stay as they are; quality is told by other groups"),
    What.RULE_ADDED: Effect(_BREAKS, _BREAKS, _FINE, _NARROWER),
    What.RULE_REMOVED: Effect(_FINE, _FINE, _FINE, _WIDER),
    What.UNIQUE_ADDED: Effect(_BREAKS, _FINE, _FINE, "batches that were valid may hold such rows twice"),
    What.UNIQUE_REMOVED: Effect(_FINE, _FINE, _FINE, _WIDER),
    What.OTHER: Effect(_BREAKS, _BREAKS, _BREAKS, "no rule says that it is harmless", misreads=True),
}  # fmt: skip
"""What every difference does at every border. No other place says so."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `column` is the column's or rule's name, "" for the whole row; `before` and `after` are for people."""

    column: str
    what: What
    before: str
    after: str
    kind: Kind
    why: str

    def at(self, border: Border) -> Kind:
        """What the change is to those who see the contract at `border`."""
        return RULES[self.what].at(border)

    @property
    def misreads(self) -> bool:
        """Whether rows of the old contract that are still there would be read wrongly; see `Effect`."""
        return RULES[self.what].misreads

    @property
    def difference(self) -> str:
        """What was changed, and nothing of what that means."""
        subject = f"{self.column}: " if self.column else ""
        return f"{subject}{self.what} ({self.before} -> {self.after})"

    def __str__(self) -> str:
        return f"{self.difference}, {self.kind}: {self.why}"

    def as_dict(self) -> dict[str, object]:
        """The change as plain JSON."""
        facts: dict[str, object] = {field.name: str(getattr(self, field.name)) for field in fields(self)}
        return facts | {"borders": {str(border): str(self.at(border)) for border in Border}}


def in_words(changes: Iterable[Change]) -> str:
    """All `changes` on one line, what they mean said once for those that mean the same."""
    alike: dict[tuple[Kind, str], list[str]] = {}
    for change in changes:
        alike.setdefault((change.kind, change.why), []).append(change.difference)
    return "; ".join(f"{', '.join(found)}, {kind}: {why}" for (kind, why), found in alike.items())


@dataclass(frozen=True, slots=True)
class Evolution:
    """All differences of two contracts; `kind` is that of the worst."""

    kind: Kind
    changes: tuple[Change, ...]

    def at(self, border: Border) -> Kind:
        """What the change is to those who see the contract at `border`."""
        return worst(change.at(border) for change in self.changes)

    @property
    def misreadings(self) -> tuple[Change, ...]:
        """The changes by which rows of the old contract would be read wrongly."""
        return tuple(change for change in self.changes if change.misreads)

    def of(self, kind: Kind) -> tuple[Change, ...]:
        """The changes of one kind."""
        return tuple(change for change in self.changes if change.kind is kind)

    def as_dict(self) -> dict[str, object]:
        """The evolution as plain JSON."""
        borders = {str(border): str(self.at(border)) for border in Border}
        changes = [change.as_dict() for change in self.changes]
        return {"kind": str(self.kind), "borders": borders, "changes": changes}
