"""Explain one rollout: explain."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from holdfast.cli.app import command
from holdfast.cli.output import COLOURS, Output, escape
from holdfast.cli.project import Run, now_us, with_project
from holdfast.control.reports.explain import RolloutEvent, RolloutHistory
from holdfast.control.reports.explain import explain as explanation_of
from holdfast.control.rollout.metric_summary import evidence_text
from holdfast.formatting import share, timestamp
from holdfast.records import EVERYTHING_PPM, Verdict
from holdfast.store.rollout import rollouts


@command("Versions")
@with_project
def explain(
    run: Run,
    rollout: Annotated[
        int | None, typer.Argument(help="The number of the rollout.", show_default="the newest", min=1)
    ] = None,
) -> None:
    """Explain a rollout: each decision with its evidence, the webhooks, and the traffic plan that followed.

    Example: holdfast explain 7
    """
    with run.store.ledger.read() as connection:
        number = rollout or rollouts.newest(connection, run.model.name).rollout_id
    explanation = explanation_of(run.store, number, now_us=now_us())
    _print(run.out, explanation)
    run.out.result(explanation.as_dict())


def _print(out: Output, explanation: RolloutHistory) -> None:
    row, policy = explanation.rollout, explanation.policy
    against = f"against {row.champion}" if row.champion else "the first version"
    out.print(
        f"[bold]rollout {row.rollout_id}[/] of {row.model}: {row.challenger}, {against}; it is [bold]{row.state}[/]"
    )
    steps = ", ".join(share(each) for each in policy.shares_ppm)
    out.print(
        f"  policy: steps {steps}; false rollbacks at most {policy.false_alarm:g}; {policy.units_per_step:,} units a step"
    )
    for event in explanation.events:
        _print_event(out, event)
    if explanation.next:
        out.print(f"[bold]next[/] {escape(explanation.next)}")
    if explanation.now:
        out.print("[bold]evidence now[/]")
        for metric in explanation.now:
            out.print(f"  {_metric(metric)}")
    for result in explanation.webhook_responses:
        if result.verdict is not Verdict.PASS:
            out.print(f"[yellow]hook {result.webhook}[/] before {result.event}: {escape(result.explanation)}")
    if explanation.push is not None:
        out.print(f"[bold]push outcome[/] {explanation.push.outcome}: {escape(explanation.push.reason)}")


def _print_event(out: Output, event: RolloutEvent) -> None:
    by = "" if event.actor == "holdfast" else f" by {escape(event.actor)}"
    out.print(
        f"[dim]{timestamp(event.at_us)}[/] [bold]{event.kind.replace('.', ' ').replace('_', ' ')}[/]{by}"
    )
    out.print(f"  {escape(event.explanation)}")
    for metric in event.evidence:
        out.print(f"  {_metric(metric)}")
    if event.plan is not None:
        out.print(f"  [dim]traffic:[/] {_traffic(event.plan)}")


def _metric(metric: dict[str, Any]) -> str:
    verdict = Verdict(metric["verdict"])
    wanting = f"; {metric['wanting']}" if metric["wanting"] else ""
    return (
        f"[{COLOURS[verdict]}]{verdict}[/] {metric['metric']}: {metric['units']:,} of {metric['needed']:,} units, "
        f"{evidence_text(metric['metric'], metric['log_e'], metric['log_bound'])}{escape(wanting)}"
    )


def _traffic(plan: dict[str, Any]) -> str:
    """Return a traffic plan in one line.

    >>> _traffic({"plan_id": 3, "champion": "v1", "challenger": "v2", "share_ppm": 50_000, "shadow": None, "shadow_ppm": 0})
    'plan 3, v1 answers, v2 gets 5 %'
    """
    text = f"plan {plan['plan_id']}, {plan['champion']} answers"
    if plan["challenger"] and plan["share_ppm"] == EVERYTHING_PPM:
        text = f"plan {plan['plan_id']}, {plan['challenger']} answers everything, {plan['champion']} what it cannot"
    elif plan["challenger"]:
        text += f", {plan['challenger']} gets {share(plan['share_ppm'])}"
    if plan["shadow"]:
        text += f", {plan['shadow']} gets copies of {share(plan['shadow_ppm'])}"
    return text
