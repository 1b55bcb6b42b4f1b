"""The ledger of pushes: pushes, and pushes label."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import app
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.rollout import pushes as ledger

group = typer.Typer(
    name="pushes",
    help="What became of each rollout: good, bad, escaped or censored.",
    invoke_without_command=True,
)
app.add_typer(group, rich_help_panel="Versions")


class Label(StrEnum):
    """What a person may say of a push."""

    GOOD = "good"
    BAD = "bad"


@group.callback()
def pushes(
    context: typer.Context,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """List every push with its label, what it cost, and how soon it was found out. Example: holdfast pushes"""
    if context.invoked_subcommand is not None:
        return
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    found = ledger.listed(loaded.store(), loaded.model.name)
    report.table(
        "Pushes",
        [
            "rollout",
            "challenger",
            "champion",
            "state",
            "push",
            "requests",
            "failed or wrong",
            "minutes to detection",
        ],
        [
            (
                each.rollout,
                each.challenger,
                each.champion or "-",
                each.state,
                each.outcome,
                each.requests,
                each.failed_or_wrong,
                None if each.detection_us is None else round(each.detection_us / 60e6, 1),
            )
            for each in found
        ],
    )
    for each in found:
        by = "" if each.labelled_by == "holdfast" else f" (by {escape(each.labelled_by)})"
        report.say(f"  {each.rollout} {each.outcome}{by}: {escape(each.reason)}")
    totals = ledger.totals(found)
    report.say(
        f"in all {totals.pushes}: {totals.good} good, {totals.bad} bad, {totals.escaped} escaped, "
        f"{totals.censored} censored, {totals.open} open; taken back for harm and good all the same: {totals.false_roll_backs}"
    )
    report.result({"pushes": [asdict(each) for each in found], "totals": asdict(totals)})


@group.command()
def label(
    rollout: Annotated[int, typer.Argument(help="The number of the rollout.")],
    what: Annotated[Label, typer.Argument(help="What it was, as was found out later.")],
    why: Annotated[str, typer.Option("--why", help="How that is known; kept in the ledger.")],
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what a push was, when that was found out later than its evidence could tell.

    Example: holdfast pushes label 7 bad --why "refunds in May trace back to it"
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    row = ledger.relabel(
        loaded.store(), rollout, good=what is Label.GOOD, why=why, actor=getpass.getuser(), now_us=now_us()
    )
    report.say(f"[green]ok[/] the push of rollout {rollout} is called {row.outcome}: {escape(row.reason)}")
    report.result({"rollout": rollout, "push": row.outcome, "reason": row.reason, "by": row.labelled_by})
