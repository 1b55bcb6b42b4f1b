"""The command for recorded requests: replay."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory, VersionName
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.evaluation import replay as replaying
from holdfast.control.evaluation.replay import ReplayReport
from holdfast.declaration import Model
from holdfast.formatting import counted
from holdfast.records import Verdict, duration
from holdfast.store import Store
from holdfast.store.catalog import name_lookup
from holdfast.store.models import versions

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow", Verdict.ERROR: "red"}
_SHOWN = 5


@command("Versions")
def replay(
    version: VersionName = None,
    requests: Annotated[
        int | None,
        typer.Option(
            "--requests",
            help="How many recorded requests.",
            show_default="what the policy asks, or 1000",
            min=1,
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="How far back at most, as in 7d or 12h.", show_default="any")
    ] = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask a version what callers asked before, off line. Exit status 1 when it fails, 2 when too little is recorded.

    Example: holdfast replay v3-1f2e3d4c --requests 5000 --since 7d
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store = loaded.store()
    name = loaded.model.name
    version = (
        name_lookup.version(store, version, name)
        if version
        else versions.newest(store, name, role="candidate").version
    )
    now = now_us()
    since_us = 0 if since is None else now - round(duration(since, "--since").total_seconds() * 1e6)
    with report.progress(f"replaying {version}") as step:
        found = replaying.replay(
            store, loaded.model, version, requests=requests, since_us=since_us, now_us=now, progress=step
        )
    show(found, report)
    report.result(found.as_dict())
    if found.verdict is not Verdict.PASS:
        raise typer.Exit(2 if found.verdict is Verdict.INCONCLUSIVE else 1)


def replay_when_due(store: Store, model: Model, version: str, report: Report) -> None:
    """Replay when the policy asks for it and `version` was not replayed yet; the rollout reads the verdict itself."""
    if replaying.is_due(store, model, version):
        with report.progress(f"replaying {version}") as step:
            found = replaying.replay(store, model, version, now_us=now_us(), progress=step)
        show(found, report)


def show(found: ReplayReport, report: Report) -> None:
    """Say what a replay showed."""
    against = ", ".join(found.against) or "nobody"
    report.say(
        f"{found.version} beside {against}: {counted(found.requests, 'request')}, {counted(found.rows, 'row')}, "
        f"{found.labelled:,} of them with a label"
    )
    for reason, many in list(found.refused.items())[:_SHOWN]:
        examples = ", ".join(found.refused_examples[reason])
        report.say(f"  [red]refused[/] {counted(many, 'request')} for {escape(reason)} ({escape(examples)})")
    for kind, many in found.failed.items():
        report.say(f"  [red]failed[/] {counted(many, 'request')}: {escape(kind)}")
    for told in found.metrics.values():
        report.say(f"  {escape(told)}")
    for each in found.slices[:_SHOWN]:
        report.say(
            f"  slice {escape(each['name'])}: {each['disagreement']:.1%} of {each['units']:,} units decided otherwise, "
            f"mean shift {each['shift']:+.4f}"
        )
    for row in found.worst:
        report.say(
            f"  {escape(row.prediction)}: {row.ours:.4f}, was {row.theirs:.4f} {escape(str(row.inputs))}"
        )
    for name in found.unknown_aggregates:
        report.say(f"  [yellow]nothing is known of the aggregate {escape(name)}; it was taken for missing[/]")
    for what, why in found.left_out.items():
        report.say(f"  [yellow]left out {escape(what)}: {escape(why)}[/]")
    report.say(f"[{_COLOURS[found.verdict]}]{found.verdict}[/] {escape(found.explanation)}")
