"""The command that exercises what must work on the day: drill."""

from __future__ import annotations

import getpass
from datetime import timedelta
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.commands.drills.drill_workspace import place_of
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.drills import runner as drilling
from holdfast.errors import InputError
from holdfast.formatting import moment
from holdfast.records import Verdict, duration
from holdfast.rollout.model.drills import DEEDS, LASTS, Drill, DrillKind, kind_of

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow", Verdict.ERROR: "red"}


@command("Running")
def drill(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KIND]...", help=f"What to drill: {', '.join(DrillKind)}.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Drill every kind, one after the other.")] = False,
    listed: Annotated[
        bool, typer.Option("--list", help="Only say which kinds there are, and how each stands.")
    ] = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Let roll-back move ALL users to the former champion for a moment, and back."
        ),
    ] = False,
    valid_for: Annotated[
        str, typer.Option("--valid-for", help="How long a passed drill counts, such as '7d'.")
    ] = f"{LASTS.days}d",
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Exercise roll-back, restore and the rest while nothing is wrong. Exit status 1 when one did not pass.

    Example: holdfast drill roll-back restore. No user notices, except with --live.
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    if not listed and not everything and not kinds:
        raise InputError(
            "HF101",
            "no drill is named",
            state="nothing was drilled",
            next_command="holdfast drill --all, or holdfast drill --list",
        )
    wanted = tuple(DrillKind) if everything else tuple(kind_of(each) for each in kinds or ())
    if listed:
        _list(report, loaded)
        return
    store = loaded.store()
    place = place_of(loaded, declaration, live=live)
    if live and DrillKind.ROLL_BACK in wanted:
        report.say("[yellow]--live[/]: all users are moved to the former champion for a moment, and back")
    ended: list[Drill] = []
    lasts_us = duration(valid_for, "--valid-for") // timedelta(microseconds=1)
    with report.progress("drilling") as step:
        for done, kind in enumerate(wanted, start=1):
            found = drilling.run(place, kind, actor=getpass.getuser(), lasts_us=lasts_us)
            ended.append(found)
            step(done, len(wanted))
            _say(report, found)
    store.ledger.close()
    report.result({"drills": [_plain(each) for each in ended]})
    if any(each.verdict is not Verdict.PASS for each in ended):
        raise typer.Exit(1)


def _list(report: Report, loaded: Project) -> None:
    standings = drilling.standings(loaded.store(), loaded.model.name, now_us=now_us())
    for each in standings:
        colour = "green" if each.ready else "yellow"
        report.say(f"[bold]{each.kind}[/]: {DEEDS[each.kind]}")
        until = f" until {moment(each.until_us)}" if each.ready else ""
        report.say(f"  [{colour}]{escape(each.explanation)}[/]{until}")
    report.result(
        {
            "kinds": [
                {
                    "kind": each.kind,
                    "does": DEEDS[each.kind],
                    "ready": each.ready,
                    "until_us": each.until_us,
                    "explanation": each.explanation,
                }
                for each in standings
            ]
        }
    )


def _say(report: Report, found: Drill) -> None:
    colour = _COLOURS[found.verdict]
    report.say(f"[{colour}]{found.verdict:<12}[/] [bold]{found.kind}[/]: {escape(found.explanation)}")
    if found.verdict is Verdict.PASS:
        report.say(f"             {found.kind} ready until {moment(found.expires_at_us)}")


def _plain(found: Drill) -> dict[str, object]:
    names = (
        "drill",
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
