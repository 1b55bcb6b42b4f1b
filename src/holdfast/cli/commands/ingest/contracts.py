"""Show and change contracts: contract show, diff, history, accept, suggest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

import polars as pl
import typer

from holdfast.cli.app import command_group
from holdfast.cli.output import JUDGED, Output, escape, escape_lines
from holdfast.cli.project import MODEL_FILE, Project, Run, misused, now_us, with_directory, with_project
from holdfast.contract import Column, Contract, Timestamp
from holdfast.contract.evolution.compatibility import Compatibility, Evolution
from holdfast.contract.evolution.diff import compare
from holdfast.contract.profile import infer_contract as suggesting
from holdfast.contract.schema.source_metadata import ColumnFacts
from holdfast.control.ingest import contract_changes as changing
from holdfast.errors import InputError, NotFoundError
from holdfast.feeds import Feed
from holdfast.formatting import counted, timestamp
from holdfast.store import Store
from holdfast.store.catalog import batches, name_lookup
from holdfast.store.feeds import contracts
from holdfast.store.files import blobs, data_files
from holdfast.store.models import versions
from holdfast.store.sources import open_source
from holdfast.store.sources.infer_types import look
from holdfast.train.artifact import read_metadata

_VERSION: Final = re.compile(r"v[0-9]+(-[0-9a-f]*)?")
_HASH: Final = re.compile(r"[0-9a-f]{6,64}")
_COLOURS: Final = {
    Compatibility.COMPATIBLE: "green",
    Compatibility.EXPAND_CONTRACT: "yellow",
    Compatibility.BREAKING: "red",
}

REFERENCE: Final = (
    "a hash from `contract history`, a version such as v3, the name of a feed (what it was loaded under last), a declaration "
    "such as model.py or model.py:FEED, or a contract's JSON file"
)

group = command_group("contract", "Rows", "Contracts of rows: show, compare, accept a change, suggest.")


@group.command()
@with_directory
def show(
    run: Run, which: Annotated[str, typer.Argument(help=f"Which contract: {REFERENCE}.")] = MODEL_FILE
) -> None:
    """Show a contract, column by column, with its hash.

    Example: holdfast contract show
    """
    found = _contract_of(run, which)
    run.out.print(
        f"contract [bold]{found.hash[:12]}[/], key {' + '.join(found.key)}, event time {found.event_time}"
    )
    lines = [(column.name, _describe(column)) for column in found.columns]
    run.out.table("Columns", ["column", "type"], lines)
    run.out.result({"hash": found.hash, "contract": found.to_json()})


@group.command()
@with_directory
def diff(
    run: Run,
    old: Annotated[str, typer.Argument(help=f"The older contract: {REFERENCE}.")],
    new: Annotated[
        str | None,
        typer.Argument(
            help="The newer contract, named in the same way.", show_default="what is declared now"
        ),
    ] = None,
) -> None:
    """Compare two contracts and show what the change breaks. Exit status 1 if it breaks anything.

    Example: holdfast contract diff flights
    """
    before = _contract_of(run, old)
    if not new:
        # What is declared now: the feed's contract for a feed, else the model's.
        feeds = [feed.name for feed in run.model.feeds]
        new = f"{MODEL_FILE}:{old}" if old in feeds else MODEL_FILE
    after = _contract_of(run, new)
    evolution = compare(before, after)
    _print(run.out, before, after, evolution)
    run.out.result({"old": before.hash, "new": after.hash, **evolution.as_dict()})
    if evolution.kind is Compatibility.BREAKING:
        raise typer.Exit(JUDGED)


@group.command()
@with_directory
def history(
    run: Run, feed: Annotated[str | None, typer.Argument(help="List only this feed.")] = None
) -> None:
    """List the contracts under which rows were loaded, by feed, and how each differs from the one before.

    Example: holdfast contract history flights
    """
    with Store.of(run.settings).ledger.read() as connection:
        uses = contracts.uses(connection, feed)
        stored = {row.contract_hash: row for row in contracts.everything(connection)}
    lines = []
    for before, use in zip([None, *uses], uses, strict=False):
        follows = before is not None and before.feed == use.feed
        one, other = (stored.get(before.contract_hash) if before else None), stored.get(use.contract_hash)
        kind = "-" if not follows else "not stored"
        if follows and one and other:
            kind = str(
                compare(Contract.from_json(one.contract_json), Contract.from_json(other.contract_json)).kind
            )
        since = timestamp(other.first_used_at_us if other else None)
        lines.append((use.feed, use.contract_hash[:12], since, use.batches, use.rows_loaded, kind))
    heads = ("feed", "contract", "first used", "batches", "rows", "change")
    run.out.table("Contracts", heads, lines)
    run.out.result({"contracts": [dict(zip(heads, line, strict=True)) for line in lines]})


@group.command()
@with_project
def accept(
    run: Run,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; recorded in the ledger with every difference.")
    ],
    feed: Annotated[str | None, typer.Argument(help="The feed whose contract changes.")] = None,
    model: Annotated[
        bool,
        typer.Option(
            "--model", help="Accept the model's own contract, from its champion's to the declared one."
        ),
    ] = False,
) -> None:
    """Accept a contract change that others have to follow, or that breaks what is loaded.

    Without a change to accept it changes nothing.

    Example: holdfast contract accept flights --reason "the sender switches on Monday"
    """
    if model == (feed is not None):
        raise misused("name either a feed or --model", "holdfast contract --help")
    store, actor = run.store, run.actor
    try:
        if feed is not None:
            change = changing.accept(
                store, run.project.feed(feed), reason=reason, actor=actor, now_us=now_us()
            )
        else:
            change = changing.accept_for_callers(
                store, run.model, reason=reason, actor=actor, now_us=now_us()
            )
    except NotFoundError as error:
        if error.code != "HF410":
            raise
        run.out.print(f"nothing was changed: {escape(error.what)}")
        run.out.result({"subject": feed or run.model.name, "old": None, "new": None, "actor": actor})
        return
    run.out.print(f"[green]ok[/] accepted by {escape(actor)}: {escape(change.explanation)}")
    run.out.result(
        {"subject": change.feed, "old": change.before, "new": change.after, "actor": actor, "reason": reason}
    )


@group.command()
@with_project
def suggest(
    run: Run,
    data: Annotated[
        str | None, typer.Argument(help="The rows: a file, a directory, a pattern, a URL.")
    ] = None,
    feed: Annotated[
        str | None,
        typer.Option("--feed", help="Compare with this feed's contract; without DATA, read its loaded rows."),
    ] = None,
    key: Annotated[list[str] | None, typer.Option("--key", help="A column of the key.")] = None,
    event_time: Annotated[
        str | None, typer.Option("--event-time", help="The column of the event time.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="The true-or-false column to predict.")] = None,
    zone: Annotated[
        str | None,
        typer.Option(
            "--tz",
            help="The time zone of timestamps without one.",
            show_default="what the feed declares, else UTC",
        ),
    ] = None,
) -> None:
    """Suggest a contract from rows, with the evidence for each line. Writes nothing.

    Example: holdfast contract suggest day-1.csv
    """
    present = None if feed is None else run.project.feed(feed)
    frame, facts = _rows(run, data, present)
    if present is not None:
        declared = present.contract
        key, event_time = key or list(declared.key), event_time or declared.event_time
        label = label or (declared.label.name if declared.label else None)
    times = {}
    if present is not None and zone is None:
        times = {each.name: each for each in present.contract.columns if isinstance(each, Timestamp)}
    for name in (*(key or ()), *filter(None, (event_time, label))):
        if name not in frame.columns:
            known = ", ".join(frame.columns)
            raise misused(f"there is no column {name!r}; there are {known}", "holdfast contract show")
    found = suggesting.suggest_contract(
        frame, zone=zone or "UTC", facts=facts, times=times, key=key or (), event_time=event_time, label=label
    )
    run.out.print(escape_lines(found.python()))
    for note in found.notes:
        run.out.print(f"[dim]{escape(note)}[/]")
    for question in found.unknown:
        run.out.print(f"[yellow]unknown from rows[/] {escape(question)}")
    evolution = None
    if present is not None and found.contract is not None:
        evolution = compare(present.contract, found.contract)
        _print(run.out, present.contract, found.contract, evolution)
    run.out.result(
        {
            "python": found.python(),
            "rows": frame.height,
            "columns": [
                {"line": each.line, "why": each.why, "unknown": each.unknown} for each in found.columns
            ],
            "notes": found.notes,
            "unknown": found.unknown,
            "contract": found.contract.to_json() if found.contract else None,
            "difference": evolution.as_dict() if evolution else None,
        }
    )


def _rows(run: Run, data: str | None, feed: Feed | None) -> tuple[pl.DataFrame, dict[str, ColumnFacts]]:
    if data is not None:
        source = open_source(data)
        if feed is None:
            return look(source, missing_words=("", "NA"))
        frame, facts = look(source, missing_words=feed.missing_words, csv=feed.csv)
        named = {header: name for header, name in feed.headers.items() if header in frame.columns}
        return frame.rename(named), {named.get(header, header): fact for header, fact in facts.items()}
    if feed is None:
        raise misused("which rows? name DATA or --feed", "holdfast contract --help")
    with run.store.ledger.read() as connection:
        version = batches.current_version(connection)
    frame = data_files.read_rows(run.store, version, feed.name)
    if frame.is_empty():
        raise NotFoundError(
            "HF410",
            f"feed {feed.name!r} has no rows yet",
            state="nothing was changed",
            next_command=f"holdfast ingest {feed.name} <file>",
        )
    # Loaded rows have lost units, semantics and windows; only the contract has them.
    facts = {column.name: ColumnFacts.of(column) for column in feed.contract.columns}
    return frame, facts


def _contract_of(run: Run, which: str) -> Contract:
    """Return the contract that `which` names; see `REFERENCE`. Raises `NotFoundError` HF303 if there is none."""
    path, _, feed = which.partition(":")
    if path.endswith(".py"):
        loaded = Project.load(run.directory, Path(path))
        return loaded.feed(feed).contract if feed else loaded.model.contract
    if which.endswith(".json"):
        try:
            return Contract.from_json((run.directory / which).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            what = f"{run.directory / which} cannot be read: {error}"
            raise InputError("HF201", what, state="nothing was changed") from error
    store = Store.of(run.settings)
    with store.ledger.read() as connection:
        newest = contracts.newest_of(connection, which)
        found = None if newest is None else contracts.find(connection, newest)
        if found is not None:
            return found
        if _HASH.fullmatch(which):
            return contracts.get(connection, which)
    if _VERSION.fullmatch(which):
        with store.ledger.read() as connection:
            version = versions.get(connection, name_lookup.version(connection, which))
        return Contract.from_json(read_metadata(blobs.get(store.root, version.digest)).contract_json)
    raise NotFoundError(
        "HF303",
        f"there is no contract {which!r}; it can be {REFERENCE}",
        state="nothing was changed",
        next_command="holdfast contract history",
    )


def _print(out: Output, before: Contract, after: Contract, evolution: Evolution) -> None:
    colour = _COLOURS[evolution.kind]
    summary = counted(len(evolution.changes), "change") if evolution.changes else "no change"
    out.print(f"{before.hash[:12]} -> {after.hash[:12]}: [{colour}]{evolution.kind}[/], {summary}")
    for change in evolution.changes:
        subject = f"[bold]{escape(change.column)}[/] " if change.column else ""
        values = escape(f"{change.before} -> {change.after}")
        out.print(f"  [{_COLOURS[change.kind]}]{change.kind}[/] {subject}{change.what}: {values}")
        out.print(f"    {escape(change.why)}")


def _describe(column: Column) -> str:
    facts = [f"{name}={getattr(column, name)!r}" for name in column.__slots__ if name != "name"]
    return f"{type(column).__name__}({', '.join(facts)})"
