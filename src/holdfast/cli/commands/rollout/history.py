"""List and label the pushes of a model: rollout history, rollout label."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.rollout import pushes as ledger


class Label(StrEnum):
    """The labels that a person may give a push."""

    GOOD = "good"
    BAD = "bad"


def history(project: Directory = HERE, declaration: DeclarationFile = None, as_json: AsJson = False) -> None:
    """List every push with its label, its cost and the time to detection. Example: holdfast rollout history"""
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
                each.rollout_id,
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
        report.say(f"  {each.rollout_id} {each.outcome}{by}: {escape(each.reason)}")
    totals = ledger.totals(found)
    report.say(
        f"in all {totals.pushes}: {totals.good} good, {totals.bad} bad, {totals.escaped} escaped, "
        f"{totals.censored} censored, {totals.open} open; taken back for harm and good all the same: {totals.false_roll_backs}"
    )
    report.result({"pushes": [asdict(each) for each in found], "totals": asdict(totals)})


def label(
    rollout: Annotated[int, typer.Argument(help="The number of the rollout.")],
    what: Annotated[Label, typer.Argument(help="Whether the push was good or bad.")],
    reason: Annotated[str, typer.Option("--reason", help="How that is known; recorded in the ledger.")],
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Label a push good or bad, when that became known after its rollout ended.

    Example: holdfast rollout label 7 bad --reason "refunds in May trace back to it"
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    row = ledger.relabel(
        loaded.store(), rollout, good=what is Label.GOOD, why=reason, actor=getpass.getuser(), now_us=now_us()
    )
    report.say(f"[green]ok[/] the push of rollout {rollout} is called {row.outcome}: {escape(row.reason)}")
    report.result({"rollout": rollout, "push": row.outcome, "reason": row.reason, "by": row.labelled_by})
