"""Run drills of rollback, restore and the rest: drill."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from holdfast.cli.app import command
from holdfast.cli.commands.drills.drill_workspace import workspace_of
from holdfast.cli.output import COLOURS, JUDGED, Output, escape
from holdfast.cli.project import Run, misused, now_us, with_project
from holdfast.control.drills import runner as drilling
from holdfast.formatting import timestamp
from holdfast.records import Verdict, duration
from holdfast.rollout.model.drills import DESCRIPTIONS, VALID_FOR, Drill, DrillKind, kind_of


@command("Running")
@with_project
def drill(
    run: Run,
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND]...", help=f"The kinds to run: {', '.join(DrillKind)}.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Run every kind, one after the other.")] = False,
    listed: Annotated[
        bool, typer.Option("--list", help="List the kinds and their last results; run none.")
    ] = False,
    live: Annotated[
        bool,
        typer.Option("--live", help="Let the rollback drill move ALL users to the former champion and back."),
    ] = False,
    valid_for: Annotated[
        str, typer.Option("--valid-for", help="How long a passed drill counts, such as '7d'.")
    ] = f"{VALID_FOR.days}d",
) -> None:
    """Run drills of rollback, restore and the rest. Users are not affected, except with --live. Exit status 1 on a failure.

    Example: holdfast drill rollback restore
    """
    if not listed and not everything and not kinds:
        next_command = "holdfast drill --all, or holdfast drill --list"
        raise misused("no drill is named", next_command, state="nothing was run")
    wanted = tuple(DrillKind) if everything else tuple(kind_of(each) for each in kinds or ())
    if listed:
        _list(run)
        return
    workspace = workspace_of(run, live=live)
    if live and DrillKind.ROLLBACK in wanted:
        run.out.print("[yellow]--live[/]: all users move to the former champion and back")
    ended: list[Drill] = []
    lasts_us = duration(valid_for, "--valid-for") // timedelta(microseconds=1)
    with run.out.progress("drilling") as step:
        for done, kind in enumerate(wanted, start=1):
            found = drilling.run(workspace, kind, actor=run.actor, lasts_us=lasts_us)
            ended.append(found)
            step(done, len(wanted))
            _print(run.out, found)
    run.store.ledger.close()
    plain = [{name: value for name, value in asdict(each).items() if name != "model"} for each in ended]
    run.out.result({"drills": plain})
    if any(each.verdict is not Verdict.PASS for each in ended):
        raise typer.Exit(JUDGED)


def _list(run: Run) -> None:
    standings = drilling.standings(run.store, run.model.name, now_us=now_us())
    for each in standings:
        colour = "green" if each.ready else "yellow"
        run.out.print(f"[bold]{each.kind}[/]: {DESCRIPTIONS[each.kind]}")
        until = f" until {timestamp(each.until_us)}" if each.ready else ""
        run.out.print(f"  [{colour}]{escape(each.explanation)}[/]{until}")
    run.out.result({"kinds": [{**asdict(each), "does": DESCRIPTIONS[each.kind]} for each in standings]})


def _print(out: Output, found: Drill) -> None:
    out.print(
        f"[{COLOURS[found.verdict]}]{found.verdict:<12}[/] [bold]{found.kind}[/]: {escape(found.explanation)}"
    )
    if found.verdict is Verdict.PASS:
        out.print(f"             {found.kind} ready until {timestamp(found.expires_at_us)}")
