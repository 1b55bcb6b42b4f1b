"""Show what a version was made with, and what it takes: versions requirements, versions example-request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.app import command_group
from holdfast.cli.output import JUDGED, escape, escape_lines
from holdfast.cli.project import Run, VersionName, now_us, with_project
from holdfast.control.reports.example_request import example_request, version_of_callers
from holdfast.control.training.environment import differences, installed, requirements
from holdfast.store.durability import fsync
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.train.artifact import read_metadata

group = command_group("versions", "Versions", "What versions were made with, and what a request to them is.")


@group.command(name="requirements")
@with_project
def requirements_(
    run: Run,
    version: VersionName = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write to this file instead.", dir_okay=False)
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare with what is installed here; exit status 1 if it differs."),
    ] = False,
) -> None:
    """Print the requirements file that installs the environment in which a version was trained.

    Example: holdfast versions requirements v3 --out requirements-v3.txt
    """
    name = run.candidate(version)
    with run.store.ledger.read() as connection:
        row = versions.get(connection, name)
    trained = read_metadata(blobs.get(run.store.root, row.digest)).environment
    text = requirements(name, trained)
    differing = differences(trained, installed(list(trained))) if check else {}
    if check:
        for package, (then, now) in differing.items():
            run.out.print(f"[yellow]{escape(package)}[/] {escape(then)} -> {escape(now)}")
        if not differing:
            run.out.print(f"[green]ok[/] this environment is that of {name}")
    elif out is None:
        run.out.print(escape_lines(text.rstrip()))
    if out is not None:
        fsync.replace(out, text.encode())
        run.out.print(f"[green]ok[/] {escape(str(out))}")
    run.out.result(
        {
            "version": name,
            "environment": trained,
            "requirements": text,
            "differences": {package: list(pair) for package, pair in differing.items()} if check else None,
        }
    )
    if differing:
        raise typer.Exit(JUDGED)


@group.command(name="example-request")
@with_project
def example_request_(
    run: Run,
    version: Annotated[
        str | None,
        typer.Argument(
            help="The version, as in v3-1f2e3d4c, or v3 for short.",
            show_default="the one that serves, else the newest",
        ),
    ] = None,
) -> None:
    """Print the body of a request that the version accepts: one row, with values as the newest rows have them.

    The body has no id, and need not have one. The requests of one id, such as a session's, are one unit: a rollout sends
    them to one arm. So a constant id makes all requests one unit.

    With --json also the version and the URL. Send it with `curl -H 'Content-Type: application/json' -d @- URL`.

    Example: holdfast versions example-request
    """
    name = run.candidate(version) if version else version_of_callers(run.store, run.model.name)
    body = json.loads(example_request(run.store, run.model, name, now_us=now_us()))
    url = f"{run.server_address()}/v2/models/{run.model.name}/infer"
    tensors = ",\n  ".join(json.dumps(each) for each in body["inputs"])
    run.out.print(escape_lines(f'{{"inputs": [\n  {tensors}\n]}}'))
    run.out.result({"version": name, "url": url, "request": body})
