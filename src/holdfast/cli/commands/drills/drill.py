"""Run drills of rollback, restore and the rest: drill."""

from __future__ import annotations

import getpass
from datetime import timedelta
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.commands.drills.drill_workspace import place_of
from holdfast.cli.options import Run, with_project
from holdfast.cli.output import Output
from holdfast.cli.project import Project, now_us
from holdfast.control.drills import runner as drilling
from holdfast.errors import InputError
from holdfast.formatting import timestamp
from holdfast.records import Verdict, duration
from holdfast.rollout.model.drills import DESCRIPTIONS, VALID_FOR, Drill, DrillKind, kind_of

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow", Verdict.ERROR: "red"}


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
        raise InputError(
            "HF101",
            "no drill is named",
            state="nothing was run",
            next_command="holdfast drill --all, or holdfast drill --list",
        )
    wanted = tuple(DrillKind) if everything else tuple(kind_of(each) for each in kinds or ())
    if listed:
        _list(run.out, run.project)
        return
    store = run.store
    place = place_of(run.project, run.declaration, live=live)
    if live and DrillKind.ROLLBACK in wanted:
        run.out.print("[yellow]--live[/]: all users move to the former champion and back")
    ended: list[Drill] = []
    lasts_us = duration(valid_for, "--valid-for") // timedelta(microseconds=1)
    with run.out.progress("drilling") as step:
        for done, kind in enumerate(wanted, start=1):
            found = drilling.run(place, kind, actor=getpass.getuser(), lasts_us=lasts_us)
            ended.append(found)
            step(done, len(wanted))
            _print(run.out, found)
    store.ledger.close()
    run.out.result({"drills": [_plain(each) for each in ended]})
    if any(each.verdict is not Verdict.PASS for each in ended):
        raise typer.Exit(1)


def _list(out: Output, loaded: Project) -> None:
    standings = drilling.standings(loaded.store(), loaded.model.name, now_us=now_us())
    for each in standings:
        colour = "green" if each.ready else "yellow"
        out.print(f"[bold]{each.kind}[/]: {DESCRIPTIONS[each.kind]}")
        until = f" until {timestamp(each.until_us)}" if each.ready else ""
        out.print(f"  [{colour}]{escape(each.explanation)}[/]{until}")
    out.result(
        {
            "kinds": [
                {
                    "kind": each.kind,
                    "does": DESCRIPTIONS[each.kind],
                    "ready": each.ready,
                    "until_us": each.until_us,
                    "explanation": each.explanation,
                }
                for each in standings
            ]
        }
    )


def _print(out: Output, found: Drill) -> None:
    colour = _COLOURS[found.verdict]
    out.print(f"[{colour}]{found.verdict:<12}[/] [bold]{found.kind}[/]: {escape(found.explanation)}")
    if found.verdict is Verdict.PASS:
        out.print(f"             {found.kind} ready until {timestamp(found.expires_at_us)}")


def _plain(found: Drill) -> dict[str, object]:
    names = (
        "drill_id",
        "kind",
        "verdict",
        "measured_duration_us",
        "explanation",
        "actor",
        "started_at_us",
        "ended_at_us",
        "expires_at_us",
    )
    return {name: getattr(found, name) for name in names} | {"evidence": dict(found.evidence)}
