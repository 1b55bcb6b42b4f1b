"""Check the hash chain of the event log: audit."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.app import command
from holdfast.cli.output import JUDGED, escape
from holdfast.cli.project import Run, with_project
from holdfast.control.maintenance.audit import audit as auditing
from holdfast.formatting import counted
from holdfast.store.db.event_chain import Head


@command("The store")
@with_project
def audit(
    run: Run,
    since: Annotated[
        int, typer.Option("--since", min=0, help="Check only events after the one with this number.")
    ] = 0,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="NUMBER:DIGEST", help="A head that was stored before, to check against."
        ),
    ] = None,
    head: Annotated[
        bool, typer.Option("--head", help="Print only the head, to be stored elsewhere.")
    ] = False,
) -> None:
    """Check the hash chain of the event log. Exit status 1 if an event was changed, inserted, removed or truncated.

    Store the head where writers of the ledger cannot change it, and check it with --against. Only that reveals a
    truncated or wholly rewritten log.

    Example: holdfast audit --head
    """
    head_before = None if against is None else Head.parse(against)
    found = auditing(run.store, since=since, kept=head_before)
    if head and found.clean:
        run.out.print(str(found.chain.head or ""))
    elif found.clean:
        after = f" after event {since}" if since else ""
        run.out.print(f"[green]ok[/] {counted(found.chain.events, 'event')}{after}, one unbroken chain")
        if head_before is not None:
            run.out.print(f"the stored head, event {head_before.event_id}, is in it")
        run.out.print(f"head {found.chain.head or 'none: there are no events yet'}")
    for finding in found.errors:
        run.out.print(f"[red]broken[/] {escape(finding)}")
    if not found.clean and found.chain.head is not None:
        run.out.print(
            f"up to event {found.chain.head.event_id} the chain is intact; next: [cyan]holdfast restore BACKUP[/]"
        )
    run.out.result(found.as_dict())
    if not found.clean:
        raise typer.Exit(JUDGED)
