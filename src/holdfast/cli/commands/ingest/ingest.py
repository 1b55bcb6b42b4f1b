"""Check and load deliveries: check, ingest."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.commands.ingest.delivery_args import Given, Query, batch_id, given
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.executors.factory import open_executor
from holdfast.control.ingest import dry_run as checking
from holdfast.control.ingest.parallel import ingest_many
from holdfast.control.ingest.read import DeliverySpec
from holdfast.errors import InputError
from holdfast.feeds import Feed
from holdfast.formatting import counted
from holdfast.records import Level, Violation
from holdfast.store import Store

Files = Annotated[
    list[str] | None,
    typer.Argument(
        help="Parquet, CSV or JSON lines: files, directories, patterns such as 'in/*.csv', s3://bucket/prefix/; one batch "
        "each, or with --batch one in all. Or the URL of a PostgreSQL, with --query.",
        show_default="the feed's own source",
    ),
]

ExpectRows = Annotated[
    int | None,
    typer.Option(
        "--expect-rows",
        help="How many rows the sender says he sent; another number is refused.",
        show_default="what <file>.count beside it says, if there is one",
        min=0,
    ),
]

_SHOWN_ROWS = 5


@command("Rows")
def check(
    feed: Annotated[str | None, typer.Argument(help="Check a delivery against this feed's contract.")] = None,
    data: Annotated[str | None, typer.Argument(help="The delivery, as after `holdfast ingest FEED`.")] = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", help="The sender's id of the delivery.", show_default="the file's name"),
    ] = None,
    query: Query = None,
    expect_rows: ExpectRows = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Check the declaration, and with FEED and DATA what a load would accept, tell or refuse, and why. Writes nothing."""
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
        document |= _checked(
            report,
            loaded,
            loaded.feed(feed),
            _delivery(loaded, loaded.feed(feed), data, batch, query),
            expect_rows,
        )
    report.result(document)


def _delivery(project: Project, feed: Feed, data: str | None, batch: str | None, query: str | None) -> Given:
    if data is None and feed.source is None:
        raise InputError(
            "HF101",
            f"which file should be checked against {feed.name}?",
            next_command=f"holdfast check {feed.name} DATA",
        )
    named = batch if batch is not None or data is None or query is not None else batch_id(data)
    return given(feed, [] if data is None else [data], named, query, project.settings)[0]


def _checked(
    report: Report, project: Project, feed: Feed, delivery: Given, expect_rows: int | None
) -> dict[str, object]:
    data = delivery.shown
    with _history(project) as store:
        spec = DeliverySpec(delivery.batch, delivery.source, expect_rows)
        found = checking.check(store, feed, spec, now_us=now_us())
    if found.refusal is not None and not found.rows:
        report.say(f"[red]{escape(str(data))}[/] would be refused")
        say_violations(report, found.violations)
        raise found.refusal
    bad = found.rows - found.valid
    colour = "green" if not bad and found.level is None else "red" if found.refusal else "yellow"
    report.say(
        f"[{colour}]{escape(str(data))}[/]: {found.rows:,} rows, {found.valid:,} valid, {bad:,} for quarantine"
    )
    if found.already_loaded:
        report.say("this very content is loaded already; loading it again changes nothing")
    if found.reasons:
        report.table("Reasons", ["reason", "rows"], sorted(found.reasons.items()))
        shown = found.quarantined.head(_SHOWN_ROWS)
        columns = [name for name in (*feed.contract.key, "_reasons") if name in shown.columns]
        rows = [[_cell(value) for value in row] for row in shown.select(columns).rows()]
        report.table("The first of them", columns, rows)
    say_violations(report, found.violations)
    if found.refusal is not None:
        report.say(f"[red]it would be refused[/]: {found.refusal.code}")
    elif found.level is Level.ERROR:
        report.say(
            "[red]it would be loaded, and nothing would be trained on it[/] before somebody accepts it"
        )
    return {
        "rows": found.rows,
        "valid": found.valid,
        "quarantined": bad,
        "reasons": found.reasons,
        "violations": [asdict(each) for each in found.violations],
        "would_be": "refused" if found.refusal else "already_loaded" if found.already_loaded else "loaded",
    }


@contextmanager
def _history(project: Project) -> Iterator[Store]:
    """The project's store, or an empty one that is gone afterwards where the project has none yet: a check makes nothing."""
    if project.settings.root.is_dir():
        yield project.store()
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-check-") as directory:
        store = Store.open(Path(directory))
        yield store
        store.ledger.close()


def say_violations(report: Report, violations: Iterable[Violation]) -> None:
    """One line for each expectation that is not met."""
    for each in violations:
        about = f"{each.check} {each.subject}".strip()
        colour = "yellow" if each.level is Level.WARNING else "red"
        report.say(f"  [{colour}]{each.level}[/] [bold]{escape(about)}[/]: {escape(each.explanation)}")


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@command("Rows")
def ingest(
    feed: Annotated[str, typer.Argument(help="The feed that delivered the rows.")],
    files: Files = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", help="The sender's id of the delivery.", show_default="the file's name"),
    ] = None,
    query: Query = None,
    expect_rows: ExpectRows = None,
    executor: Annotated[
        str | None,
        typer.Option(
            "--executor",
            help="Where the files are read and checked: local, processes or ray.",
            show_default="HOLDFAST_EXECUTOR, else local",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            help="The Ray cluster, host:port or auto.",
            show_default="HOLDFAST_RAY_ADDRESS, else one on this machine for the time",
        ),
    ] = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Load batches: whole, once, in the order given, checked by the feed's contract. Loading a batch again changes nothing."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    target = loaded.feed(feed)
    paths = given(target, files or [], batch, query, loaded.settings)
    if expect_rows is not None and len(paths) > 1:
        raise InputError(
            "HF101",
            f"--expect-rows counts one delivery, but {len(paths)} files were given",
            state="nothing was loaded",
            next_command="holdfast ingest --help",
        )
    store = loaded.store()
    results = []
    with report.progress(f"loading {feed}") as step:
        running = open_executor(
            executor or loaded.settings.executor, ray_address or loaded.settings.ray_address
        )
        with closing(running):
            wanted = [DeliverySpec(each.batch, each.source, expect_rows) for each in paths]
            aggregates = loaded.model.aggregates
            for result in ingest_many(store, target, wanted, running, clock_us=now_us, aggregates=aggregates):
                results.append(result)
                step(len(results), len(paths))
    for result in results:
        colour = "yellow" if result.rows_quarantined > result.rows_loaded else "green"
        words = f"[{colour}]ok[/] {result.batch}: {result.rows_loaded:,} rows"
        if result.rows_quarantined:
            words += f", [yellow]{result.rows_quarantined:,} in quarantine[/]"
        if result.reasons:
            words += ": " + ", ".join(f"{n:,} {escape(why)}" for why, n in sorted(result.reasons.items()))
        report.say(words + (" (was loaded before)" if result.state == "already_loaded" else ""))
        say_violations(report, result.violations)
        if any(each.level is Level.ERROR for each in result.violations):
            report.say(
                f"  [red]suspect[/]: nothing is trained on it; next: holdfast backout {feed} {result.batch}, "
                f"or holdfast accept {feed} {result.batch} --reason WHY"
            )
    report.result({"batches": [result.as_dict() for result in results]})
