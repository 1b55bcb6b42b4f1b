"""Commands for a rollout and its policy: rollout, policy."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.commands.evaluation.replay import replay_when_due
from holdfast.cli.commands.runtimes.runtime_trial import try_when_due
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory, VersionName
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.reports import policy_power
from holdfast.control.reports.progress import RolloutProgress, progress
from holdfast.control.rollout import pause as pausing
from holdfast.control.rollout import reconcile as rolling
from holdfast.declaration import Model
from holdfast.errors import InputError, RefusedError
from holdfast.formatting import ago, hours, share
from holdfast.records import Verdict
from holdfast.rollout import Canary
from holdfast.rollout.model.metric import SLICES
from holdfast.rollout.model.state_machine import State
from holdfast.rollout.power import PowerRow
from holdfast.store import Store
from holdfast.store.catalog import name_lookup
from holdfast.store.models import versions
from holdfast.store.rollout import rollouts

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow", Verdict.ERROR: "red"}


@command("Versions")
def rollout(
    version: VersionName = None,
    show: Annotated[
        bool, typer.Option("--show", help="Only show how far the rollout is, or the watch that follows it.")
    ] = False,
    pause: Annotated[
        bool, typer.Option("--pause", help="Hold the canary at its share. Harm still rolls it back.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let a canary that is held go on.")] = False,
    reason: Annotated[
        str, typer.Option("--reason", help="Why it is held or goes on; kept in the ledger.")
    ] = pausing.UNSAID,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Begin to roll a qualified version out. The control loop carries it on, and rolls it back when it does harm.

    Where `holdfast binary use` said what servers are, the version is tried with that first unless it was.

    Example: holdfast rollout v3-1f2e3d4c, and then holdfast rollout --show
    """
    report = Report(as_json=as_json)
    if show + pause + resume + (version is not None) > 1:
        raise InputError(
            "HF201",
            "a version, --show, --pause and --resume exclude each other",
            next_command="holdfast rollout --help",
        )
    loaded = Project.load(project, declaration)
    store = loaded.store()
    if show:
        _show(report, store, loaded.model.name)
    elif pause or resume:
        move = pausing.pause if pause else pausing.resume
        actor = getpass.getuser()
        number = move(store, loaded.model.name, actor=actor, reason=reason, now_us=now_us())
        row = rollouts.get(store, number)
        state = row.state
        report.say(f"[green]ok[/] rollout {number} is {state}: {escape(row.reason)}")
        report.result({"rollout": number, "state": state})
    else:
        _begin(report, loaded, declaration, version)


