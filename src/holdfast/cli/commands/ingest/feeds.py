"""Show and accept what feeds delivered: feeds, accept, quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import polars as pl
import typer

from holdfast.cli.app import command
from holdfast.cli.output import Output, escape
from holdfast.cli.project import Limit, Run, misused, now_us, with_project
from holdfast.control.ingest import acceptance as accepting
from holdfast.control.ingest import feed_status as standing
from holdfast.control.ingest.online_features import backfill
from holdfast.errors import NotFoundError
from holdfast.feeds import batch_id
from holdfast.feeds.state_machine import State
from holdfast.formatting import counted, hours, timestamp
from holdfast.records import BatchId, Level
from holdfast.store.catalog import batches, recent
from holdfast.store.db import events
from holdfast.store.feeds import quarantine as quarantined_rows
from holdfast.store.feeds import violations

_COLOURS = {State.FLOWING: "green", State.SUSPECT: "red", State.REFUSING: "yellow", None: "dim"}
_LEVELS = {Level.WARNING: "yellow", Level.ERROR: "red", Level.CRITICAL: "bold red"}
_SHOWN = 12
_LONGEST_VALUE = 40


@command("Rows")
@with_project
def feeds(
    run: Run,
    feed: Annotated[
        str | None, typer.Argument(help="One feed, with its violations.", show_default="all")
    ] = None,
    the_batches: Annotated[
        bool, typer.Option("--batches", help="List the loaded batches instead, newest load first.")
    ] = False,
    limit: Limit = 20,
) -> None:
    """Show each feed: its state, its batches, what is overdue, and which expectations were violated.

    Example: holdfast feeds flights --batches
    """
    if the_batches:
        _list_batches(run, feed, limit)
        return
    found = standing.of_model(run.store, run.model.feeds, now_us=now_us())
    if feed is not None:
        found = tuple(each for each in found if each.feed == feed)
        if not found:
            raise NotFoundError("HF303", f"no feed is called {feed!r}", next_command="holdfast feeds")
    run.out.records(
        "Feeds",
        found,
        {
            "feed": lambda each: each.feed,
            "state": lambda each: each.state or "no batch",
            "batches": lambda each: each.totals.batches if each.totals else 0,
            "rows": lambda each: each.totals.rows_loaded if each.totals else 0,
            "bad rows": lambda each: each.totals.rows_quarantined if each.totals else 0,
            "newest event": lambda each: _minute(each.totals.newest_event_us if each.totals else None),
        },
    )
    for each in found:
        _print_state(run.out, each)
        _print_incomplete(run.out, each)
        if feed is not None:
            _print_violations(run.out, each)
        elif any(each.counts.values()):
            run.out.print(f"  next: holdfast feeds {each.feed}")
    run.out.result({"feeds": found})


def _print_state(out: Output, status: standing.FeedStatus) -> None:
    feed = status.feed
    if status.overdue_us is not None:
        out.print(f"[yellow]overdue[/] {feed}: its next batch, by {hours(status.overdue_us)}")
        out.print(
            f"  next: holdfast ingest {feed} FILE, or correct interval= and grace= if it comes less often"
        )
    if status.totals is not None and status.totals.event_time_ahead_us is not None:
        ahead = timestamp(status.totals.event_time_ahead_us)
        out.print(f"[yellow]event time ahead[/] {feed}: {ahead} is later than the load that brought it")
    if any(status.counts.values()):
        totals = ", ".join(f"{count} {level}" for level, count in status.counts.items() if count)
        out.print(f"[yellow]violations[/] {feed}: {totals}")
    if status.state not in (None, State.FLOWING):
        since = timestamp(status.changed_at_us)
        out.print(
            f"[{_COLOURS[status.state]}]{status.state}[/] {feed} since {since}: {escape(status.reason)}"
        )
    if status.reregistered:
        loads = counted(len(status.reregistered), "load")
        out.print(f"[red]re-registered from files[/] {feed}: {loads}; their violations are unknown")
        out.print(f"  next: holdfast accept {feed} --all --reason WHY")
    for batch in sorted(set(status.suspect) - set(status.reregistered)):
        out.print(f"  next: holdfast backout {feed} {batch}, or holdfast accept {feed} {batch} --reason WHY")


def _list_batches(run: Run, feed: str | None, limit: int) -> None:
    out = run.out
    with run.store.ledger.read() as connection:
        found = recent.loaded(connection, feed, limit=limit)
    if feed is not None and not found.rows:
        run.project.feed(feed)  # one that is no longer declared may have batches; one that never was has none
    out.records(
        "Loaded batches, the newest load first",
        found.rows,
        {
            "feed": lambda row: row.feed,
            "batch": lambda row: row.batch,
            "rows": lambda row: row.rows_loaded,
            "bad rows": lambda row: row.rows_quarantined,
            "first event": lambda row: _minute(row.event_time_min_us),
            "newest event": lambda row: _minute(row.event_time_max_us),
            "loaded": lambda row: _minute(row.loaded_at_us),
        },
    )
    if found.older:
        out.print(f"[dim]and {found.older:,} older; --limit shows more[/]")
    if found.rows:
        out.print("next: holdfast backout FEED BATCH shows the plan to remove one")
    out.result({"batches": found.rows, "older": found.older})


def _print_incomplete(out: Output, status: standing.FeedStatus) -> None:
    if status.waiting:
        batches = ", ".join(status.waiting[:_SHOWN]) + (", ..." if len(status.waiting) > _SHOWN else "")
        out.print(
            f"[yellow]held back[/] {status.feed}: {escape(batches)}; {len(status.waiting):,} in all, until the rest of the "
            "group is delivered"
        )
        out.print(
            f"  next: load those of the other feeds; if they never come, "
            f"holdfast accept {status.feed} {status.waiting[0]} --incomplete --reason WHY"
        )
    if status.alone:
        out.print(
            f"[yellow]admitted without the rest of the group[/] {status.feed}: {escape(', '.join(status.alone))}"
        )


def _print_violations(out: Output, status: standing.FeedStatus) -> None:
    for row in status.open[:_SHOWN]:
        what = "refused" if row.epoch is None else "loaded"
        about = f"{row.check_name} {row.subject}".strip()
        out.print(
            f"  [{_LEVELS[row.level]}]{row.level}[/] {row.batch} ({what}) {escape(about)}: {escape(row.explanation)}"
        )


@command("Rows")
@with_project
def accept(
    run: Run,
    feed: Annotated[str, typer.Argument(help="The feed that delivered the batch.")],
    batch: Annotated[str | None, typer.Argument(help="The batch.", show_default="none, with --all")] = None,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; recorded in the ledger.")],
    everything: Annotated[
        bool,
        typer.Option("--all", help="Accept every batch of the feed that rebuild-ledger re-registered."),
    ] = False,
    incomplete: Annotated[
        bool,
        typer.Option("--incomplete", help="Admit a batch that is held back without the rest of its group."),
    ] = False,
) -> None:
    """Accept a suspect batch, so that models may be trained on it. For a refused delivery it only closes the refusal.

    --incomplete: stop waiting for the other feeds of this group. --all: accept every batch that rebuild-ledger
    re-registered, although its violations are unknown. Without anything to accept it changes nothing.

    Example: holdfast accept weather 2013-05-01 --reason "a cold front, not an error"
    """
    if not reason.strip():
        raise misused("an acceptance requires a reason", "holdfast accept --help")
    if (batch is None) != everything or (everything and incomplete):
        raise misused("accept takes either one batch, or --all and nothing else", "holdfast accept --help")
    if batch is None:
        _accept_all(run, run.project.feed(feed).name, reason)
        return
    accepted = batch_id(feed, batch)
    try:
        _accept(run, feed, accepted, reason, incomplete=incomplete)
    except NotFoundError as error:
        with run.store.ledger.read() as connection:
            was_accepted = events.newest(connection, subject=str(accepted), kind=accepting.ACCEPTED, limit=1)
            is_known = was_accepted or batches.loads(connection, accepted)
        if error.code != "HF410" or not is_known:
            raise
        _print_unchanged(run.out, error, {"batch": str(accepted), "violations": []})


def _accept(run: Run, feed: str, accepted: BatchId, reason: str, *, incomplete: bool) -> None:
    if incomplete:
        lacking = accepting.accept_incomplete(
            run.store, accepted, run.project.groups, reason=reason, actor=run.actor, now_us=now_us()
        )
        run.out.print(f"[green]ok[/] {accepted} is in the next snapshot without {', '.join(lacking)}")
        run.out.result({"batch": str(accepted), "without": lacking})
        return
    done = accepting.accept(run.store, accepted, reason=reason, actor=run.actor, now_us=now_us())
    backfill(run.store, run.model.feeds, run.model.aggregates, now_us=now_us())
    run.out.print(f"[green]ok[/] accepted {counted(len(done.violations), 'violation')} of {done.batch}")
    for row in done.violations:
        run.out.print(f"  {escape(row.check_name)} {escape(row.subject)}: {escape(row.explanation)}")
    if any(row.epoch is None for row in done.violations):
        run.out.print("  the refusal is closed; the refused delivery stays unloaded")
    _end(run.out, feed, done.suspect, {"batch": str(done.batch), "violations": done.violations})


def _print_unchanged(out: Output, error: NotFoundError, document: dict[str, object]) -> None:
    """Print that there is nothing to accept, as after the same command before: that is no failure."""
    out.print(f"nothing was changed: {escape(error.what)}")
    out.result(document)


def _accept_all(run: Run, feed: str, reason: str) -> None:
    try:
        _accept_reregistered(run, feed, reason)
    except NotFoundError as error:
        if error.code != "HF410":
            raise
        _print_unchanged(run.out, error, {"feed": feed, "loads": 0})


def _accept_reregistered(run: Run, feed: str, reason: str) -> None:
    done = accepting.accept_all(run.store, feed, reason=reason, actor=run.actor, now_us=now_us())
    run.out.print(f"[green]ok[/] accepted {counted(done.loads, 'load')} of {feed}, re-registered from files")
    _end(run.out, feed, done.suspect, {"feed": feed, "loads": done.loads})


def _end(out: Output, feed: str, suspect: Sequence[str], document: dict[str, object]) -> None:
    """Print which batches are suspect still, and the result."""
    if suspect:
        out.print(f"[yellow]{feed} stays suspect[/]: {', '.join(suspect)}")
    out.result(document | {"suspect": suspect})


@command("Rows")
@with_project
def quarantine(
    run: Run,
    feed: Annotated[str, typer.Argument(help="The feed whose rows were quarantined.")],
    batch: Annotated[str | None, typer.Argument(help="One batch of it.", show_default="all")] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many rows to show.", min=1)] = 20,
) -> None:
    """List the rows that violate the contract, as they were delivered, with the reasons of each.

    Example: holdfast quarantine flights day-9
    """
    key = run.project.feed(feed).contract.key
    with run.store.ledger.read() as connection:
        standing = violations.open_ones(connection, feed=feed, batch=batch)
    refused = list(dict.fromkeys(row.batch for row in standing if row.epoch is None))
    try:
        rows = quarantined_rows.read(run.store, feed, batch)
    except NotFoundError:
        if not refused:
            raise
        rows = pl.DataFrame()
    if rows.is_empty():
        of = escape(f"{feed}/{batch}" if batch else feed)
        run.out.print(f"[green]ok[/] no row of {of} is in quarantine")
        if refused:
            listed = ", ".join(refused[:5]) + (" ..." if len(refused) > 5 else "")
            run.out.print(
                f"  refused: {escape(listed)}. A refused batch leaves no row here; its file shows what it lacks:"
            )
            run.out.print(f"  [cyan]holdfast check {feed} FILE[/]")
        run.out.result({"rows": 0, "shown": [], "reasons": {}, "refused": refused})
        return
    counts = rows["_reasons"].explode().value_counts()
    reasons = dict(counts.sort("count", "_reasons", descending=[True, False]).rows())
    shown = rows.head(limit)
    columns = [name for name in ("_batch", *key, "_reasons", "_line") if name in rows.columns]
    run.out.table("Reasons", ["reason", "rows"], [(name, f"{count:,}") for name, count in reasons.items()])
    run.out.table(
        f"{shown.height:,} of {rows.height:,} rows",
        [*(name.removeprefix("_") for name in columns), "values"],
        [
            [*(_cell(row[name]) for name in columns), _offending(row, key)]
            for row in shown.iter_rows(named=True)
        ],
    )
    run.out.result({"rows": rows.height, "shown": shown.to_dicts(), "reasons": reasons})


def _offending(row: Mapping[str, object], key: Sequence[str]) -> str:
    """Return the values of the columns that the reasons of a row name, as delivered; the key is shown anyway.

    >>> _offending({"_reasons": ["age|type", "id|loaded"], "id": "7", "age": "forty"}, ("id",))
    'age=forty'
    """
    reasons = row["_reasons"]
    named = [str(each).partition("|")[0] for each in reasons] if isinstance(reasons, list) else []
    values = {name: row[name] for name in named if name in row and name not in key}
    return ", ".join(f"{name}={_short(value)}" for name, value in values.items())


def _short(value: object) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _cell(value: object) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _minute(us: int | None) -> str:
    """Return a timestamp to the minute, such as "2013-01-01 00:26Z"."""
    return "-" if us is None else f"{timestamp(us)[:16]}Z"
