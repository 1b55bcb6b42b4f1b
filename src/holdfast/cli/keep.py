"""Commands for what is kept and how: compact, vacuum."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.project import Project, now_us
from holdfast.cli.report import Report, counted
from holdfast.control import compact as compacting
from holdfast.control import retention
from holdfast.records import duration

_SHOWN = 20


@command("Rows")
def compact(
    feed: Annotated[
        str | None, typer.Argument(help="The feed whose files to put together.", show_default="all feeds")
    ] = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Put small files together. Every row keeps its batch, and what is read at any version stays as it was."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    feeds = None if feed is None else [loaded.feed(feed).name]
    with report.progress("compacting") as step:
        results = compacting.compact(loaded.store(), feeds, now_us=now_us(), progress=step)
    for table in results:
        files = f"{counted(table.files_before, 'file')}, now {table.files_after:,}"
        rows = f"{table.rows_rewritten:,} rows rewritten" if table.rows_rewritten else "nothing to do"
        report.say(f"[green]ok[/] {table.table}: {files}, {rows}")
    report.result({"tables": [table.as_dict() for table in results]})


@command("Rows")
def vacuum(
    keep: Annotated[
        str, typer.Option("--keep", help="What is younger than this stays readable, such as '30d' or '12h'.")
    ] = "30d",
    newest: Annotated[
        int, typer.Option("--newest", min=0, help="So many snapshots stay, however old.")
    ] = retention.NEWEST,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this it is only shown.")] = False,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Show which files nothing needs any more, and with --apply let exactly these go.

    What the tables are now stays, and so does every snapshot that a version was trained on which may still be given
    traffic.
    """
    report = Report(as_json=as_json)
    store, moment, span = Project.load(project, declaration).store(), now_us(), duration(keep)
    shown = retention.plan(store, now_us=moment, keep=span, newest=newest)
    if shown.files:
        sizes = [(file.table, file.path, file.bytes) for file in shown.files[:_SHOWN]]
        report.table("Files that may go", ["table", "file", "bytes"], sizes)
    if shown.snapshots:
        report.say(f"snapshots that cannot be read without them: {', '.join(shown.snapshots)}")
    if apply and (shown.files or shown.snapshots):
        retention.vacuum(store, shown, now_us=moment, keep=span, newest=newest)
    done = "let go of" if apply else "would let go of"
    files, cuts = counted(len(shown.files), "file"), counted(len(shown.snapshots), "snapshot")
    report.say(
        f"[green]ok[/] {done} {files}, {shown.bytes:,} bytes, {cuts}; {len(shown.pinned):,} stay for certain"
    )
    if shown.files and not apply:
        report.say("nothing was changed; the same command with --apply does it")
    report.result(
        {
            "applied": apply,
            "files": [file.path for file in shown.files],
            "bytes": shown.bytes,
            "snapshots": list(shown.snapshots),
            "pinned": shown.pinned,
        }
    )
