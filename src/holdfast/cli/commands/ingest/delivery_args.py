"""What stands after `ingest FEED` and `check FEED`: from words of the command line to deliveries with their ids."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Final

import typer

from holdfast.errors import InputError
from holdfast.feeds import Feed
from holdfast.feeds.postgres_query import BatchQuery
from holdfast.settings import Settings
from holdfast.store.sources import Bounded, Spec, deliveries

DATABASES: Final = ("postgresql://", "postgres://", "${")

Query = Annotated[
    str | None,
    typer.Option(
        "--query",
        help="A SELECT to ask the PostgreSQL that is named in the place of a file; $1 in it is the batch's id.",
        show_default="the feed's own source, where it declares one",
    ),
]


@dataclass(frozen=True, slots=True)
class Given:
    """One delivery: its id, where its rows are, and how it is shown to people."""

    batch: str
    source: Spec
    shown: str


def given(
    feed: Feed, words: Sequence[str], batch: str | None, query: str | None, settings: Settings
) -> tuple[Given, ...]:
    """The deliveries that the words name. With `batch` they are one, or else each file is one and is named after itself.

    Raises `InputError` HF101 when words and options do not fit together.
    """
    if query is not None or not words or words[0].startswith(DATABASES):
        return (_asked(feed, words, batch, query, settings),)
    if batch is None:
        files = [
            file for word in words for file in deliveries(word, deadline_seconds=settings.source_seconds)
        ]
        return tuple(Given(batch_id(file), _bounded(file, settings), file) for file in files)
    if len(words) > 1:
        raise _refused(
            f"--batch names one delivery, but {len(words)} files were given: quote a pattern, or name a directory"
        )
    return (Given(batch, _bounded(_only(words[0]), settings), words[0]),)


def _asked(
    feed: Feed, words: Sequence[str], batch: str | None, query: str | None, settings: Settings
) -> Given:
    if batch is None and (words or feed.source is not None):
        raise _refused(
            f"a batch of {feed.name} is read from a database: which one?",
            f"holdfast ingest {feed.name} --batch ID",
        )
    if batch is None:
        raise _refused(f"which file holds a batch of {feed.name}?", f"holdfast ingest {feed.name} FILE")
    if not words:
        if query is not None:
            raise _refused("--query needs the URL of a database, or ${env:NAME}, in the place of a file")
        if feed.source is None:
            raise _refused(
                f"which file holds batch {batch} of {feed.name}? The feed declares no source of its own"
            )
        return Given(batch, _bounded(feed.source.of(batch), settings), "the feed's query")
    if len(words) > 1 or query is None:
        raise _refused("a database is asked one --query for one --batch")
    return Given(batch, _bounded(BatchQuery(words[0], query, batch), settings), "the query")


def _bounded(spec: str | BatchQuery, settings: Settings) -> Bounded:
    return Bounded(spec, settings.source_seconds, settings.source_bytes)


def _only(word: str) -> str:
    """The one file that a pattern fits, so that it has the digest of that file; or the word as it is."""
    fitting = deliveries(word) if glob.has_magic(word) and "://" not in word else ()
    return fitting[0] if len(fitting) == 1 else word


def batch_id(name: str) -> str:
    """The id of a delivery that has none: its file's name, in the letters that an id may have.

    >>> batch_id("in/Flights 2013.01.csv"), batch_id("s3://bucket/in/day-5.jsonl")
    ('flights-2013-01', 'day-5')
    """
    return re.sub(r"[^a-z0-9_-]+", "-", PurePosixPath(name).stem.lower()).strip("-")[:63]


def _refused(what: str, next_command: str = "") -> InputError:
    return InputError("HF101", what, state="nothing was loaded", next_command=next_command)
