"""List and label the pushes of a model: rollout history, rollout label."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from holdfast.cli.output import escape
from holdfast.cli.project import Run, now_us, with_project
from holdfast.control.rollout import pushes


class Label(StrEnum):
    """The labels that a person may give a push."""

    GOOD = "good"
    BAD = "bad"


@with_project
def history(run: Run) -> None:
    """List every push with its label, its cost and the time to detection.

    Example: holdfast rollout history
    """
    found = pushes.listed(run.store, run.model.name)
    run.out.records(
        "Pushes",
        found,
        {
            "rollout": lambda push: push.rollout_id,
            "challenger": lambda push: push.challenger,
            "champion": lambda push: push.champion or "-",
            "state": lambda push: push.state,
            "push": lambda push: push.outcome,
            "requests": lambda push: push.requests,
            "failed": lambda push: push.failed,
            "wrong": lambda push: push.wrong,
            "minutes to detection": lambda push: (
                None if push.detection_us is None else round(push.detection_us / 60e6, 1)
            ),
        },
    )
    for each in found:
        by = "" if each.labelled_by == "holdfast" else f" (by {escape(each.labelled_by)})"
        run.out.print(f"  {each.rollout_id} {each.outcome}{by}: {escape(each.reason)}")
    totals = pushes.totals(found)
    run.out.print(
        f"in all {totals.pushes}: {totals.good} good, {totals.bad} bad, {totals.escaped} escaped, "
        f"{totals.censored} censored, {totals.open} open; rolled back for harm although good: {totals.false_rollbacks}"
    )
    run.out.result({"pushes": found, "totals": totals})


@with_project
def label(
    run: Run,
    rollout: Annotated[int, typer.Argument(help="The number of the rollout.")],
    what: Annotated[Label, typer.Argument(help="Whether the push was good or bad.")],
    reason: Annotated[str, typer.Option("--reason", help="How that is known; recorded in the ledger.")],
) -> None:
    """Label a push good or bad, when that became known after its rollout ended.

    Example: holdfast rollout label 7 bad --reason "refunds in May trace back to it"
    """
    row = pushes.relabel(
        run.store, rollout, good=what is Label.GOOD, why=reason, actor=run.actor, now_us=now_us()
    )
    run.out.print(f"[green]ok[/] the push of rollout {rollout} is {row.outcome}: {escape(row.reason)}")
    run.out.result({"rollout": rollout, "push": row.outcome, "reason": row.reason, "by": row.labelled_by})
