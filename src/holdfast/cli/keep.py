"""Commands for what is kept and how: compact."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.project import Project, now_us
from holdfast.cli.report import Report, counted
from holdfast.control import compact as compacting


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
