"""Check and load deliveries: check, ingest."""

from __future__ import annotations

import glob
import hashlib
import re
import shlex
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import typer

from holdfast.cli.app import command
from holdfast.cli.output import JUDGED, Output, escape
from holdfast.cli.project import Project, Run, misused, now_us, with_project
from holdfast.contract.batch.aliases import AliasCounts
from holdfast.control.executors.executor import open_executor
from holdfast.control.ingest import dry_run as checking
from holdfast.control.ingest.column_advice import ForeignColumnsError, find_feed
from holdfast.control.ingest.ingest import ingest_many
from holdfast.control.ingest.outcome import LoadResult
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.errors import HoldfastError, InputError
from holdfast.feeds import Feed
from holdfast.feeds.admission import REPEATED
from holdfast.feeds.postgres_query import BatchQuery
from holdfast.formatting import counted
from holdfast.monitor.drift import JUDGED as DRIFT_JUDGED
from holdfast.records import Level, Violation
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.feeds import violations
from holdfast.store.sources import Bounded, Spec, deliveries, open_source
from holdfast.store.sources.delivery import transcode_command

Files = Annotated[
    list[str] | None,
    typer.Argument(
        help="Parquet, CSV or JSON lines: files, directories, patterns such as 'in/*.csv', s3://bucket/prefix/; one batch "
        "each, or with --batch one in all. Or the URL of a PostgreSQL, with --query.",
        show_default="the feed's own source",
    ),
]

Query = Annotated[
    str | None,
    typer.Option(
        "--query",
        help="A SELECT for the PostgreSQL URL given instead of a file; $1 in it is the batch's id.",
        show_default="the feed's own source, where it declares one",
    ),
]
BatchName = Annotated[
    str | None,
    typer.Option("--batch", help="The sender's id of the delivery.", show_default="the file's name"),
]
ExpectRows = Annotated[
    int | None,
    typer.Option(
        "--expect-rows",
        help="The row count that the sender declared; a different count is refused.",
        show_default="the content of <file>.count, if there is one",
        min=0,
    ),
]

ExecutorName = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="Where files are read and checked: local, processes or ray.",
        show_default="HOLDFAST_EXECUTOR, else local",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="The Ray cluster, host:port or auto.",
        show_default="HOLDFAST_RAY_ADDRESS, else one on this machine for the time",
    ),
]

_DATABASES: Final = ("postgresql://", "postgres://", "${")
_SHOWN_ROWS = 5
_SHOWN_ALIASES: Final = 5
_LONGEST_ID: Final = 63
_PARTITION: Final = re.compile(r"[^=]+=[^=]+")


@dataclass(frozen=True, slots=True)
class DeliveryArg:
    """One delivery: its id, the source of its rows, and its name in messages."""

    batch: str
    source: Spec
    shown: str


@command("Rows")
@with_project
def check(
    run: Run,
    feed: Annotated[str | None, typer.Argument(help="Check a delivery against this feed's contract.")] = None,
    data: Annotated[
        str | None, typer.Argument(help="The delivery, as in `holdfast ingest FEED DATA`.")
    ] = None,
    batch: BatchName = None,
    query: Query = None,
    expect_rows: ExpectRows = None,
) -> None:
    """Check the declaration; with FEED and DATA also what loading would accept, report or refuse. Writes nothing.

    Exit status as of `holdfast ingest`: 1 if the delivery would be refused, or loaded as suspect; 2 if it cannot be read as
    rows of the feed.

    Example: holdfast check flights day-9.csv
    """
    model = run.model
    document: dict[str, object] = {
        "model": model.name,
        "contract": model.contract.hash,
        "feeds": [feed.name for feed in model.feeds],
        "features": len(model.features),
    }
    if feed is None:
        feeds, features = counted(len(model.feeds), "feed"), counted(len(model.features), "feature")
        run.out.print(f"[green]ok[/] model [bold]{model.name}[/]: {feeds}, {features}")
    else:
        target = run.project.feed(feed)
        if data is None and target.source is None:
            what = f"which file should be checked against {target.name}?"
            raise misused(what, f"holdfast check {target.name} DATA", state="")
        named = batch if batch is not None or data is None or query is not None else _batch_id(data)
        delivery = _parse(target, [] if data is None else [data], named, query, run.settings)[0]
        document |= _checked(run, target, delivery, expect_rows)
    run.out.result(document)
    if document.get("would_be") in ("refused", "suspect"):
        raise typer.Exit(JUDGED)


