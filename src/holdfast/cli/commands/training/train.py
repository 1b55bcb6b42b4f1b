"""Commands for versions: train, qualify."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory, VersionName
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.evaluation import qualify as qualifying
from holdfast.control.runtimes import runtime
from holdfast.control.training import train as training
from holdfast.qualify import standing
from holdfast.records import Verdict
from holdfast.store.catalog import name_lookup
from holdfast.store.models import runtimes, versions

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow", Verdict.ERROR: "red"}
_STANDING = {
    "qualified": "{version} is [green]qualified[/]; next: holdfast rollout start {version}",
    "registered": "{version} could [yellow]not be judged to the end[/]; "
    "load more labelled rows, or declare a longer holdout in the model file, and train again",
    "refused": "{version} is [red]refused[/]; it will not be rolled out",
}


@command("Versions")
def train(
    snapshot: Annotated[
        str | None,
        typer.Option(
            "--snapshot", help="The cut to train on.", show_default="a new one of all tables as they are"
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random in training.", min=0)] = 0,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Train a version, and its heuristic, on a named snapshot. The same snapshot, declaration and seed give the same one."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store = loaded.store()
    snapshot = name_lookup.snapshot(store, snapshot) if snapshot else loaded.cut(store).snapshot
    with report.progress("training") as step:
        trained = training.train(store, loaded.model, snapshot, now_us=now_us(), seed=seed, progress=step)
    report.say(
        f"[green]ok[/] version [bold]{trained.version}[/] from snapshot {snapshot}: {trained.rows_trained:,} rows"
    )
    aside = {
        "held out for the gates": trained.rows_held_out,
        "with a label that is not due yet": trained.rows_not_due,
        "in the label's delay before the held-out days": trained.rows_embargoed,
        "without a label": trained.rows_unlabelled,
    } | {f"dropped for {reason}": rows for reason, rows in sorted(trained.dropped.items())}
    for why, rows in aside.items():
        if rows:
            report.say(f"  {rows:,} {escape(why)}")
    report.say(f"next: holdfast qualify {trained.version}")
    report.result(trained.as_dict() | {"snapshot": snapshot})


@command("Versions")
def qualify(
    version: VersionName = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge a version by every gate. Exit status 1 when it may not be rolled out."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store = loaded.store()
    name = loaded.model.name
    version = (
        name_lookup.version(store, version, name)
        if version
        else versions.newest(store, name, role="candidate").version
    )
    with report.progress("qualifying"):
        results = qualifying.qualify(store, loaded.model, version, now_us=now_us())
    state = standing(results)
    if state == "qualified":
        runtime.qualified(store, name, version, runtimes.here(loaded.settings.build), now_us=now_us())
    for result in results:
        colour = _COLOURS[result.verdict]
        report.say(f"[{colour}]{result.verdict:<12}[/] [bold]{result.gate}[/]: {escape(result.explanation)}")
    report.say(_STANDING[state].format(version=version))
    report.result({"version": version, "state": state, "gates": [result.as_dict() for result in results]})
    if state != "qualified":
        raise typer.Exit(1)
