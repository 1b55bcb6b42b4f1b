"""A feed: a stream of batches of rows under one contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from holdfast.contract.batch.csv_format import Csv
from holdfast.contract.schema.columns import Integer, Timestamp
from holdfast.errors import InputError
from holdfast.feeds.expectations import Expectations
from holdfast.feeds.groups import FeedGroup
from holdfast.feeds.postgres_query import PostgresQuery
from holdfast.field_types import checked
from holdfast.records import check_name, duration

if TYPE_CHECKING:
    from holdfast.contract import Contract

PREDICTION_ID: Final = "prediction_id"
"""The key of a label feed whose labels name a prediction instead of a row."""
_QUARANTINE: Final = "__quarantine"
_LONGEST: Final = 63 - len(_QUARANTINE)


@dataclass(frozen=True, slots=True)
@checked()
class Feed:
    """A stream of batches, and what each row and each delivery of it must be.

    Parameters
    ----------
    name
        1 to 51 of a-z, 0-9, '_' and '-'; also the name of the table that the feed's rows make up.
    contract
        What a row is. Rows that break it go to the quarantine table with their reasons: every value there is text as
        delivered, and a line without the header's number of fields is in `_line`.
    missing_words
        Texts that mean a missing value in a CSV delivery; by default the empty text alone. Typed deliveries and requests
        use null.
    csv
        The form of CSV deliveries: separator, decimal sign, dates, and the words of booleans.
    headers
        The contract's name of a column by the name that a delivery has for it, in files and queries of every kind. A column
        without an entry is delivered under the contract's name.
    group
        Feeds of one group enter a snapshot and are backed out together, period by period; None for a feed of its own.
        Their batches belong together by period, whatever their ids are. What waits for other feeds of the group is in no
        online value.
    expects
        What each delivery is expected to be as a whole. A delivery that breaks an expectation is reported, makes the feed
        suspect, or is refused, by the level of the expectation.
    source
        The query that a load without a file runs; its $1 is the batch's id.
    labels_for
        The feed whose rows this feed labels, when labels become known later than their rows; None for any other feed. The
        event time of a row is then the time at which its label became known, and the key is the key of the labelled row, or
        the text `prediction_id`, and the event time. So a correction is a row of its own.
    corrections
        Which of several labels of one row counts: "latest" (default), the latest that was known, or "first", which no later
        label changes. Every label is kept.
    period
        How much event time a delivery of the group covers, such as "1d" or "6h", in the time zone of the event time. By
        default the interval that is expected of the feed, else "1d". The longest of a group counts.

    Raises `InputError` HF106 on a name that cannot be used, on an expectation of a column that the contract lacks, and on a
    label feed without a key to join by.
    """

    name: str
    contract: Contract
    group: str | None = None
    missing_words: tuple[str, ...] = ("",)
    expects: Expectations = field(default_factory=Expectations)
    source: PostgresQuery | None = None
    csv: Csv = field(default_factory=Csv)
    headers: Mapping[str, str] = field(default_factory=dict)
    labels_for: str | None = None
    corrections: Literal["latest", "first"] = "latest"
    period: timedelta | str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "feed")
        if len(self.name) > _LONGEST or self.name.endswith(_QUARANTINE):
            raise InputError(
                "HF106",
                f"{self.name!r} cannot name a feed: at most {_LONGEST} characters, not ending in {_QUARANTINE!r}",
            )
        words: object = self.missing_words
        if not isinstance(words, (tuple, list)) or not all(isinstance(word, str) for word in words):
            raise InputError(
                "HF106",
                f"feed {self.name!r}: missing_words is a tuple of texts such as ('', 'NA'), not {words!r}",
            )
        object.__setattr__(self, "missing_words", tuple(words))
        if self.group is not None:
            check_name(self.group, "group of feeds")
        if self.period is not None and duration(self.period, "period") <= timedelta(0):
            raise InputError("HF106", f"feed {self.name!r}: the period must be positive, not {self.period!r}")
        for problem in self._contradictions():
            raise InputError("HF106", f"feed {self.name!r}: {problem}")

    @property
    def label_key(self) -> tuple[str, ...]:
        """Return the columns of a label feed that name the labelled row: its key without the event time."""
        return tuple(name for name in self.contract.key if name != self.contract.event_time)

    @property
    def membership(self) -> FeedGroup | None:
        """Return the group of the feed with its period; None for a feed of its own."""
        if self.group is None:
            return None
        period = self.expects.interval if self.period is None else self.period
        length = timedelta(days=1) if period is None else duration(period)
        column = self.contract.column(self.contract.event_time)
        zone = column.tz if isinstance(column, Timestamp) else "UTC"
        return FeedGroup(self.group, length // timedelta(microseconds=1), zone)

    def _contradictions(self) -> Iterator[str]:
        """Yield the names and expectations that do not fit the contract."""
        for header, name in self.headers.items():
            if name not in self.contract.names:
                yield f"headers maps {header!r} to {name!r}, which its contract does not have"
        names = list(self.headers.values())
        yield from (
            f"headers maps several columns to {name!r}"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        )
        for name in self.expects.columns:
            if name not in self.contract.names:
                yield f"its expectations name the column {name!r}, which its contract does not have"
        yield from self._alias_contradictions()
        sequence = self.expects.sequence
        if sequence is not None and not isinstance(self.contract.column(sequence), Integer):
            yield f"the sequence {sequence!r} must be an Integer column"
        if self.expects.early_labels == "refuse" and self.contract.label is None:
            yield "it refuses early labels and its contract has no label"
        if self.corrections not in ("latest", "first"):
            yield f"corrections is 'latest' or 'first', not {self.corrections!r}"
        if self.labels_for is not None:
            yield from self._label_contradictions()

    def _alias_contradictions(self) -> Iterator[str]:
        """Yield the places that name an alias where only its word can be met."""
        for name, words in self.contract.aliases.items():
            for alias in words.keys() & set(self.missing_words):
                yield f"missing_words has {alias!r}, an alias of {words[alias]!r} in {name!r}"
            for each in self.expects.composition:
                for alias in words.keys() & {*each.at_most, *each.at_least} if each.column == name else ():
                    yield f"the composition of {name!r} names {alias!r}, an alias of {words[alias]!r}"

    def _label_contradictions(self) -> Iterator[str]:
        check_name(self.labels_for or "", "feed")
        time, keys = (
            self.contract.event_time,
            ", ".join(map(repr, (*self.label_key, self.contract.event_time))),
        )
        if self.labels_for == self.name:
            yield "it cannot label its own rows"
        if not self.label_key:
            yield f"its key is {time!r} alone; a label feed also needs the key of the labelled row, or 'prediction_id'"
        elif time not in self.contract.key:
            yield (
                f"a corrected label would be a duplicate key; declare key=({keys}), with {time!r} as the time at which a "
                f"label became known"
            )
        if PREDICTION_ID in self.label_key and self.label_key != (PREDICTION_ID,):
            yield f"it joins by {PREDICTION_ID!r} or by the key of the labelled row, not by both"


def quarantine_table(feed: str) -> str:
    """Return the name of the table of the rows of `feed` that break its contract.

    >>> quarantine_table("flights")
    'flights__quarantine'
    """
    return feed + _QUARANTINE