def _checked(run: Run, feed: Feed, delivery: DeliveryArg, expect_rows: int | None) -> dict[str, object]:
    out, data = run.out, delivery.shown
    with _history(run.project) as store:
        spec = DeliverySpec(delivery.batch, delivery.source, expect_rows)
        try:
            found = checking.check(store, feed, spec, now_us=now_us())
        except HoldfastError as error:
            _add_hints(error, delivery, is_named=True)
            raise
    if found.refusal is not None and not found.rows:
        _name_feed(found.refusal, run.model.feeds, delivery)
        unread = isinstance(found.refusal, InputError)
        judged = f"cannot be read as rows of {feed.name}" if unread else "would be refused"
        out.print(f"[red]{escape(str(data))}[/] {judged}")
        _print_violations(out, found.violations)
        raise found.refusal
    bad = found.rows - found.valid
    colour = "green" if not bad and found.level is None else "red" if found.refusal else "yellow"
    out.print(
        f"[{colour}]{escape(str(data))}[/]: {counted(found.rows, 'row')}, {found.valid:,} valid, {bad:,} for quarantine"
    )
    if found.already_loaded:
        out.print("this content is loaded already; loading it again changes nothing")
    if found.nothing_new:
        out.print("nothing new: every row is loaded already with the same values; loading it changes nothing")
    if found.reasons:
        reasons = [
            (reason, count, ", ".join(found.offending.get(reason, ())))
            for reason, count in sorted(found.reasons.items())
        ]
        out.table("Reasons", ["reason", "rows", "values such as"], reasons)
        shown = found.quarantined.head(_SHOWN_ROWS)
        columns = [name for name in (*feed.contract.key, "_reasons") if name in shown.columns]
        rows = [[_cell(value) for value in row] for row in shown.select(columns).rows()]
        out.table("The first quarantined rows", columns, rows)
    _print_aliases(out, feed, found.aliases)
    _print_violations(out, found.violations)
    _print_unjudged(out, found.drift)
    if found.refusal is not None:
        out.print(f"[red]it would be refused[/]: {found.refusal.code} {escape(found.refusal.what)}")
    elif found.level is Level.ERROR:
        out.print("[red]it would be loaded as suspect[/]: excluded from training until it is accepted")
    return {
        "rows": found.rows,
        "valid": found.valid,
        "quarantined": bad,
        "reasons": found.reasons,
        "offending": found.offending,
        "aliases": found.aliases,
        "violations": found.violations,
        "drift": found.drift,
        "would_be": found.outcome,
    }


@contextmanager
def _history(project: Project) -> Iterator[Store]:
    """Yield the project's store; if there is none, a temporary one, because a check creates nothing."""
    if project.settings.root.is_dir():
        yield project.store()
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-check-") as directory:
        store = Store.open(Path(directory))
        yield store
        store.ledger.close()


def _print_violations(out: Output, violations: Iterable[Violation]) -> None:
    """Print one line for each violation of an expectation."""
    for each in violations:
        about = f"{each.check} {each.subject}".strip()
        colour = "yellow" if each.level is Level.WARNING else "red"
        out.print(f"  [{colour}]{each.level}[/] [bold]{escape(about)}[/]: {escape(each.explanation)}")


def _print_unjudged(out: Output, drift: str) -> None:
    """Print why the newest delivery was not compared with the earlier ones; nothing if it was."""
    if drift not in ("", DRIFT_JUDGED):
        out.print(f"  drift: {drift}")


