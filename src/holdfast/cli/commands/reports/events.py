"""The command that prints the story: events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import Project
from holdfast.control.integrations import cdevents as exporting
from holdfast.formatting import moment
from holdfast.store import Store
from holdfast.store.db import events as story

_AT_ONCE = 1000
_PAUSE_SECONDS = 0.5

Read = Callable[[int], tuple[int, Sequence[Mapping[str, Any]]]]
"""Given the number of the last event that was printed: that of the last one read, and what to print."""


@command("Running")
def events(
    since: Annotated[int, typer.Option("--since", min=0, help="Print what came after this event.")] = 0,
    cdevents: Annotated[
        bool, typer.Option("--cdevents", help="Print CDEvents 0.4.1 instead, as JSON, one to a line.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what happens, until Ctrl-C.")] = False,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Print what happened, oldest first; with --json or --cdevents as JSON, one event to a line.

    Example: holdfast events --cdevents --since 1200 --follow | my-importer
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store = loaded.store()
    environment = loaded.settings.cdevents_environment
    read: Read = (
        partial(exporting.read, store, environment=environment) if cdevents else partial(_plain, store)
    )
    last = since
    while True:
        reached, found = read(last)
        for each in found:
            _print(report, each, as_lines=as_json or cdevents)
        if reached == last:
            if not follow:
                return
            time.sleep(_PAUSE_SECONDS)
        last = reached


def _plain(store: Store, last: int) -> tuple[int, list[dict[str, Any]]]:
    with store.ledger.read() as connection:
        found = story.since(connection, last, limit=_AT_ONCE)
    return (found[-1].event_id if found else last), [asdict(each) for each in found]


def _print(report: Report, event: Mapping[str, Any], *, as_lines: bool) -> None:
    if as_lines:
        typer.echo(json.dumps(event, ensure_ascii=False, separators=(",", ":")))
        return
    by = "" if event["actor"] == story.SYSTEM else f" by {event['actor']}"
    report.say(
        f"{event['event']} [dim]{moment(event['at_us'])}[/] [bold]{event['kind']}[/] {escape(event['subject'] + by)}: "
        f"{escape(event['explanation'])}"
    )
