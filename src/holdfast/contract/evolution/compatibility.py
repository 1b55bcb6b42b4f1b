"""Every way in which two contracts can differ, and its effect on what was made under the old one (R92, R93).

Three parties see a contract. *Rows*: loaded rows were checked by the old one and are read under the new one, and
senders still deliver the old form. *Callers*: requests are still in the form of the old one. *Models*: a version
keeps the contract under which it was trained, alongside versions with the new one.

`Difference` is the only table. What it does not name is `OTHER`, and breaking: a difference is harmless only with a
stated reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final, Self


class Compatibility(StrEnum):
    """The precondition of a change."""

    COMPATIBLE = "compatible"  # none: valid data stays valid and keeps its meaning
    EXPAND_CONTRACT = (
        "expand_contract"  # senders, callers or models must follow; until then both forms are in use
    )
    BREAKING = "breaking"  # valid data is refused, or changes its meaning


def worst(kinds: Iterable[Compatibility]) -> Compatibility:
    """Return the worst of `kinds`; compatible if there is none.

    >>> worst([Compatibility.COMPATIBLE, Compatibility.BREAKING, Compatibility.EXPAND_CONTRACT])
    <Compatibility.BREAKING: 'breaking'>
    """
    return max(kinds, key=list(Compatibility).index, default=Compatibility.COMPATIBLE)


class Boundary(StrEnum):
    """A party that sees a contract."""

    ROWS = "rows"
    CALLERS = "callers"
    MODELS = "models"


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a difference at each boundary, and the reason.

    `misreads`: rows loaded under the old contract would be misinterpreted, or lack a required value. No consent can
    be given while such rows are live.
    """

    rows: Compatibility
    callers: Compatibility
    models: Compatibility
    why: str
    misreads: bool = False

    def at(self, boundary: Boundary) -> Compatibility:
        """Return the compatibility at one boundary."""
        found: Compatibility = getattr(self, boundary)
        return found


_OK: Final = Compatibility.COMPATIBLE
_EXPAND: Final = Compatibility.EXPAND_CONTRACT
_BREAK: Final = Compatibility.BREAKING

_WIDER: Final = Effect(_OK, _OK, _OK, "every valid row stays valid and keeps its meaning")
_NARROWER: Final = Effect(
    _BREAK, _BREAK, _OK, "valid rows are refused, and loaded rows may break the new contract"
)
_OTHER_MEANING: Final = "the same value gets another meaning, and the rows do not show it"
_RENAME: Final = (
    "rows, callers and models use the old name; expand and contract instead: add the new column as optional "
    "and let the old one be missing, fill both, move every reader and caller, then remove the old one"
)


