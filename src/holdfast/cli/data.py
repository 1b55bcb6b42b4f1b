"""Commands for the rows: check, ingest, verify, publish."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.project import Project, now_us
from holdfast.cli.report import Report, counted
from holdfast.contract import compile_batch
from holdfast.control import ingest as loading
from holdfast.control import verify as verifying
from holdfast.errors import InputError
from holdfast.feeds import Feed
from holdfast.store import publish as publishing
from holdfast.store import sources

Files = Annotated[
    list[str],
    typer.Argument(help="CSV or Parquet files, one batch each; patterns such as 'in/*.csv' are allowed."),
]

_SHOWN_ROWS = 5


@command("Rows")
def check(
    feed: Annotated[str | None, typer.Argument(help="Check a delivery against this feed's contract.")] = None,
    data: Annotated[Path | None, typer.Argument(help="The delivery: a CSV or Parquet file.")] = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Check the declaration, and with FEED and DATA what a load would accept and why not. Writes nothing."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    model = loaded.model
    document: dict[str, object] = {
        "model": model.name,
        "contract": model.contract.hash,
        "feeds": [feed.name for feed in model.feeds],
        "features": len(model.features),
    }
    if feed is None:
        feeds, features = counted(len(model.feeds), "feed"), counted(len(model.features), "feature")
        report.say(f"[green]ok[/] model [bold]{model.name}[/]: {feeds}, {features}")
    else:
        document |= _checked(report, loaded.feed(feed), data)
    report.result(document)


def _checked(report: Report, feed: Feed, data: Path | None) -> dict[str, object]:
    if data is None:
        raise InputError(
            "HF201",
            f"which file should be checked against {feed.name}?",
            next_command=f"holdfast check {feed.name} DATA",
        )
    delivered = sources.read(data, feed.contract, missing_words=feed.missing_words)
    verdict = compile_batch(feed.contract)(delivered)
    valid, bad = verdict.valid.height, verdict.quarantined.height
    rows = valid + bad
    colour = "green" if not bad else "yellow"
    report.say(f"[{colour}]{escape(str(data))}[/]: {rows:,} rows, {valid:,} valid, {bad:,} for quarantine")
    if bad:
        report.table("Reasons", ["reason", "rows"], sorted(verdict.counts.items()))
        shown = verdict.quarantined.head(_SHOWN_ROWS)
        columns = [*feed.contract.key, "_reasons"]
        report.table(
            "The first of them",
            columns,
            [[_cell(value) for value in row] for row in shown.select(columns).rows()],
        )
    return {"rows": rows, "valid": valid, "quarantined": bad, "reasons": verdict.counts}


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@command("Rows")
def ingest(
    feed: Annotated[str, typer.Argument(help="The feed that delivered the files.")],
    files: Files,
    batch: Annotated[
        str | None,
        typer.Option("--batch", help="The sender's id of the delivery.", show_default="the file's name"),
    ] = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Load batches: whole, once, checked by the feed's contract. Loading the same batch again changes nothing."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    target = loaded.feed(feed)
    paths = _expand(files)
    if batch is not None and len(paths) > 1:
        raise InputError(
            "HF201",
            f"--batch names one delivery, but {len(paths)} files were given",
            state="nothing was loaded",
        )
    store = loaded.store()
    results = []
    with report.progress(f"loading {feed}") as step:
        for done, path in enumerate(paths):
            results.append(
                loading.ingest(
                    store,
                    target,
                    batch or _batch_id(path),
                    path,
                    now_us=now_us(),
                    aggregates=loaded.model.aggregates,
                )
            )
            step(done + 1, len(paths))
    for result in results:
        colour = "yellow" if result.rows_quarantined > result.rows_loaded else "green"
        words = f"[{colour}]ok[/] {result.batch}: {result.rows_loaded:,} rows"
        if result.rows_quarantined:
            words += f", [yellow]{result.rows_quarantined:,} in quarantine[/]"
        if result.reasons:
            words += ": " + ", ".join(f"{n:,} {escape(why)}" for why, n in sorted(result.reasons.items()))
        report.say(words + (" (was loaded before)" if result.state == "already_loaded" else ""))
    report.result({"batches": [result.as_dict() for result in results]})


@command("Rows")
def verify(
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Check ledger, files, footers, checksums and blobs against each other. Exit status 1 when something is wrong."""
    report = Report(as_json=as_json)
    store = Project.load(project, declaration).store()
    with report.progress("verifying") as step:
        outcome = verifying.verify(store, now_us=now_us(), progress=step)
    report.say(
        f"checked {outcome.files:,} files, {outcome.rows:,} rows, {outcome.blobs:,} blobs; swept {outcome.swept:,} orphans"
    )
    if outcome.findings:
        report.table(
            "Findings",
            ["code", "subject", "what", "next"],
            [
                (found.code, found.subject, found.explanation, found.next_command)
                for found in outcome.findings
            ],
        )
    else:
        report.say("[green]ok[/] nothing is wrong")
    report.result(outcome.as_dict())
    if outcome.findings:
        raise typer.Exit(1)


@command("Rows")
def publish(
    snapshot: Annotated[
        str | None,
        typer.Argument(help="The cut to publish.", show_default="a new one of all tables as they are"),
    ] = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Publish a snapshot as Delta tables over the same files, for Polars, DuckDB, Spark and others to read."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store = loaded.store()
    if snapshot is None:
        snapshot = loaded.cut(store).snapshot
    published = publishing.publish(store, snapshot)
    report.say(f"[green]ok[/] snapshot [bold]{snapshot}[/]")
    for table, path in sorted(published.items()):
        report.say(f"  {table}: {escape(str(path))}")
    report.result({"snapshot": snapshot, "tables": {table: str(path) for table, path in published.items()}})


def _expand(patterns: list[str]) -> list[Path]:
    paths: list[Path] = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]  # noqa: PTH207 - the pattern may be absolute
        if not found:
            raise InputError("HF201", f"no file matches {pattern}", state="nothing was loaded")
        paths.extend(Path(name) for name in found)
    return paths


def _batch_id(path: Path) -> str:
    """The id of a delivery that has none: its file's name, in the letters that an id may have.

    >>> _batch_id(Path("in/Flights 2013.01.csv"))
    'flights-2013-01'
    """
    return re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-")[:63]