def _print_aliases(out: Output, feed: Feed, aliases: AliasCounts) -> None:
    """Print how many values were read as the word of an alias, the most frequent aliases first."""
    for name, counts in aliases.items():
        words = feed.contract.aliases[name]
        ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        listed = ", ".join(f"{n:,} {alias!r} as {words[alias]!r}" for alias, n in ranked[:_SHOWN_ALIASES])
        more = len(ranked) - _SHOWN_ALIASES
        out.print(f"  {name}: read {escape(listed)}{f', and {more} other aliases' if more > 0 else ''}")


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@command("Rows")
@with_project
def ingest(
    run: Run,
    feed: Annotated[str, typer.Argument(help="The feed that delivered the rows.")],
    files: Files = None,
    batch: BatchName = None,
    query: Query = None,
    expect_rows: ExpectRows = None,
    executor: ExecutorName = None,
    ray_address: RayAddress = None,
) -> None:
    """Load batches, each completely and exactly once, in order, checked by the feed's contract. Idempotent.

    Exit status 1 if a batch of these is suspect afterwards, until it is accepted or backed out.

    Example: holdfast ingest flights in/*.csv
    """
    target, settings, store = run.project.feed(feed), run.settings, run.acting_store
    deliveries = _parse(target, files or [], batch, query, settings)
    if expect_rows is not None and len(deliveries) > 1:
        what = f"--expect-rows counts one delivery, but {len(deliveries)} files were given"
        raise misused(what, "holdfast ingest --help", state="nothing was loaded")
    results: list[LoadResult] = []
    where = (executor or settings.executor, ray_address or settings.ray_address)
    with run.out.progress(f"loading {feed}") as step, closing(open_executor(*where)) as running:
        wanted = [DeliverySpec(each.batch, each.source, expect_rows) for each in deliveries]
        aggregates = run.model.aggregates
        try:
            for result in ingest_many(store, target, wanted, running, clock_us=now_us, aggregates=aggregates):
                results.append(result)
                step(len(results), len(deliveries))
        except HoldfastError as error:
            _add_hints(error, deliveries[len(results)], is_named=batch is not None)
            _name_feed(error, run.model.feeds, deliveries[len(results)])
            if len(deliveries) > 1:
                _add_file(error, deliveries, len(results))
            _print_loads(run.out, store, target, results)
            raise
    suspect = _print_loads(run.out, store, target, results)
    run.out.result({"batches": results, "suspect": suspect})
    if suspect:
        raise typer.Exit(JUDGED)


def _add_hints(error: HoldfastError, failed: DeliveryArg, *, is_named: bool) -> None:
    """Add to `error` what only the command knows: the path of the file, and that its name is the id."""
    name = PurePosixPath(failed.shown).name
    if error.next_command.startswith("iconv -f "):
        error.next_command = transcode_command(failed.shown, error.next_command.split()[2])
    if error.code == "HF203" and "other content" in error.what and not is_named:
        error.what += f"; without --batch its id is made of the name {name}"


def _name_feed(error: HoldfastError, feeds: Sequence[Feed], failed: DeliveryArg) -> None:
    """Add to the `error` of a file of another feed which one of `feeds` has its columns."""
    if not isinstance(error, ForeignColumnsError):
        return
    feed = find_feed(feeds, open_source(failed.source))
    shown = shlex.quote(failed.shown)
    if feed is None:
        error.next_command = f"holdfast ingest FEED {shown} for the feed that it is of; see holdfast feeds"
    else:
        error.what += f" Feed {feed.name!r} has its columns"
        error.next_command = f"holdfast ingest {feed.name} {shown}"


def _add_file(error: HoldfastError, deliveries: Sequence[DeliveryArg], done: int) -> None:
    """Add to `error`, of the delivery after `done` others, which file it is of and what became of each of the others."""
    failed = deliveries[done]
    if failed.shown not in error.what:
        error.what = f"{failed.shown}: {error.what}"
    parts = [
        f"of {failed.shown}: {error.state}" if error.state else "",
        f"loaded before it: {_listed(deliveries[:done])}" if done else "no file was before it",
        f"not tried: {_listed(deliveries[done + 1 :])}" if done + 1 < len(deliveries) else "",
    ]
    error.state = "; ".join(filter(None, parts))


def _listed(found: Sequence[DeliveryArg]) -> str:
    names = ", ".join(each.batch for each in found[:_SHOWN_ROWS])
    more = len(found) - _SHOWN_ROWS
    return f"{names} and {more} more" if more > 0 else names


def _print_loads(out: Output, store: Store, feed: Feed, results: Sequence[LoadResult]) -> list[str]:
    """Print a line for each load, and return the batches that are suspect."""
    with store.ledger.read() as connection:
        excluded = set(violations.suspect_batches(connection, feed.name))
    for result in results:
        _print_load(out, feed, result, is_suspect=result.batch in excluded)
    if results:
        _print_unjudged(out, results[-1].drift)
    return [result.batch for result in results if result.batch in excluded]


def _print_load(out: Output, feed: Feed, load: LoadResult, *, is_suspect: bool) -> None:
    if load.state == "nothing_new":
        out.print(
            f"[green]ok[/] {load.batch}: nothing new, {load.rows_received:,} known with the same values"
        )
        return
    faults = {why: n for why, n in load.reasons.items() if not why.endswith(f"|{REPEATED}")}
    repeated = sum(load.reasons.values()) - sum(faults.values())
    quarantined = load.rows_quarantined - repeated
    colour = "yellow" if quarantined > load.rows_loaded else "green"
    line = f"[{colour}]ok[/] {load.batch}: {counted(load.rows_loaded, 'row')}"
    if repeated:
        line += f", {repeated:,} sent again with the same values"
    if quarantined:
        line += f", [yellow]{quarantined:,} in quarantine[/]"
    if faults:
        line += ": " + ", ".join(f"{n:,} {escape(why)}" for why, n in sorted(faults.items()))
    out.print(line + (" (was loaded before)" if load.state == "already_loaded" else ""))
    _print_aliases(out, feed, load.aliases)
    _print_violations(out, load.violations)
    if is_suspect:
        out.print(
            f"  [red]suspect[/]: excluded from training; next: holdfast backout {load.feed} {load.batch}, "
            f"or holdfast accept {load.feed} {load.batch} --reason WHY"
        )


