"""Commands for what feeds delivered: feeds, accept, quarantine."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory, Limit
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.ingest import acceptance as accepting
from holdfast.control.ingest import feed_status as standing
from holdfast.errors import InputError, NotFoundError
from holdfast.feeds import batch_id
from holdfast.feeds.state_machine import State
from holdfast.formatting import counted, moment
from holdfast.records import BatchId, Level
from holdfast.store import Store
from holdfast.store.catalog import recent
from holdfast.store.feeds import quarantine as kept_apart

_COLOURS = {State.FLOWING: "green", State.SUSPECT: "red", State.REFUSING: "yellow", None: "dim"}
_LEVELS = {Level.WARNING: "yellow", Level.ERROR: "red", Level.CRITICAL: "bold red"}
_SHOWN = 12
_LONGEST_VALUE = 40


@command("Rows")
def feeds(
    feed: Annotated[
        str | None, typer.Argument(help="One feed, with what is wrong with it.", show_default="all")
    ] = None,
    the_batches: Annotated[
        bool, typer.Option("--batches", help="List the loaded batches instead, the newest load first.")
    ] = False,
    limit: Limit = 20,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Show each feed: its state, what is loaded, what is overdue, and which expectations deliveries broke.

    Example, to find the batch of a bad day: holdfast feeds flights --batches
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    if the_batches:
        _list_batches(report, loaded, feed, limit)
        return
    found = standing.of_model(loaded.store(), loaded.model.feeds, now_us=now_us())
    if feed is not None:
        found = tuple(each for each in found if each.feed == feed)
        if not found:
            raise NotFoundError("HF303", f"no feed is called {feed!r}", next_command="holdfast feeds")
    report.table(
        "Feeds",
        ["feed", "state", "batches", "rows", "bad rows", "newest event"],
        [
            (
                each.feed,
                each.state or "no batch",
                each.totals.batches if each.totals else 0,
                each.totals.rows_loaded if each.totals else 0,
                each.totals.rows_quarantined if each.totals else 0,
                _minute(each.totals.event_time_max_us if each.totals else None),
            )
            for each in found
        ],
    )
    for each in found:
        if each.overdue_us is not None:
            report.say(f"[yellow]overdue[/] {each.feed}: its next batch, by {_hours(each.overdue_us)}")
        if any(each.counts.values()):
            told = ", ".join(f"{count} {level}" for level, count in each.counts.items() if count)
            report.say(f"[yellow]violations[/] {each.feed}: {told}; holdfast feeds {each.feed} tells them")
        if each.state not in (None, State.FLOWING):
            report.say(
                f"[{_COLOURS[each.state]}]{each.state}[/] {each.feed} since {moment(each.changed_at_us)}: {escape(each.reason)}"
            )
        if each.adopted:
            report.say(
                f"[red]known again from files[/] {each.feed}: {counted(len(each.adopted), 'load')}; "
                "what was found wrong with them is not known"
            )
            report.say(f"  next: holdfast accept {each.feed} --all --reason WHY")
        for batch in sorted(set(each.suspect) - set(each.adopted)):
            report.say(
                f"  next: holdfast backout {each.feed} {batch}, or holdfast accept {each.feed} {batch}"
            )
        _say_incomplete(report, each)
        if feed is not None:
            _say_violations(report, each)
    report.result({"feeds": [asdict(each) for each in found]})


def _list_batches(report: Report, project: Project, feed: str | None, limit: int) -> None:
    store = project.store()
    found = recent.loaded(store, feed, limit=limit)
    if feed is not None and not found.rows:
        project.feed(feed)  # a feed that was declared once may have batches; one that never was has neither
    report.table(
        "Loaded batches, the newest load first",
        ["feed", "batch", "rows", "bad rows", "first event", "newest event", "loaded"],
        [
            (
                row.feed,
                row.batch,
                row.rows_loaded,
                row.rows_quarantined,
                _minute(row.event_time_min_us),
                _minute(row.event_time_max_us),
                _minute(row.loaded_at_us),
            )
            for row in found.rows
        ],
    )
    if found.older:
        report.say(f"[dim]and {found.older:,} older; --limit shows more[/]")
    if found.rows:
        report.say("next: holdfast backout FEED BATCH shows what it would take to remove one")
    report.result({"batches": [asdict(row) for row in found.rows], "older": found.older})


def _say_incomplete(report: Report, status: standing.FeedStatus) -> None:
    if status.waiting:
        left = ", ".join(status.waiting[:_SHOWN]) + (", ..." if len(status.waiting) > _SHOWN else "")
        report.say(
            f"[yellow]held back[/] {status.feed}: {escape(left)}; {len(status.waiting):,} in all, until the rest of the group "
            "delivers"
        )
        report.say(
            f"  next: load them of the other feeds; if they never come, "
            f"holdfast accept {status.feed} {status.waiting[0]} --incomplete --reason WHY"
        )
    if status.alone:
        report.say(
            f"[yellow]let in without the rest of the group[/] {status.feed}: {escape(', '.join(status.alone))}"
        )


def _say_violations(report: Report, status: standing.FeedStatus) -> None:
    for row in status.open[:_SHOWN]:
        what = "refused" if row.epoch is None else "loaded"
        about = f"{row.check_name} {row.subject}".strip()
        report.say(
            f"  [{_LEVELS[row.level]}]{row.level}[/] {row.batch} ({what}) {escape(about)}: {escape(row.explanation)}"
        )


@command("Rows")
def accept(
    feed: Annotated[str, typer.Argument(help="The feed that delivered the batch.")],
    batch: Annotated[str | None, typer.Argument(help="The batch.", show_default="none, with --all")] = None,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why it is meant to be so; kept in the ledger.")],
    everything: Annotated[
        bool,
        typer.Option("--all", help="Every batch of the feed that repair-ledger made known again."),
    ] = False,
    incomplete: Annotated[
        bool,
        typer.Option("--incomplete", help="Of a batch held back: let it in without the rest of its group."),
    ] = False,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Say of a suspect batch that it is meant to be so, so that models may learn from it. Of a delivery that was refused it
    only settles the refusal.

    With --incomplete, say of a batch that waits for other feeds of its group that they will never deliver it. With --all,
    say of every batch that was made known again from its files that it may be used, although what was found wrong with it
    is not known any more.
    """
    report = Report(as_json=as_json)
    if not reason.strip():
        raise InputError(
            "HF101",
            "an acceptance needs a reason",
            state="nothing was changed",
            next_command="holdfast accept --help",
        )
    if (batch is None) != everything or (everything and incomplete):
        raise InputError(
            "HF101",
            "accept takes either one batch, or --all and nothing else",
            state="nothing was changed",
            next_command="holdfast accept --help",
        )
    loaded = Project.load(project, declaration)
    store = loaded.store()
    if batch is None:
        _accept_all(report, store, loaded.feed(feed).name, reason)
        return
    if incomplete:
        _let_in(report, store, loaded, batch_id(feed, batch), reason)
        return
    done = accepting.accept(
        store, batch_id(feed, batch), reason=reason, actor=getpass.getuser(), now_us=now_us()
    )
    report.say(f"[green]ok[/] accepted {counted(len(done.violations), 'violation')} of {done.batch}")
    for row in done.violations:
        report.say(f"  {row.check_name} {escape(row.subject)}: {escape(row.explanation)}")
    if any(row.epoch is None for row in done.violations):
        report.say("  the refusal is settled; nothing of the refused delivery is loaded by that")
    if done.suspect:
        report.say(f"[yellow]{feed} stays suspect[/]: {', '.join(done.suspect)}")
    report.result(
        {
            "batch": str(done.batch),
            "violations": [asdict(row) for row in done.violations],
            "suspect": list(done.suspect),
        }
    )


