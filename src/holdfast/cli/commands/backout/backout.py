"""Follow and remove what a batch touched: backout, lineage."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli.app import command
from holdfast.cli.commands.runtimes.compatibility_check import ensure_compatible
from holdfast.cli.output import Output, escape
from holdfast.cli.project import Run, misused, now_us, with_project
from holdfast.control.backout import backout as backing
from holdfast.control.backout import retrain as retraining
from holdfast.control.backout.affected_predictions import write_affected
from holdfast.control.health import data_incidents
from holdfast.formatting import counted, timestamp
from holdfast.records import BatchId, canonical_json
from holdfast.store.backout import backout_loads, impact
from holdfast.store.catalog import lineage as lines
from holdfast.store.integrations import openlineage as operations_of
from holdfast.tables.backout import BackoutPlan, Impact, Retrain, explain, minutes, total_impact
from holdfast.tables.data_incident import DataIncident
from holdfast.tables.lineage import Node, format_tree
from holdfast.tables.openlineage import run_events

Feed = Annotated[str, typer.Argument(help="The feed that delivered the batch.")]
Batch = Annotated[str, typer.Argument(help="The batch: the sender's id of the delivery.")]


@command("Rows")
@with_project
def backout(
    run: Run,
    feed: Feed,
    batch: Batch,
    apply: Annotated[
        bool, typer.Option("--apply", help="Carry the plan out; without this it is only shown.")
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; recorded in the ledger. Required with --apply.")
    ] = "",
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Then snapshot, train, qualify and start the rollout. Requires --apply."
        ),
    ] = False,
    cost_per_prediction: Annotated[
        float | None,
        typer.Option(
            "--cost-per-prediction",
            help="The cost of one wrong prediction, for the total; kept with --apply.",
            min=0,
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            help="Write the affected predictions to this CSV file: ids, times, versions, keys.",
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """Show the plan that removes a batch and everything made from it; carry it out with --apply.

    Example: holdfast backout weather 2026-03-02 --apply --reason "degrees Celsius, labelled Fahrenheit"
    """
    store = run.store
    with store.ledger.read() as connection:
        known = backout_loads.feeds_known(connection)
    # A feed that is no longer declared is backed out by what the ledger knows of it.
    target = BatchId(feed if feed in known else run.project.feed(feed).name, batch)
    if (apply and not reason.strip()) or (rebuild and not apply):
        what = "--apply requires --reason" if apply else "--rebuild requires --apply"
        raise misused(what, f'holdfast backout {feed} {batch} --apply --reason "..."')
    document: dict[str, Any] = {"feed": feed, "batch": batch, "applied": apply}
    if apply:
        with run.out.progress("backing out"):
            done = backing.execute_backout(
                run.acting_store,
                run.model.feeds,
                target,
                reason=reason,
                actor=run.actor,
                now_us=now_us(),
                cost_per_prediction=cost_per_prediction,
            )
        plan = done.plan
        document |= {
            "state": done.state,
            "backout": done.backout_id,
            "reason": done.reason,
            "actor": done.actor,
            "requested_at_us": done.requested_at_us,
        }
        _print_done(run.out, done)
    else:
        with run.out.progress("planning"):
            plan = backing.plan_backout(store, run.model.feeds, target)
            plan = replace(plan, cost_per_prediction=cost_per_prediction)
        run.out.print(
            f"[bold]{escape(str(target))}[/]: the steps of a back-out, in order; nothing was changed"
        )
    explained, impact = explain(plan.steps), total_impact(plan)
    for number, line in enumerate(explained, start=1):
        run.out.print(f"  {number}. {escape(line)}")
    run.out.print(_described(impact))
    document |= {"steps": plan.steps_as_dicts(), "explained": explained, "impact": impact}
    document["data_incidents"] = _print_incidents(run, document.get("backout"))
    if predictions is not None:
        document["predictions"] = _write_predictions(run, plan, predictions)
    if rebuild and any(isinstance(step, Retrain) and step.model == run.model.name for step in plan.steps):
        document["rebuilt"] = _rebuild(run)
    elif not apply:
        run.out.print(f'next: holdfast backout {escape(feed)} {escape(batch)} --apply --reason "..."')
    run.out.result(document)


def _print_done(out: Output, done: backing.BackedOut) -> None:
    named = f"[bold]{escape(done.plan.feed)}/{escape(done.plan.batch)}[/]"
    by = f"by {escape(done.actor)} at {timestamp(done.requested_at_us)}: {escape(done.reason)}"
    match done.state:
        case "backed_out":
            out.print(f"[green]ok[/] {named} is backed out")
        case "carried_on":
            out.print(f"[green]ok[/] {named} is backed out; it was started {by}")
        case "already_backed_out":
            out.print(f"{named} was backed out before, {by}; nothing was changed")


def _print_incidents(run: Run, backout: int | None) -> list[DataIncident]:
    """Print and return how long the model had no clean version because of this back-out."""
    if backout is None:
        return []
    with run.store.ledger.read() as connection:
        known = data_incidents.find_incidents(connection, run.model.name, run.model.recovery_span)
    found = [each for each in known if each.backout_id == backout]
    for each in found:
        colour = "red" if each.is_exceeded(now_us()) else "yellow" if each.is_open else "green"
        run.out.print(f"[{colour}]data incident[/]: {escape(each.describe(now_us()))}")
    return found


def _write_predictions(run: Run, plan: BackoutPlan, file: Path) -> dict[str, Any]:
    """Write the affected predictions, and print how many there are."""
    with run.out.progress("writing predictions"):
        found = write_affected(run.store, plan, file, model=run.model.name, contract=run.model.contract)
    run.out.print(f"{counted(found.rows, 'prediction')} in {escape(str(file))}")
    for path in found.damaged:
        run.out.print(
            f"[yellow]{escape(path)} cannot be read; its predictions are missing[/]; next: holdfast verify"
        )
    return {"file": str(file), "rows": found.rows, "damaged": found.damaged}


def _described(found: Impact) -> str:
    text = (
        f"impact: {counted(found.rows, 'row')}, {counted(found.snapshots, 'snapshot')}, "
        f"{counted(found.versions, 'version')}, {counted(found.predictions, 'prediction')}"
    )
    if found.predictions_at_most:
        text += f", and at most {counted(found.predictions_at_most, 'prediction')} of clean versions"
    if found.first_us is not None and found.last_us is not None:
        text += f", {minutes(found.first_us, found.last_us)}"
    if found.cost is not None:
        text += f"; cost {found.cost:,.2f}"
    return text


def _rebuild(run: Run) -> dict[str, Any]:
    with run.out.progress("rebuilding"):
        made = retraining.retrain(
            run.store,
            run.model,
            run.project.snapshot(run.store),
            actor=run.actor,
            now_us=now_us(),
            clock_us=now_us,
            trial=lambda version: ensure_compatible(run, version, quiet=True),
        )
    if made.started is None:
        run.out.print(
            f"{made.version} is {made.state}: it is not rolled out; next: holdfast qualify {made.version}"
        )
    else:
        rollout = (
            "its rollout is queued behind the one under way"
            if made.rollout_id is None
            else f"rollout {made.rollout_id} has started"
        )
        run.out.print(f"[green]ok[/] {made.version} from snapshot {made.snapshot}: {rollout}")
    return asdict(made)


@command("Rows")
@with_project
def lineage(
    run: Run,
    node: Annotated[
        str,
        typer.Argument(
            help="feed/batch, a snapshot such as s7, a version such as v3, rollout:5, plan:7, predictions:v3, labels:v3"
        ),
    ],
    upstream: Annotated[
        bool,
        typer.Option("--upstream/--downstream", help="Show what it was made from, or what was made from it."),
    ] = False,
    openlineage: Annotated[
        bool, typer.Option("--openlineage", help="Print OpenLineage run events instead, one per line.")
    ] = False,
) -> None:
    """Show what was made from a batch, snapshot or version; with --upstream, what it was made from.

    Example: holdfast lineage v3-1f2e3d4c --upstream
    """
    store = run.store
    with store.ledger.read() as connection:
        start = lines.find(connection, node)
        found = (lines.up if upstream else lines.down)(connection, start)
        states = impact.state_of(connection, found.nodes)
    if openlineage:
        with store.ledger.read() as connection:
            operations = [each for node in found.nodes for each in operations_of.of_node(connection, node)]
        for operation in sorted(operations, key=lambda each: each.at_us):
            for run_event in run_events(operation, namespace=run.settings.openlineage_namespace):
                typer.echo(canonical_json(run_event))
        return

    def label(each: Node) -> str:
        return f"{each.kind} {each.name}" + (f" ({states[each]})" if each in states else "")

    for line in format_tree(found, label, up=upstream):
        run.out.print(escape(line))
    run.out.result(
        {
            "start": str(start),
            "direction": "upstream" if upstream else "downstream",
            "nodes": [
                {"node": str(each), "kind": each.kind, "name": each.name, "tainted": each in states}
                for each in found.nodes
            ],
            "edges": [[str(edge.parent), str(edge.child)] for edge in found.edges],
        }
    )