class Difference(StrEnum):
    """A difference between two contracts, with its effect at every boundary."""

    effect: Effect

    def __new__(cls, text: str, effect: Effect) -> Self:
        """Return the member that is written as `text`."""
        found = str.__new__(cls, text)
        found._value_ = text
        found.effect = effect
        return found

    # fmt: off
    BOUND_WIDENED = "bound widened", _WIDER
    BOUND_NARROWED = "bound narrowed", _NARROWER
    WORDS_CHANGED = "known words changed", Effect(
        _OK, _OK, _OK, "any word is accepted; each version has its own encoding"
    )
    WORDS_ADDED = "allowed words added", _WIDER
    WORDS_REMOVED = "allowed words removed", _NARROWER
    UNSEEN_ALLOWED = "unseen words allowed", _WIDER
    UNSEEN_REFUSED = "unseen words refused", _NARROWER
    ALIAS_ADDED = "alias added", Effect(
        _OK, _OK, _OK, "a word that was refused or unknown is read as a known one, in rows that were loaded with it too"
    )
    ALIAS_REMOVED = "alias removed", Effect(
        _BREAK, _BREAK, _OK, "what senders and callers write so is refused, or another word; loaded rows keep theirs"
    )
    ALIAS_CHANGED = "alias stands for another word", Effect(_BREAK, _BREAK, _BREAK, _OTHER_MEANING, misreads=True)
    WORDS_MERGED = "word made an alias", Effect(
        _BREAK, _BREAK, _OK,
        "two words become one, in loaded rows too: what counts or compares words, such as slices and rules, changes for them",
    )
    LENGTH_RAISED = "maximum length raised", _WIDER
    LENGTH_LOWERED = "maximum length lowered", _NARROWER
    PATTERN_REMOVED = "pattern removed", _WIDER
    PATTERN_CHANGED = "pattern added or changed", Effect(
        _BREAK, _BREAK, _OK, "valid texts may be refused; comparing patterns does not show which"
    )
    MISSING_ALLOWED = "missing values allowed", _WIDER
    MISSING_REFUSED = "missing values refused", _NARROWER
    MISSING_FILLED = "missing values filled otherwise", Effect(
        _OK, _OK, _OK, "rows keep missing values; the replacement is part of each version"
    )
    LOCAL_TIMES_READ = "times without an offset read", _WIDER
    LOCAL_TIMES_REFUSED = "times without an offset refused", _NARROWER
    UNIT = "unit changed", Effect(_BREAK, _BREAK, _BREAK, _OTHER_MEANING, misreads=True)
    SEMANTIC = "meaning changed", Effect(_BREAK, _BREAK, _BREAK, _OTHER_MEANING, misreads=True)
    SEMANTIC_STATED = "meaning stated", Effect(
        _EXPAND, _EXPAND, _OK, "a source that declares another meaning is now refused; check senders and callers first"
    )
    SEMANTIC_DROPPED = "meaning no longer stated", Effect(_OK, _OK, _OK, "fewer guarantees; no valid row is refused")
    WINDOW = "window changed", Effect(_BREAK, _BREAK, _BREAK, _OTHER_MEANING, misreads=True)
    WINDOW_STATED = "window stated", Effect(
        _EXPAND, _EXPAND, _OK, "a source that declares another window is now refused; check senders and callers first"
    )
    WINDOW_DROPPED = "window no longer stated", Effect(_OK, _OK, _OK, "fewer guarantees; no valid row is refused")
    ZONE = "time zone changed", Effect(_BREAK, _BREAK, _BREAK, "the same timestamps have other hours and days in another zone")
    TYPE = "type changed", Effect(_BREAK, _BREAK, _BREAK, "values of the old type are refused", misreads=True)
    ADDED_OPTIONAL = "optional column added", Effect(
        _EXPAND, _OK, _OK,
        "a request may omit it, a delivery may not: let each sender add the column, with or without values, before "
        "or with the change; callers may send it when the rollout of a version that knows it has begun",
    )
    ADDED_REQUIRED = "required column added", Effect(
        _BREAK, _BREAK, _OK,
        'loaded rows, senders and callers lack it; expand and contract instead: add it with missing="keep", let senders '
        "and callers fill it, then require it",
        misreads=True,
    )
    REMOVED_OPTIONAL = "optional column removed", Effect(
        _EXPAND, _EXPAND, _OK, "a source that still sends it is refused; check senders and callers first"
    )
    REMOVED_REQUIRED = "required column removed", Effect(
        _BREAK, _BREAK, _BREAK,
        'all senders and callers send it and would be refused; expand and contract instead: make it missing="keep", let '
        "senders and callers omit it, then remove it",
    )
    RENAMED = "column renamed", Effect(_BREAK, _BREAK, _BREAK, _RENAME, misreads=True)
    REORDERED = "order changed", Effect(_OK, _OK, _OK, "columns are found by their names")
    KEY = "key changed", Effect(_BREAK, _OK, _BREAK, "the identity of rows changes", misreads=True)
    EVENT_TIME = "event time changed", Effect(_BREAK, _BREAK, _BREAK, "the time of a row changes", misreads=True)
    LABEL = "label changed", Effect(
        _BREAK, _OK, _BREAK, "the model predicts something else; give it another name", misreads=True
    )
    LABEL_DELAY = "label delay changed", Effect(
        _OK, _OK, _BREAK, "labels are known at another time, so models were trained on other rows"
    )
    SLICES = "slices changed", Effect(_OK, _OK, _OK, "rows are unchanged; quality is reported by other groups")
    RULE_ADDED = "rule added or changed", _NARROWER
    RULE_REMOVED = "rule removed", _WIDER
    UNIQUE_ADDED = "uniqueness added", Effect(_BREAK, _OK, _OK, "loaded batches may contain such rows twice")
    UNIQUE_REMOVED = "uniqueness removed", _WIDER
    OTHER = "changed in an unknown way", Effect(_BREAK, _BREAK, _BREAK, "no rule states that it is harmless", misreads=True)
    # fmt: on


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    `column` is the name of the column or rule, "" for the whole row; `before` and `after` are for
    display.
    """

    column: str
    what: Difference
    before: str
    after: str
    kind: Compatibility
    why: str

    def at(self, boundary: Boundary) -> Compatibility:
        """Return the compatibility of the change at `boundary`."""
        return self.what.effect.at(boundary)

    @property
    def misreads(self) -> bool:
        """Return True if live rows of the old contract would be misread; see `Effect`."""
        return self.what.effect.misreads

    @property
    def difference(self) -> str:
        """Return the change as text, without its effect."""
        subject = f"{self.column}: " if self.column else ""
        return f"{subject}{self.what} ({self.before} -> {self.after})"

    def __str__(self) -> str:
        return f"{self.difference}, {self.kind}: {self.why}"

    def as_dict(self) -> dict[str, object]:
        """Return the change as plain JSON."""
        return asdict(self) | {"boundaries": {boundary: self.at(boundary) for boundary in Boundary}}


def describe_changes(changes: Iterable[Change]) -> str:
    """Return all `changes` on one line; changes with the same effect share one explanation."""
    alike: dict[tuple[Compatibility, str], list[str]] = {}
    for change in changes:
        alike.setdefault((change.kind, change.why), []).append(change.difference)
    return "; ".join(f"{', '.join(found)}, {kind}: {why}" for (kind, why), found in alike.items())


@dataclass(frozen=True, slots=True)
class Evolution:
    """All differences of two contracts; `kind` is that of the worst."""

    kind: Compatibility
    changes: tuple[Change, ...]

    def at(self, boundary: Boundary) -> Compatibility:
        """Return the compatibility of all changes at `boundary`."""
        return worst(change.at(boundary) for change in self.changes)

    @property
    def misreadings(self) -> tuple[Change, ...]:
        """Return the changes by which rows of the old contract would be misread."""
        return tuple(change for change in self.changes if change.misreads)

    def of(self, kind: Compatibility) -> tuple[Change, ...]:
        """Return the changes of one kind."""
        return tuple(change for change in self.changes if change.kind is kind)

    def as_dict(self) -> dict[str, object]:
        """Return the evolution as plain JSON."""
        boundaries = {boundary: self.at(boundary) for boundary in Boundary}
        return {
            "kind": self.kind,
            "boundaries": boundaries,
            "changes": [change.as_dict() for change in self.changes],
        }
