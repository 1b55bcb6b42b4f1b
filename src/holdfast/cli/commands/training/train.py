"""Train and qualify versions: train, qualify."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from holdfast.cli.app import command
from holdfast.cli.commands.catalog.snapshots import print_slices
from holdfast.cli.commands.rollout.policy import forecast_now, print_forecast
from holdfast.cli.output import COLOURS, JUDGED, escape
from holdfast.cli.project import Run, VersionName, now_us, with_project
from holdfast.control.evaluation import qualify as qualifying
from holdfast.control.evaluation.equal_versions import find_equal_champion
from holdfast.control.runtimes import runtime
from holdfast.control.training import train as training
from holdfast.formatting import counted
from holdfast.qualify import decide_status
from holdfast.store.models import runtimes, versions
from holdfast.tables.selection import ALL_ROWS

_STANDING = {
    "qualified": "{version} is [green]qualified[/]; next: holdfast rollout start {version}",
    "registered": "{version} is [yellow]not decided[/]; "
    "load more labelled rows, or declare a longer holdout in the model file, and train again",
    "refused": "{version} is [red]refused[/]; it will not be rolled out",
}
_HEURISTIC = (
    "{version} is [green]qualified[/]; a heuristic is not rolled out: it can serve as fallback version"
)


@command("Versions")
@with_project
def train(
    run: Run,
    snapshot: Annotated[
        str | None,
        typer.Option(
            "--snapshot",
            help="The snapshot to train on.",
            show_default="a new one of all tables as they are now",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The seed of all randomness in training.", min=0)] = 0,
) -> None:
    """Train a version, and its heuristic, on a snapshot. The same snapshot, file and seed give the same version.

    Example: holdfast train --snapshot s41
    """
    store = run.acting_store
    snapshot = run.snapshot(snapshot)
    with run.out.progress("training") as step:
        trained = training.train(
            store, run.model, snapshot, now_us=now_us(), clock_us=now_us, seed=seed, progress=step
        )
    if trained.is_new:
        run.out.print(
            f"[green]ok[/] version [bold]{trained.version}[/] from snapshot {snapshot}: {counted(trained.rows_trained, 'row')}"
        )
    else:
        run.out.print(
            f"[yellow]no new version[/]: the training rows, declaration and seed are those of [bold]{trained.version}[/]"
        )
    excluded = {
        "held out for the gates": trained.rows_held_out,
        "with a label that is not due yet": trained.rows_not_due,
        "with a label that was not due or not known before the held-out days": trained.rows_embargoed,
        "without a label": trained.rows_unlabelled,
    } | {f"dropped for {reason}": rows for reason, rows in sorted(trained.dropped.items())}
    for why, rows in excluded.items():
        if rows:
            run.out.print(f"  {rows:,} {escape(why)}")
    if run.model.selection != ALL_ROWS:
        print_slices(run.out, trained.slices)
    with store.ledger.read() as connection:
        state = versions.get(connection, trained.version).state
    if state == "registered":
        run.out.print(f"next: holdfast qualify {trained.version}")
    else:
        feed = run.model.examples.name
        run.out.print(
            f"{trained.version} is {state}; newer rows give another version; next: holdfast ingest {feed} FILE"
        )
    run.out.result(asdict(trained) | {"snapshot": snapshot})


@command("Versions")
@with_project
def qualify(run: Run, version: VersionName = None) -> None:
    """Run every gate on a version. Exit status 1 if it may not be rolled out.

    Example: holdfast qualify v3
    """
    version = run.candidate(version)
    with run.out.progress("qualifying"):
        results = qualifying.qualify(run.acting_store, run.model, version, now_us=now_us())
    state = decide_status(results)
    if state == "qualified":
        own = runtimes.here(run.settings.build)
        runtime.qualified(run.store, run.model.name, version, own, now_us=now_us())
    for result in results:
        run.out.print(
            f"[{COLOURS[result.verdict]}]{result.verdict:<12}[/] [bold]{result.gate}[/]: {escape(result.explanation)}"
        )
    with run.store.ledger.read() as connection:
        is_candidate = versions.get(connection, version).role == "candidate"
    standing = _STANDING[state] if is_candidate or state != "qualified" else _HEURISTIC
    run.out.print(standing.format(version=version))
    champion, why = find_equal_champion(run.store, run.model.name, version)
    if why:
        run.out.print(f"[yellow]same as the champion[/]: {why}")
    if state == "qualified" and is_candidate:
        print_forecast(run.out, run.model, forecast_now(run))
    run.out.result({"version": version, "state": state, "gates": results, "equal_champion": champion or None})
    if state != "qualified":
        raise typer.Exit(JUDGED)
