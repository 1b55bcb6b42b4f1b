"""Follow and remove what a batch touched: backout, lineage."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.commands.runtimes.runtime_trial import try_when_due
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.backout import backout as backing
from holdfast.control.backout import retrain as rebuilding
from holdfast.errors import InputError
from holdfast.formatting import counted, moment
from holdfast.records import BatchId, canonical_json
from holdfast.store import Store
from holdfast.store.backout import backouts
from holdfast.store.catalog import lineage as lines
from holdfast.store.integrations import openlineage as facts
from holdfast.tables.backout import BackoutPlan, Retrain, explain, total_impact
from holdfast.tables.lineage import Node, format_tree
from holdfast.tables.openlineage import run_events

Feed = Annotated[str, typer.Argument(help="The feed that delivered the batch.")]
Batch = Annotated[str, typer.Argument(help="The batch: the sender's id of the delivery.")]


@command("Rows")
def backout(
    feed: Feed,
    batch: Batch,
    apply: Annotated[bool, typer.Option("--apply", help="Do it. Without this it is only shown.")] = False,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept in the ledger. Needed with --apply.")
    ] = "",
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Then cut a new snapshot, train, judge and begin the rollout. Needs --apply."
        ),
    ] = False,
    cost_per_prediction: Annotated[
        float | None,
        typer.Option("--cost-per-prediction", help="The cost of one wrong prediction, for the total.", min=0),
    ] = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Show, and with --apply do, what it takes to remove a batch and everything that was made from it."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store = loaded.store()
    with store.ledger.read() as connection:
        known = backouts.feeds_known(connection)
    # A feed that was declared once is backed out by what the ledger knows of it.
    target = BatchId(feed if feed in known else loaded.feed(feed).name, batch)
    if (apply and not reason.strip()) or (rebuild and not apply):
        raise InputError(
            "HF101",
            "--apply needs --reason, so that the next person knows why"
            if apply
            else "--rebuild needs --apply",
            state="nothing was changed",
            next_command=f'holdfast backout {feed} {batch} --apply --reason "..."',
        )
    document: dict[str, Any] = {"feed": feed, "batch": batch, "applied": apply}
    if apply:
        with report.progress("backing out"):
            done = backing.back_out(
                store, loaded.model.feeds, target, reason=reason, actor=getpass.getuser(), now_us=now_us()
            )
        plan = done.plan
        document |= {
            "state": done.state,
            "backout": done.backout_id,
            "reason": done.reason,
            "actor": done.actor,
            "requested_at_us": done.requested_at_us,
        }
        _say_done(report, done)
    else:
        with report.progress("looking"):
            plan = backing.plan_back_out(store, loaded.model.feeds, target)
        report.say(
            f"[bold]{escape(str(target))}[/]: what a back-out does, in this order; nothing was changed"
        )
    _say_plan(report, plan, cost_per_prediction)
    document |= {
        "steps": plan.steps_as_dicts(),
        "explained": explain(plan.steps),
        "impact": total_impact(plan, cost_per_prediction=cost_per_prediction).as_dict(),
    }
    if rebuild and any(isinstance(step, Retrain) and step.model == loaded.model.name for step in plan.steps):
        document["rebuilt"] = _rebuild(report, loaded, store, declaration)
    elif not apply:
        report.say(f'next: holdfast backout {escape(feed)} {escape(batch)} --apply --reason "..."')
    report.result(document)


def _say_done(report: Report, done: backing.BackedOut) -> None:
    named = f"[bold]{escape(done.plan.feed)}/{escape(done.plan.batch)}[/]"
    by = f"by {escape(done.actor)} at {moment(done.requested_at_us)}: {escape(done.reason)}"
    match done.state:
        case "backed_out":
            report.say(f"[green]ok[/] {named} is backed out")
        case "carried_on":
            report.say(f"[green]ok[/] {named} is backed out; that was begun {by}")
        case "already_backed_out":
            report.say(f"{named} was backed out before, {by}; nothing was changed")


def _say_plan(report: Report, plan: BackoutPlan, cost_per_prediction: float | None) -> None:
    for number, line in enumerate(explain(plan.steps), start=1):
        report.say(f"  {number}. {escape(line)}")
    reached = total_impact(plan, cost_per_prediction=cost_per_prediction)
    words = (
        f"reached: {counted(reached.rows, 'row')}, {counted(reached.snapshots, 'snapshot')}, "
        f"{counted(reached.versions, 'version')}, {counted(reached.predictions, 'prediction')}"
    )
    if reached.predictions_at_most:
        words += f", and at most {counted(reached.predictions_at_most, 'prediction')} of clean versions"
    if reached.first_us is not None:
        words += f", from {moment(reached.first_us)} to {moment(reached.last_us)}"
    if reached.cost is not None:
        words += f"; cost {reached.cost:,.2f}"
    report.say(words)


def _rebuild(report: Report, loaded: Project, store: Store, declaration: Path | None) -> dict[str, Any]:
    with report.progress("building again"):
        made = rebuilding.rebuild(
            store,
            loaded.model,
            loaded.cut(store),
            actor=getpass.getuser(),
            now_us=now_us(),
            trial=lambda version: try_when_due(loaded, declaration, version),
        )
    if made.rollout_id is None:
        report.say(
            f"{made.version} is {made.state}: it is not rolled out; holdfast qualify {made.version} says why"
        )
    else:
        report.say(
            f"[green]ok[/] {made.version} from snapshot {made.snapshot}: rollout {made.rollout_id} has begun"
        )
    return made.as_dict()


@command("Rows")
def lineage(
    node: Annotated[
        str,
        typer.Argument(
            help="feed/batch, a snapshot such as s7, a version such as v3, rollout:5, plan:7, answers:v3, labels:v3"
        ),
    ],
    upstream: Annotated[
        bool,
        typer.Option("--upstream/--downstream", help="Show what it was made from, or what was made from it."),
    ] = False,
    openlineage: Annotated[
        bool, typer.Option("--openlineage", help="Print OpenLineage run events instead, one to a line.")
    ] = False,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what was made from a batch, snapshot or version, or what it was made from."""
    report = Report(as_json=as_json)
    store = Project.load(project, declaration).store()
    with store.ledger.read() as connection:
        start = lines.find(connection, node)
        found = (lines.up if upstream else lines.down)(connection, start)
        words = backouts.told(connection, found.nodes)
        deeds = (
            [fact for each in found.nodes for fact in facts.of_node(connection, each)] if openlineage else []
        )
    if openlineage:
        for deed in sorted(deeds, key=lambda each: each.at_us):
            for run_event in run_events(deed):
                typer.echo(canonical_json(run_event))
        return
    for line in format_tree(found, lambda each: _told(each, words), up=upstream):
        report.say(escape(line))
    report.result(
        {
            "start": str(start),
            "direction": "upstream" if upstream else "downstream",
            "nodes": [
                {"node": str(each), "kind": each.kind, "name": each.name, "tainted": each in words}
                for each in found.nodes
            ],
            "edges": [[str(edge.parent), str(edge.child)] for edge in found.edges],
        }
    )


def _told(node: Node, words: dict[Node, str]) -> str:
    return f"{node.kind} {node.name}" + (f" ({words[node]})" if node in words else "")
