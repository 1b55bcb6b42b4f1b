"""The command that proves the story: audit."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import Project
from holdfast.control.maintenance.audit import audit as auditing
from holdfast.formatting import counted
from holdfast.store.db.event_chain import Head


@command("The store")
def audit(
    since: Annotated[
        int, typer.Option("--since", min=0, help="Look only at what came after this event.")
    ] = 0,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="NUMBER:DIGEST", help="A head that was kept before: does it still stand?"
        ),
    ] = None,
    head: Annotated[bool, typer.Option("--head", help="Print the head alone, to be kept elsewhere.")] = False,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Check that no event of the story was changed, put in or taken out. Exit status 1 when one was.

    Keep what `holdfast audit --head` prints where whoever writes the ledger cannot write, and ask for it again with
    --against: only so can a cut end, or a story that was written anew, be told from a true one.
    """
    report = Report(as_json=as_json)
    kept = None if against is None else Head.parse(against)
    found = auditing(Project.load(project, declaration).store(), since=since, kept=kept)
    document: dict[str, Any] = found.as_dict()
    if head and found.clean:
        report.say(str(found.chain.head or ""))
    elif found.clean:
        after = f" after event {since}" if since else ""
        report.say(f"[green]ok[/] {counted(found.chain.events, 'event')}{after}, one unbroken chain")
        if kept is not None:
            report.say(f"the head that was kept, event {kept.event_id}, stands")
        report.say(f"head {found.chain.head or 'none: nothing was told yet'}")
    for trouble in found.troubles:
        report.say(f"[red]broken[/] {escape(trouble)}")
    if not found.clean and found.chain.head is not None:
        report.say(
            f"up to event {found.chain.head.event_id} the chain holds; next: [cyan]holdfast restore BACKUP[/]"
        )
    report.result(document)
    if not found.clean:
        raise typer.Exit(1)
