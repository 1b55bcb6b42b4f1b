"""A feed: a stream of batches of rows under one contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast.contract.batch.csv_format import Csv
from holdfast.contract.schema.columns import Integer
from holdfast.errors import InputError
from holdfast.feeds.expectations import Expectations
from holdfast.feeds.postgres_query import PostgresQuery
from holdfast.records import check_name

if TYPE_CHECKING:
    from holdfast.contract import Contract

_QUARANTINE: Final = "__quarantine"
_LONGEST: Final = 63 - len(_QUARANTINE)


@dataclass(frozen=True, slots=True)
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
        Feeds of one group enter a snapshot and are backed out together; None for a feed of its own.
    expects
        What each delivery is expected to be as a whole. A delivery that breaks an expectation is reported, makes the feed
        suspect, or is refused, by the level of the expectation.
    source
        The query that a load without a file runs; its $1 is the batch's id.

    Raises `InputError` HF106 on a name that cannot be used, and on an expectation of a column that the contract lacks.
    """

    name: str
    contract: Contract
    group: str | None = None
    missing_words: tuple[str, ...] = ("",)
    expects: Expectations = field(default_factory=Expectations)
    source: PostgresQuery | None = None
    csv: Csv = field(default_factory=Csv)
    headers: Mapping[str, str] = field(default_factory=dict)

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
        for problem in self._contradictions():
            raise InputError("HF106", f"feed {self.name!r}: {problem}")

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
        sequence = self.expects.sequence
        if sequence is not None and not isinstance(self.contract.column(sequence), Integer):
            yield f"the sequence {sequence!r} must be an Integer column"
        if self.expects.early_labels == "refuse" and self.contract.label is None:
            yield "it refuses early labels and its contract has no label"


def quarantine_table(feed: str) -> str:
    """Return the name of the table of the rows of `feed` that break its contract.

    >>> quarantine_table("flights")
    'flights__quarantine'
    """
    return feed + _QUARANTINE
