"""Commands for versions: train, qualify, rollout."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory, VersionName
from holdfast.cli.project import Project, now_us
from holdfast.cli.recorded import replay_when_due
from holdfast.cli.report import Report
from holdfast.control import qualify as qualifying
from holdfast.control import rollout as rolling
from holdfast.control import train as training
from holdfast.errors import RefusedError
from holdfast.qualify import standing
from holdfast.records import Verdict
from holdfast.rollout.machine import State
from holdfast.store import Store, rollouts, versions

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow", Verdict.ERROR: "red"}
_STANDING = {
    "qualified": "{version} is [green]qualified[/]; next: holdfast rollout {version}",
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
    if snapshot is None:
        snapshot = loaded.cut(store).snapshot
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
    version = version or versions.newest(store, loaded.model.name, role="candidate").version
    with report.progress("qualifying"):
        results = qualifying.qualify(store, loaded.model, version, now_us=now_us())
    state = standing(results)
    for result in results:
        colour = _COLOURS[result.verdict]
        report.say(f"[{colour}]{result.verdict:<12}[/] [bold]{result.gate}[/]: {escape(result.explanation)}")
    report.say(_STANDING[state].format(version=version))
    report.result({"version": version, "state": state, "gates": [result.as_dict() for result in results]})
    if state != "qualified":
        raise typer.Exit(1)


@command("Versions")
def rollout(
    version: VersionName = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Begin to roll a qualified version out. The control loop carries it on, and rolls it back when it does harm."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store = loaded.store()
    version = version or _newest_to_roll_out(store, loaded.model.name)
    before = rollouts.of_model(store, loaded.model.name)
    if versions.get(store, version).state == "qualified":
        replay_when_due(store, loaded.model, version, report)
    number = rolling.begin(store, loaded.model, version, actor=getpass.getuser(), now_us=now_us())
    if any(row.rollout == number for row in before):
        report.say(f"rollout {number} of {version} is under way already; nothing was changed")
    else:
        report.say(
            f"[green]ok[/] rollout {number} of {version} has begun; "
            "it goes on while `holdfast up` or `holdfast control` runs"
        )
    report.result({"rollout": number, "version": version})


def _newest_to_roll_out(store: Store, model: str) -> str:
    """The newest candidate, when it may be rolled out without being named.

    `RefusedError` HF403 when it did not pass its gates, or was taken back before: a person must then say which one is meant.
    """
    newest = versions.newest(store, model, role="candidate")
    if newest.state != "qualified":
        raise RefusedError(
            "HF403",
            f"the newest version, {newest.version}, is {newest.state} and not qualified",
            state="nothing was changed",
            next_command=f"holdfast qualify {newest.version}, or holdfast rollout with the name of an older version",
        )
    for row in rollouts.of_model(store, model):
        if row.challenger == newest.version and row.state in (State.ROLLING_BACK, State.ROLLED_BACK):
            raise RefusedError(
                "HF403",
                f"the newest version, {newest.version}, was taken back by {row.actor}: {row.reason}",
                state="nothing was changed",
                next_command=f"holdfast train, or holdfast rollout {newest.version} to try it again",
            )
    return newest.version
