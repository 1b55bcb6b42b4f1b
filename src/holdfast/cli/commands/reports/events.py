"""Print the event log: events."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from holdfast.cli.app import command
from holdfast.cli.output import Output, escape, has_reader
from holdfast.cli.project import Run, with_project
from holdfast.control.integrations import cdevents as exporting
from holdfast.formatting import timestamp
from holdfast.store import Store
from holdfast.store.db import events as event_log

_AT_ONCE = 1000
_PAUSE_SECONDS = 0.5


@command("Running")
@with_project
def events(
    run: Run,
    since: Annotated[
        int, typer.Option("--since", min=0, help="Print events after the one with this number.")
    ] = 0,
    cdevents: Annotated[
        bool, typer.Option("--cdevents", help="Print CDEvents 0.5.1 instead, as JSON, one per line.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Print new events until Ctrl-C.")] = False,
) -> None:
    """Print the event log, oldest first; with --json or --cdevents as JSON, one event per line.

    Example: holdfast events --cdevents --since 1200 --follow | my-importer
    """
    store, environment = run.store, run.settings.cdevents_environment
    last = since
    while True:
        newest, found = (
            exporting.read(store, last, environment=environment) if cdevents else _plain(store, last)
        )
        for each in found:
            _print(run.out, each, as_lines=run.out.as_json or cdevents)
        if newest == last:
            if not follow or not has_reader():
                return
            time.sleep(_PAUSE_SECONDS)
        last = newest


def _plain(store: Store, last: int) -> tuple[int, Sequence[dict[str, Any]]]:
    with store.ledger.read() as connection:
        found = event_log.since(connection, last, limit=_AT_ONCE)
    return (found[-1].event_id if found else last), [asdict(each) for each in found]


def _print(out: Output, event: Mapping[str, Any], *, as_lines: bool) -> None:
    if as_lines:
        typer.echo(json.dumps(event, separators=(",", ":")))
        return
    by = "" if event["actor"] == event_log.SYSTEM else f" by {event['actor']}"
    out.print(
        f"{event['event_id']} [dim]{timestamp(event['at_us'])}[/] [bold]{event['kind']}[/] {escape(event['subject'] + by)}: "
        f"{escape(event['explanation'])}"
    )