def _accept_all(report: Report, store: Store, feed: str, reason: str) -> None:
    done = accepting.accept_all(store, feed, reason=reason, actor=getpass.getuser(), now_us=now_us())
    report.say(f"[green]ok[/] accepted {counted(done.loads, 'load')} of {feed}, made known again from files")
    if done.suspect:
        report.say(f"[yellow]{feed} stays suspect[/]: {', '.join(done.suspect)}")
    report.result({"feed": feed, "loads": done.loads, "suspect": list(done.suspect)})


def _let_in(report: Report, store: Store, project: Project, batch: BatchId, reason: str) -> None:
    lacking = accepting.accept_incomplete(
        store, batch, project.groups, reason=reason, actor=getpass.getuser(), now_us=now_us()
    )
    report.say(f"[green]ok[/] {batch} is in the next snapshot without {', '.join(lacking)}")
    report.result({"batch": str(batch), "without": list(lacking)})


@command("Rows")
def quarantine(
    feed: Annotated[str, typer.Argument(help="The feed whose rows were kept apart.")],
    batch: Annotated[str | None, typer.Argument(help="One batch of it.", show_default="all")] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many rows to show.", min=1)] = 20,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """List the rows that broke the contract, as they were delivered, with the reasons of each."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    declared = loaded.feed(feed)
    rows = kept_apart.read(loaded.store(), feed, batch)
    if rows.is_empty():
        report.say(f"[green]ok[/] no row of {feed}{f'/{batch}' if batch else ''} is in quarantine")
        report.result({"rows": 0, "shown": [], "reasons": {}})
        return
    reasons = dict(
        rows["_reasons"]
        .explode()
        .value_counts(sort=True)
        .sort("count", "_reasons", descending=[True, False])
        .rows()
    )
    shown = rows.head(limit)
    columns = [
        name for name in ("_batch", *declared.contract.key, "_reasons", "_line") if name in rows.columns
    ]
    told = {name: f"{count:,}" for name, count in reasons.items()}
    report.table("Reasons", ["reason", "rows"], list(told.items()))
    report.table(
        f"{shown.height:,} of {rows.height:,} rows",
        [*(name.removeprefix("_") for name in columns), "values"],
        [
            [*(_cell(row[name]) for name in columns), _offending(row, declared.contract.key)]
            for row in shown.iter_rows(named=True)
        ],
    )
    report.result({"rows": rows.height, "shown": shown.to_dicts(), "reasons": reasons})


def _offending(row: Mapping[str, object], key: Sequence[str]) -> str:
    """What stands in the columns that the reasons of a row name, as it was delivered; the key is shown anyway.

    >>> _offending({"_reasons": ["age|type", "id|loaded"], "id": "7", "age": "forty"}, ("id",))
    'age=forty'
    """
    reasons = row["_reasons"]
    named = [str(each).partition("|")[0] for each in reasons] if isinstance(reasons, list) else []
    told = {name: row[name] for name in named if name in row and name not in key}
    return ", ".join(f"{name}={_short(value)}" for name, value in told.items())


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _cell(value: object) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _hours(us: int) -> str:
    return f"{us / 3_600_000_000:,.0f} h"


def _minute(us: int | None) -> str:
    """A moment to the minute, so that a line has room for it: "2013-01-01 00:26Z"."""
    return "-" if us is None else f"{moment(us)[:16]}Z"
