"""The command that tells one rollout's story: explain."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import Project
from holdfast.control.reports.explain import Chapter, Story
from holdfast.control.reports.explain import explain as told
from holdfast.formatting import moment, share
from holdfast.records import EVERYTHING_PPM, Verdict
from holdfast.store.rollout import rollouts

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow", Verdict.ERROR: "red"}


@command("Versions")
def explain(
    rollout: Annotated[
        int | None, typer.Argument(help="The number of the rollout.", show_default="the newest", min=1)
    ] = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell why a rollout is where it is: each decision with what was known then, hooks, and the traffic that followed.

    Example: holdfast explain 7
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store = loaded.store()
    number = rollout or rollouts.newest(store, loaded.model.name).rollout_id
    story = told(store, number)
    _print(report, story)
    report.result(story.as_dict())


def _print(report: Report, story: Story) -> None:
    row, policy = story.rollout, story.policy
    against = f"against {row.champion}" if row.champion else "the first version"
    report.say(
        f"[bold]rollout {row.rollout_id}[/] of {row.model}: {row.challenger}, {against}; it is [bold]{row.state}[/]"
    )
    steps = ", ".join(share(each) for each in policy.shares_ppm)
    report.say(
        f"  policy: steps {steps}; needless roll-backs at most {policy.false_alarm:g}; {policy.units_per_step:,} units a step"
    )
    for chapter in story.chapters:
        _print_chapter(report, chapter)
    if story.now:
        report.say("[bold]known now[/]")
        for metric in story.now:
            report.say(f"  {_metric(metric)}")
    for answer in story.answers:
        if answer.verdict is not Verdict.PASS:
            report.say(
                f"[yellow]hook {answer.webhook}[/] before {answer.event}: {escape(answer.explanation)}"
            )
    if story.push is not None:
        report.say(f"[bold]push outcome[/] {story.push.outcome}: {escape(story.push.reason)}")


def _print_chapter(report: Report, chapter: Chapter) -> None:
    by = "" if chapter.actor == "holdfast" else f" by {escape(chapter.actor)}"
    report.say(
        f"[dim]{moment(chapter.at_us)}[/] [bold]{chapter.kind.replace('.', ' ').replace('_', ' ')}[/]{by}"
    )
    report.say(f"  {escape(chapter.explanation)}")
    for metric in chapter.evidence:
        report.say(f"  {_metric(metric)}")
    if chapter.plan is not None:
        report.say(f"  [dim]traffic:[/] {_traffic(chapter.plan)}")


def _metric(metric: dict[str, Any]) -> str:
    verdict = Verdict(metric["verdict"])
    wanting = f"; {metric['wanting']}" if metric["wanting"] else ""
    return (
        f"[{_COLOURS[verdict]}]{verdict}[/] {metric['metric']}: {metric['units']:,} of {metric['needed']:,} units, "
        f"ln e-value {metric['log_e']:.2f} of {metric['log_bound']:.2f}{escape(wanting)}"
    )


def _traffic(plan: dict[str, Any]) -> str:
    """A traffic plan in one line.

    >>> _traffic({"plan": 3, "champion": "v1", "challenger": "v2", "share_ppm": 50_000, "shadow": None, "shadow_ppm": 0})
    'plan 3, v1 answers, v2 gets 5 %'
    """
    words = f"plan {plan['plan']}, {plan['champion']} answers"
    if plan["challenger"] and plan["share_ppm"] == EVERYTHING_PPM:
        words = (
            f"plan {plan['plan']}, {plan['challenger']} answers everything, {plan['champion']} what it cannot"
        )
    elif plan["challenger"]:
        words += f", {plan['challenger']} gets {share(plan['share_ppm'])}"
    if plan["shadow"]:
        words += f", {plan['shadow']} gets copies of {share(plan['shadow_ppm'])}"
    return words
