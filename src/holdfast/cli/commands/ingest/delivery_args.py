"""Turn the arguments after `ingest FEED` and `check FEED` into deliveries with their ids."""

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
        help="A SELECT for the PostgreSQL URL given instead of a file; $1 in it is the batch's id.",
        show_default="the feed's own source, where it declares one",
    ),
]


@dataclass(frozen=True, slots=True)
class DeliveryArg:
    """One delivery: its id, the source of its rows, and its name in messages."""

    batch: str
    source: Spec
    shown: str


def parse(
    feed: Feed, arguments: Sequence[str], batch: str | None, query: str | None, settings: Settings
) -> tuple[DeliveryArg, ...]:
    """Return the deliveries that the arguments name. With `batch` they are one, else each file is one, named after itself.

    Parameters
    ----------
    feed
        The feed that delivers.
    arguments
        Files, directories, patterns or one URL of a database; none for the feed's own source.
    batch
        The id of the delivery.
    query
        The SELECT for a database.
    settings
        Bounds of the source: seconds and bytes.

    Raises `InputError` HF101 if arguments and options do not fit together.
    """
    if query is not None or not arguments or arguments[0].startswith(DATABASES):
        return (_from_database(feed, arguments, batch, query, settings),)
    if batch is None:
        files = [
            file
            for argument in arguments
            for file in deliveries(argument, deadline_seconds=settings.source_seconds)
        ]
        return tuple(DeliveryArg(batch_id(file), _bounded(file, settings), file) for file in files)
    if len(arguments) > 1:
        raise _refused(
            f"--batch names one delivery, but {len(arguments)} files were given: quote a pattern, or name a directory"
        )
    return (DeliveryArg(batch, _bounded(_only(arguments[0]), settings), arguments[0]),)


def _from_database(
    feed: Feed, arguments: Sequence[str], batch: str | None, query: str | None, settings: Settings
) -> DeliveryArg:
    if batch is None and (arguments or feed.source is not None):
        raise _refused(
            f"a batch of {feed.name} is read from a database: which one?",
            f"holdfast ingest {feed.name} --batch ID",
        )
    if batch is None:
        raise _refused(f"which file has a batch of {feed.name}?", f"holdfast ingest {feed.name} FILE")
    if not arguments:
        if query is not None:
            raise _refused("--query requires the URL of a database, or ${env:NAME}, instead of a file")
        if feed.source is None:
            raise _refused(
                f"which file has batch {batch} of {feed.name}? The feed declares no source of its own"
            )
        return DeliveryArg(batch, _bounded(feed.source.of(batch), settings), "the feed's query")
    if len(arguments) > 1 or query is None:
        raise _refused("a database takes one --query for one --batch")
    return DeliveryArg(batch, _bounded(BatchQuery(arguments[0], query, batch), settings), "the query")


def _bounded(spec: str | BatchQuery, settings: Settings) -> Bounded:
    return Bounded(spec, settings.source_seconds, settings.source_bytes)


def _only(argument: str) -> str:
    """Return the one file that a pattern matches, so that it has that file's digest; else the argument."""
    matching = deliveries(argument) if glob.has_magic(argument) and "://" not in argument else ()
    return matching[0] if len(matching) == 1 else argument


def batch_id(name: str) -> str:
    """Return the id of a delivery without one: its file's name, in the characters that an id may have.

    >>> batch_id("in/Flights 2013.01.csv"), batch_id("s3://bucket/in/day-5.jsonl")
    ('flights-2013-01', 'day-5')
    """
    return re.sub(r"[^a-z0-9_-]+", "-", PurePosixPath(name).stem.lower()).strip("-")[:63]


def _refused(what: str, next_command: str = "") -> InputError:
    return InputError("HF101", what, state="nothing was loaded", next_command=next_command)
