"""Replay recorded requests: replay."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.app import command
from holdfast.cli.output import COLOURS, JUDGED, Output, escape
from holdfast.cli.project import Run, VersionName, now_us, with_project
from holdfast.control.evaluation import replay as replaying
from holdfast.control.evaluation.replay import ReplayReport
from holdfast.formatting import counted
from holdfast.records import Verdict, duration

_SHOWN = 5


@command("Versions")
@with_project
def replay(
    run: Run,
    version: VersionName = None,
    requests: Annotated[
        int | None,
        typer.Option(
            "--requests",
            help="The most requests to replay.",
            show_default="what the policy requires, or 1000",
            min=1,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", help="The oldest requests to replay, as in 7d or 12h.", show_default="any"),
    ] = None,
) -> None:
    """Replay recorded requests with a version, offline. Exit status 1 unless it passes.

    Example: holdfast replay v3-1f2e3d4c --requests 5000 --since 7d
    """
    version = run.candidate(version)
    now = now_us()
    since_us = 0 if since is None else now - round(duration(since, "--since").total_seconds() * 1e6)
    with run.out.progress(f"replaying {version}") as step:
        found = replaying.replay(
            run.store, run.model, version, requests=requests, since_us=since_us, now_us=now, progress=step
        )
    _print(found, run.out)
    run.out.result(found)
    if found.verdict is not Verdict.PASS:
        raise typer.Exit(JUDGED)


def replay_if_due(run: Run, version: str) -> None:
    """Replay if the policy requires it and `version` was not replayed yet; the rollout reads the stored verdict."""
    if replaying.is_due(run.store, run.model, version):
        with run.out.progress(f"replaying {version}") as step:
            found = replaying.replay(run.store, run.model, version, now_us=now_us(), progress=step)
        _print(found, run.out)


def _print(found: ReplayReport, out: Output) -> None:
    against = ", ".join(found.against) or "nothing"
    out.print(
        f"{found.version} against {against}: {counted(found.requests, 'request')}, {counted(found.rows, 'row')}, "
        f"{found.labelled:,} of them with a label"
    )
    for reason, many in list(found.refused.items())[:_SHOWN]:
        examples = ", ".join(found.refused_examples[reason])
        out.print(f"  [red]refused[/] {counted(many, 'request')} for {escape(reason)} ({escape(examples)})")
    for kind, many in found.failed.items():
        out.print(f"  [red]failed[/] {counted(many, 'request')}: {escape(kind)}")
    for text in found.metrics.values():
        out.print(f"  {escape(text)}")
    for each in found.slices[:_SHOWN]:
        out.print(
            f"  slice {escape(each['name'])}: {each['disagreement']:.1%} of {each['units']:,} units differ, "
            f"mean shift {each['shift']:+.4f}"
        )
    for row in found.worst:
        out.print(
            f"  {escape(row.prediction)}: {row.ours:.4f}, was {row.theirs:.4f} {escape(str(row.inputs))}"
        )
    for name in found.unknown_aggregates:
        out.print(f"  [yellow]the aggregate {escape(name)} has no values; it counted as missing[/]")
    for what, why in found.left_out.items():
        out.print(f"  [yellow]left out {escape(what)}: {escape(why)}[/]")
    out.print(f"[{COLOURS[found.verdict]}]{found.verdict}[/] {escape(found.explanation)}")