def _parse(
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
    if query is not None or not arguments or arguments[0].startswith(_DATABASES):
        return (_from_database(feed, arguments, batch, query, settings),)
    if batch is None:
        return _distinct(
            [
                DeliveryArg(
                    _batch_id(file, "" if file == argument else _base(argument)),
                    _bounded(file, settings),
                    file,
                )
                for argument in arguments
                for file in deliveries(argument, deadline_seconds=settings.source_seconds)
            ]
        )
    if len(arguments) > 1:
        raise _refused(
            f"--batch names one delivery, but {len(arguments)} files were given: quote a pattern, or name a directory"
        )
    return (DeliveryArg(batch, _bounded(_only(arguments[0]), settings), arguments[0]),)


def _from_database(
    feed: Feed, arguments: Sequence[str], batch: str | None, query: str | None, settings: Settings
) -> DeliveryArg:
    ingest = f"holdfast ingest {feed.name}"
    if batch is None and (arguments or feed.source is not None):
        raise _refused(f"a batch of {feed.name} is read from a database: which one?", f"{ingest} --batch ID")
    if batch is None:
        raise _refused(f"which file has a batch of {feed.name}?", f"{ingest} FILE")
    if not arguments:
        if query is not None:
            raise _refused("--query requires the URL of a database, or ${env:NAME}, instead of a file")
        if feed.source is None:
            what = f"which file has batch {batch} of {feed.name}? The feed declares no source of its own"
            raise _refused(what)
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


def _batch_id(name: str, base: str = "") -> str:
    """Return the id of a delivery without one: the part of its path that differs from others, as an id is written.

    That is the file's name, the folders between `base` and it, and every folder of a partition, such as "day=5". An id that
    lost letters of the name, or its end, has a hash of the whole name at its own end.

    >>> _batch_id("in/Flights 2013.01.csv"), _batch_id("s3://bucket/in/day-5.jsonl")
    ('flights-2013-01', 'day-5')
    >>> _batch_id("in/day=5/data.csv"), _batch_id("in/5/data.csv", "in/")
    ('day-5-data', '5-data')
    >>> _batch_id("été.csv"), _batch_id("北京.csv")
    ('ete', '68c77e15')
    """
    path = PurePosixPath(name)
    below = len(PurePosixPath(base).parts) if base and path.is_relative_to(base) else len(path.parts) - 1
    folders = [
        part for number, part in enumerate(path.parts[:-1]) if number >= below or _PARTITION.fullmatch(part)
    ]
    whole = "/".join([*folders, path.stem])
    plain = "".join(each for each in unicodedata.normalize("NFKD", whole) if not unicodedata.combining(each))
    found = re.sub(r"[^a-z0-9_-]+", "-", plain.lower()).strip("-_")
    if (
        len(found) <= _LONGEST_ID
        and found
        and not any(each.isalnum() and not each.isascii() for each in plain)
    ):
        return found
    digest = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{found[: _LONGEST_ID - 9]}-{digest}".strip("-_")


def _base(argument: str) -> str:
    """Return the folder that a directory, a pattern or a prefix names before its first wildcard.

    >>> _base("in/*/x.csv"), _base("in/")
    ('in', 'in')
    """
    parts = PurePosixPath(argument).parts
    fixed = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return str(PurePosixPath(*parts[:fixed]))


def _distinct(found: Sequence[DeliveryArg]) -> tuple[DeliveryArg, ...]:
    """Return `found`; `InputError` HF101 if two of them would be one batch, before anything is loaded."""
    first: dict[str, str] = {}
    for each in found:
        other = first.setdefault(each.batch, each.shown)
        if other != each.shown:
            raise _refused(
                f"{other} and {each.shown} would both be batch {each.batch}: load each with an id of its own, --batch ID"
            )
    return tuple(found)


def _refused(what: str, next_command: str = "") -> InputError:
    return misused(what, next_command, state="nothing was loaded")
