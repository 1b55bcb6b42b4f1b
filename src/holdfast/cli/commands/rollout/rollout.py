"""Roll versions out: rollout start, status, pause, resume, undo, history, label."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape

from holdfast.cli.app import app
from holdfast.cli.commands.evaluation.replay import replay_when_due
from holdfast.cli.commands.rollout import history, rollback
from holdfast.cli.commands.rollout.policy import print_edit
from holdfast.cli.commands.runtimes.runtime_trial import try_when_due
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory, VersionName
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.reports.progress import RolloutProgress, progress
from holdfast.control.rollout import pause as pausing
from holdfast.control.rollout import reconcile as rolling
from holdfast.errors import RefusedError
from holdfast.formatting import ago, hours, share
from holdfast.records import Verdict
from holdfast.rollout import Canary
from holdfast.rollout.model.metric import SLICES
from holdfast.rollout.model.state_machine import State
from holdfast.store import Store
from holdfast.store.catalog import name_lookup
from holdfast.store.models import versions
from holdfast.store.rollout import rollouts

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow", Verdict.ERROR: "red"}

group = typer.Typer(
    name="rollout",
    help="Roll a version out: start, follow, pause, undo, and list what became of earlier ones.",
    no_args_is_help=True,
)
app.add_typer(group, rich_help_panel="Versions")

Reason = Annotated[str, typer.Option("--reason", help="Why; recorded in the ledger.")]


@group.command()
def start(
    version: VersionName = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Start the rollout of a qualified version. The control loop advances it, and rolls it back if it does harm.

    First replays recorded requests if the policy requires it, and tests the version with the runtime in force.

    Example: holdfast rollout start v3-1f2e3d4c
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store, model = loaded.store(), loaded.model
    version = (
        name_lookup.version(store, version, model.name) if version else _newest_to_roll_out(store, model.name)
    )
    before = rollouts.of_model(store, model.name)
    trial = None
    if versions.get(store, version).state == "qualified":
        if not any(row.running and row.challenger == version for row in before):
            trial = try_when_due(loaded, declaration, version, report)
        replay_when_due(store, model, version, report)
    number = rolling.begin(store, model, version, actor=getpass.getuser(), now_us=now_us())
    edited: dict[str, Any] | None = None
    if any(row.rollout_id == number for row in before):
        report.say(f"rollout {number} of {version} is under way already; nothing was changed")
    else:
        report.say(
            f"[green]ok[/] rollout {number} of {version} has begun; "
            "it goes on while `holdfast up` or `holdfast control` runs"
        )
        edited = print_edit(report, store, model, Canary.from_json(before[0].policy_json)) if before else None
    report.result(
        {
            "rollout": number,
            "version": version,
            "policy": edited,
            "tested_with": None if trial is None else trial.runtime,
        }
    )


@group.command()
def status(project: Directory = HERE, declaration: DeclarationFile = None, as_json: AsJson = False) -> None:
    """Show the running rollout, or the bake time after it: each metric against its bound.

    Example: holdfast rollout status
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    _show(report, loaded.store(), loaded.model.name)


@group.command()
def pause(
    reason: Reason = pausing.UNSAID,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Pause the canary at its share. Harm still rolls it back.

    Example: holdfast rollout pause --reason "lunch"
    """
    _move(pausing.pause, reason, Report(as_json=as_json), Project.load(project, declaration))


@group.command()
def resume(
    reason: Reason = pausing.UNSAID,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Resume a paused canary.

    Example: holdfast rollout resume
    """
    _move(pausing.resume, reason, Report(as_json=as_json), Project.load(project, declaration))


group.command(name="undo")(rollback.rollback)
group.command(name="history")(history.history)
group.command(name="label")(history.label)


def _move(move: Callable[..., int], reason: str, report: Report, loaded: Project) -> None:
    store = loaded.store()
    number = move(store, loaded.model.name, actor=getpass.getuser(), reason=reason, now_us=now_us())
    row = rollouts.get(store, number)
    report.say(f"[green]ok[/] rollout {number} is {row.state}: {escape(row.reason)}")
    report.result({"rollout": number, "state": row.state})


def _show(report: Report, store: Store, model: str) -> None:
    now = now_us()
    found = progress(store, model, now)
    if found is None:
        report.say(
            "no rollout is under way, and no promotion is watched; next: holdfast rollout start, or holdfast rollout history"
        )
        report.result({"progress": None})
        return
    report.say(
        f"rollout {found.rollout_id} of [bold]{found.challenger}[/] against {found.champion or 'nothing'}"
    )
    report.say(
        f"{found.state} {ago(found.step_started_at_us, now).removesuffix(' ago')}: {escape(found.reason)}"
    )
    if found.bake_until_us is not None:
        report.say(f"watched for {_span(found.bake_until_us - now)} more")
    else:
        steps = ", ".join(
            f"[bold]{share(ppm)}[/]" if step == found.step else share(ppm)
            for step, ppm in enumerate(found.steps_ppm)
        )
        copies = f", copies of {share(found.shadow_ppm)}" if found.shadow_ppm else ""
        report.say(f"share {share(found.share_ppm)}{copies}; steps {steps}")
        report.say(
            f"enough seen in {_span(found.enough_us)}; harm shown, if it goes on so, in {_span(found.harm_us)}"
        )
    _say_metrics(report, found)
    report.result({"progress": asdict(found)})


def _say_metrics(report: Report, found: RolloutProgress) -> None:
    rows = []
    for each in found.metrics:
        interval = "-"
        if each.estimate is not None and each.low is not None:
            high = "inf" if each.high is None else f"{each.high:.3g}"
            of = "" if each.difference == "odds ratio" else "difference of "
            interval = f"{of}{each.difference} {each.estimate:.3g} [{each.low:.3g}, {high}]"
        # Units of a step are counted until it has enough; how far beyond that says nothing.
        seen = f"{each.units:,}" if not each.needed else f"{each.units:,} of {each.needed:,}"
        if each.needed and each.units >= each.needed:
            seen = f"enough ({each.needed:,})"
        rows.append((each.metric, each.verdict, seen, f"{each.log_e:.1f} of {each.log_bound:.1f}", interval))
    report.table(
        "Evidence", ["metric", "verdict", "units", "ln e-value", "challenger against champion, 95 %"], rows
    )
    for each in found.metrics:
        if each.verdict is not Verdict.PASS or each.metric == SLICES:
            report.say(f"[{_COLOURS[each.verdict]}]{each.metric}[/]: {escape(each.explanation)}")


def _span(us: int | None) -> str:
    """A time to come, to one unit.

    >>> _span(None), _span(20_000_000), _span(7_200_000_000)
    ('unknown', '20.0 s', '2.0 h')
    """
    return "unknown" if us is None else hours(max(0, us))


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
            next_command=f"holdfast qualify {newest.version}, or holdfast rollout start with the name of an older version",
        )
    for row in rollouts.of_model(store, model):
        if row.challenger == newest.version and row.state in (State.ROLLING_BACK, State.ROLLED_BACK):
            raise RefusedError(
                "HF403",
                f"the newest version, {newest.version}, was taken back by {row.actor}: {row.reason}",
                state="nothing was changed",
                next_command=f"holdfast train, or holdfast rollout start {newest.version} to try it again",
            )
    return newest.version