@command("Versions")
def policy(
    against: Annotated[
        int | None,
        typer.Option("--against", help="The rollout whose policy is the old one.", show_default="the last"),
    ] = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what the declared rollout policy costs and catches, beside the one of an earlier rollout.

    Both error rates: how often a good version is taken back, and which harm is found, how soon, with the traffic that the
    model really has. Example: holdfast policy --against 4
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store = loaded.store()
    declared: Canary = loaded.model.rollout
    before, number = declared, None
    if against is not None:
        before, number = Canary.from_json(rollouts.get(store, against).policy), against
    else:
        known = rollouts.of_model(store, loaded.model.name)
        if known:
            before, number = Canary.from_json(known[0].policy), known[0].rollout
    with report.progress("simulating the tests"):
        traffic = policy_power.measured(store, loaded.model.name, now_us=now_us())
        found = policy_power.compare(before, declared, traffic)
    settings = policy_power.settings_of(declared)
    report.table("The declared policy", ["setting", "value, durations in seconds"], list(settings.items()))
    _say_comparison(report, found, number)
    report.result({"policy": settings, "against": number, **asdict(found)})


def _begin(report: Report, loaded: Project, declaration: Path | None, version: str | None) -> None:
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
    if any(row.rollout == number for row in before):
        report.say(f"rollout {number} of {version} is under way already; nothing was changed")
    else:
        report.say(
            f"[green]ok[/] rollout {number} of {version} has begun; "
            "it goes on while `holdfast up` or `holdfast control` runs"
        )
        edited = _say_edit(report, store, model, Canary.from_json(before[0].policy)) if before else None
    report.result(
        {
            "rollout": number,
            "version": version,
            "policy": edited,
            "tried_with": None if trial is None else trial.binary,
        }
    )


def _say_edit(report: Report, store: Store, model: Model, before: Canary) -> dict[str, Any] | None:
    """What an edit of the policy since the last rollout does to both error rates, shortly; None when it was not edited."""
    if before == model.rollout:
        return None
    traffic = policy_power.measured(store, model.name, now_us=now_us())
    found = policy_power.compare(before, model.rollout, traffic, first_step_only=True)
    for change in found.changes:
        report.say(f"  policy: {change.field} was {escape(change.before)}, is {escape(change.after)}")
    report.say(f"  needless roll-backs: at most {found.alpha_before:.2%} before, {found.alpha_after:.2%} now")
    for each in found.power[:1]:
        report.say(
            f"  {each.metric}, {escape(each.effect)}, at {each.share_percent:g} %: half are found "
            f"{_minutes(each.before)} before, {_minutes(each.after)} now (all: holdfast policy)"
        )
    return asdict(found)


def _say_comparison(report: Report, found: policy_power.Comparison, number: int | None) -> None:
    old = f"the policy of rollout {number}"
    if number is None:
        report.say("no rollout has had a policy yet: this is the declared one alone")
    elif not found.changes:
        report.say(f"the declared policy is {old}")
    for change in found.changes:
        report.say(
            f"{change.field}: {escape(change.before)} in {old}, [bold]{escape(change.after)}[/] declared"
        )
    before = f"{found.alpha_before:.2%} before, " if found.changes else ""
    report.say(
        f"needless roll-backs of a good version: at most {before}{found.alpha_after:.2%} declared "
        "in all stages together (replay, shadow, canary, watch)"
    )
    if found.traffic is None:
        report.say("what it would find is unknown: the model has had no traffic in the last 7 days")
        return
    report.say(
        f"measured: {found.traffic.units_per_minute:,.1f} requests a minute, "
        f"{found.traffic.labelled_per_minute:,.1f} labelled, {found.traffic.error_rate:.3%} failed"
    )
    twice = bool(found.changes)  # the same policy beside itself says nothing
    measures = ("in its step", "within an hour", "half found")
    heads = [head for each in measures for head in ((each, "declared") if twice else (each,))]
    report.table(
        "What is found, before and declared" if twice else "What is found",
        ["metric", "harm", "share", *heads],
        [
            (
                each.metric,
                each.effect,
                f"{each.share_percent:g} %",
                *(
                    cell(row)
                    for cell in (_within_step, _within_hour, _minutes)
                    for row in ((each.before, each.after) if twice else (each.after,))
                ),
            )
            for each in found.power
        ],
    )


def _within_step(row: PowerRow | None) -> str:
    return "-" if row is None else f"{row.within_step:.0%}"


def _within_hour(row: PowerRow | None) -> str:
    return "-" if row is None else f"{row.within_hour:.0%}"


def _minutes(row: PowerRow | None) -> str:
    if row is None:
        return "-"
    if row.median_minutes is None:
        return f"after {row.looked_minutes:,.3g} min"
    return f"in {row.median_minutes:,.3g} min"


def _show(report: Report, store: Store, model: str) -> None:
    now = now_us()
    found = progress(store, model, now)
    if found is None:
        report.say(
            "no rollout is under way, and no promotion is watched; next: holdfast rollout, or holdfast pushes"
        )
        report.result({"progress": None})
        return
    report.say(
        f"rollout {found.rollout} of [bold]{found.challenger}[/] against {found.champion or 'nothing'}"
    )
    report.say(
        f"{found.state} {ago(found.step_started_us, now).removesuffix(' ago')}: {escape(found.reason)}"
    )
    if found.watch_until_us is not None:
        report.say(f"watched for {_span(found.watch_until_us - now)} more")
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
