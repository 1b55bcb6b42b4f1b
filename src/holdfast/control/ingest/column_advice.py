"""Refuse a delivery whose columns are not those of its contract, with what is probably meant and what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from holdfast.contract import Integer, Number
from holdfast.contract.batch.input_columns import ColumnsError
from holdfast.control.ingest.outcome import RefusalError
from holdfast.errors import InputError
from holdfast.feeds import Feed
from holdfast.feeds.csv_form import find_separator
from holdfast.feeds.schema_drift import RENAMED, changed_columns, likely_renames, shown_columns
from holdfast.records import BatchId, Level, Violation
from holdfast.store.sources import Source, parser

_MOST_NAMED: Final = 10
_LEAST_SHARE: Final = 0.5


class ForeignColumnsError(InputError):
    """A delivery has none of the columns of its feed."""


def refusal(error: InputError, feed: Feed, batch: BatchId, source: Source) -> RefusalError | None:
    """Return the refusal of a delivery that could not be parsed, `error`; None if its columns are not the cause."""
    if error.code in ("HF201", "HF202") and (other := _other_separator(feed, source)):
        broken = Violation("schema", "", Level.CRITICAL, other.what)
        return RefusalError(batch, feed.contract.hash, (broken,), other)
    if error.code != "HF202":
        return None
    columns = parser.columns(source, feed.contract, csv=feed.csv, headers=feed.headers)
    found = changed_columns(feed.contract, columns, feed.headers) or (
        Violation("schema", "", Level.CRITICAL, error.what),
    )
    renamed = likely_renames(feed.contract, columns, feed.headers)
    if columns and columns.keys().isdisjoint(feed.contract.names) and not _are_renamed(feed, renamed):
        foreign = _foreign(feed, source)
        broken = Violation("schema", "", Level.CRITICAL, foreign.what)
        return RefusalError(batch, feed.contract.hash, (broken,), foreign)
    return RefusalError(batch, feed.contract.hash, found, _with_advice(error, feed, renamed))


def find_feed(feeds: Sequence[Feed], source: Source) -> Feed | None:
    """Return the feed of `feeds` that most columns of a delivery are of; None if it has less than half of those of any."""
    best, most = None, _LEAST_SHARE
    for feed in feeds:
        columns = parser.columns(source, feed.contract, csv=feed.csv, headers=feed.headers)
        names = feed.contract.delivered_names(tuple(columns))
        share = len(columns.keys() & set(names)) / len(names)
        if share >= most and (best is None or share > most):
            best, most = feed, share
    return best


def _are_renamed(feed: Feed, renamed: Mapping[str, str]) -> bool:
    return len(renamed) >= _LEAST_SHARE * len(feed.contract.delivered_names(()))


def _foreign(feed: Feed, source: Source) -> ForeignColumnsError:
    name = source.name
    return ForeignColumnsError(
        "HF202",
        f"{name} has none of the columns of feed {feed.name!r}: is it of another feed, or without a header?",
        state="no row was read",
        next_command="load it for the feed that it is of; see holdfast feeds",
    )


def _other_separator(feed: Feed, source: Source) -> InputError | None:
    """Return the error of a file that is separated otherwise than its feed declares; None if it is not."""
    declared = feed.csv.separator
    known = parser.known_columns(source, feed.contract, feed.headers)
    other = find_separator(known, declared, len(feed.contract.delivered_names(())))
    if other is None:
        return None
    return InputError(
        "HF202",
        f"the separator of {source.name} is {_named(other)}; feed {feed.name!r} declares {_named(declared)}",
        state="no row was read",
        next_command=f"have the file written with {_named(declared)}; if the sender has changed for good, declare "
        f"csv=Csv(separator={other!r}, ...) of feed {feed.name!r}",
    )


def _named(separator: str) -> str:
    return "a tab" if separator == "\t" else repr(separator)


def _with_advice(error: InputError, feed: Feed, renamed: Mapping[str, str]) -> InputError:
    """Add to the message of `error` the headers and the likely new names of columns, and what to declare.

    `renamed` has the likely new name of each missing column.
    """
    shown, contract = shown_columns(feed.headers), feed.contract
    missing = error.missing if isinstance(error, ColumnsError) else ()
    headed = [name for name in missing if shown(name) and name not in renamed][:_MOST_NAMED]
    notes = [f"column {name!r}{shown(name)} is missing" for name in headed]
    notes += [
        f"column {name!r}{shown(name)} is missing; {RENAMED}{new!r} now, which is new"
        for name, new in renamed.items()
    ]
    what = f"{error.what} ({'; '.join(notes)})" if notes else error.what
    advice = error.next_command
    if renamed:
        pairs = ", ".join(f"{new!r}: {name!r}" for name, new in renamed.items())
        units = [
            f"{name} in {column.unit}"
            for name in renamed
            if isinstance(column := contract.column(name), (Number, Integer)) and column.unit != "1"
        ]
        advice = f"correct the source; if the sender renamed it for good, add {{{pairs}}} to headers= of feed {feed.name!r}"
        advice += f", if the unit is still the contract's: {', '.join(units)}" if units else ""
    elif headed:
        advice = f"correct the source, or headers= of feed {feed.name!r} if the source is right"
    elif contract.label is not None and what == f"missing: {contract.label.name}":
        declared = f'Label({contract.label.name!r}, ..., missing="keep")'
        advice = f"if labels come later, declare {declared} and a feed with labels_for={feed.name!r}"
    return InputError(error.code, what, state=error.state, next_command=advice)
