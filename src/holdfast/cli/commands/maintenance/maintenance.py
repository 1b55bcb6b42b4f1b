"""Commands that keep the store whole and small: verify, backup, restore, repair-ledger, compact, vacuum."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import MODEL_FILE, Project, now_us
from holdfast.control.maintenance import backup as backing
from holdfast.control.maintenance import compact as compacting
from holdfast.control.maintenance import rebuild_ledger as recovering
from holdfast.control.maintenance import repair as repairing
from holdfast.control.maintenance import vacuum as retention
from holdfast.control.maintenance import verify as verifying
from holdfast.errors import InputError
from holdfast.formatting import counted, moment
from holdfast.records import duration
from holdfast.settings import Settings

GROUP = "The store"
_SHOWN = 20

Backups = Annotated[Path, typer.Argument(help="The directory that holds the backups.", file_okay=False)]


@command(GROUP)
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be proved; stop loaders and servers first.")
    ] = False,
    sources: Annotated[
        list[Path] | None,
        typer.Option("--backup", help="A backup to restore lost bytes from.", file_okay=False),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only names, sizes and the ledger; no content is read.")
    ] = False,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Check ledger, files, checksums, published tables and logs against each other. Exit status 1 when something is wrong."""
    report = Report(as_json=as_json)
    if quick and repair:
        raise InputError(
            "HF101",
            "--repair looks at everything, --quick does not",
            state="nothing was looked at",
            next_command="holdfast verify --help",
        )
    store = Project.load(project, declaration).store()
    document: dict[str, object] = {}
    with report.progress("verifying") as step:
        if repair:
            repaired = repairing.repair(store, now_us=now_us(), sources=sources or (), progress=step)
            outcome, document = repaired.verification, repaired.as_dict()
        else:
            outcome = verifying.verify(store, now_us=now_us(), quick=quick, progress=step)
            document = outcome.as_dict()
    if repair and repaired.repairs:
        rows = [(each.subject, each.action, each.proof) for each in repaired.repairs]
        report.table("Repaired", ["subject", "what", "proof"], rows)
    report.say(
        f"checked {outcome.files:,} files, {outcome.rows:,} rows, {outcome.blobs:,} blobs; swept {outcome.swept:,} orphans"
    )
    report.say(
        "the ledger matches its page checksums"
        if outcome.checksums_verified
        else "the ledger has no page checksums, so it was checked against its files alone: it is in use, a process was killed, "
        "or it is on PostgreSQL"
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
    report.result(document)
    if outcome.findings:
        raise typer.Exit(1)


@command(GROUP)
def backup(
    directory: Backups,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Back ledger and files up as they are at this moment, beside whatever runs; only what is new is copied."""
    report = Report(as_json=as_json)
    store = Project.load(project, declaration).store()
    with report.progress("backing up") as step:
        done = backing.backup(store, directory, now_us=now_us(), progress=step)
    report.say(
        f"[green]ok[/] backup [bold]{done.name}[/] shows {moment(done.at_us)}: {done.rows:,} rows, "
        f"{counted(done.files, 'file')}, {done.bytes:,} bytes; {done.copied_bytes:,} bytes copied in {done.seconds:.1f} s"
    )
    report.result(done.as_dict())


@command(GROUP)
def restore(
    directory: Backups,
    at: Annotated[
        str | None, typer.Option("--at", help="The name of the backup.", show_default="the newest")
    ] = None,
    project: Directory = HERE,
    as_json: AsJson = False,
) -> None:
    """Make the store as a backup shows it, where there is none, and verify it to the byte."""
    report = Report(as_json=as_json)
    settings = Settings.read(project)
    inside = str(settings.root) in settings.ledger_url
    with report.progress("restoring") as step:
        done = backing.restore(
            directory,
            settings.root,
            name=at,
            ledger_url=None if inside else settings.ledger_url,
            progress=step,
        )
    report.say(
        f"[green]ok[/] backup [bold]{done.name}[/] is back at {escape(str(settings.root))}: {done.rows:,} rows, "
        f"{counted(done.files, 'file')}, verified, in {done.seconds:.1f} s; what came after {moment(done.at_us)} is not in it, "
        "and heads of the story that were kept later do not stand (holdfast audit --against)"
    )
    report.result(done.as_dict())


@command(GROUP)
def repair_ledger(
    project: Directory = HERE, declaration: DeclarationFile = None, as_json: AsJson = False
) -> None:
    """Rebuild a lost ledger from the files. Stop everything that uses the store first.

    Expectations and groups of the feeds are taken from the declaration, if there is one.
    """
    report = Report(as_json=as_json)
    settings = Settings.read(project)
    inside = str(settings.root) in settings.ledger_url
    there = declaration is not None or (project / MODEL_FILE).is_file()
    with report.progress("reading the files") as step:
        done = recovering.recover(
            settings.root,
            now_us=now_us(),
            model=Project.load(project, declaration).model if there else None,
            ledger_url=None if inside else settings.ledger_url,
            progress=step,
        )
    report.say(
        f"[green]ok[/] made again: {done.batches:,} batches with {done.rows:,} rows in {counted(done.files, 'file')}, "
        f"{done.backed_out:,} backed out, {len(done.snapshots):,} snapshots, {len(done.versions):,} versions"
    )
    if done.old_ledger:
        report.say(f"the old ledger is kept as {done.old_ledger}")
    if done.unproved:
        report.table("Not proved, so not made again", ["what"], [(each,) for each in done.unproved])
    report.table("Not in any file", ["what"], [(each,) for each in recovering.NOT_IN_FILES])
    report.result(done.as_dict())


@command(GROUP)
def compact(
    feed: Annotated[
        str | None, typer.Argument(help="The feed whose files to put together.", show_default="all feeds")
    ] = None,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Put small files together. Every row keeps its batch, and what is read at any version stays as it was."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    feeds = None if feed is None else [loaded.feed(feed).name]
    with report.progress("compacting") as step:
        results = compacting.compact(loaded.store(), feeds, now_us=now_us(), progress=step)
    for table in results:
        files = f"{counted(table.files_before, 'file')}, now {table.files_after:,}"
        rows = f"{table.rows_rewritten:,} rows rewritten" if table.rows_rewritten else "nothing to do"
        report.say(f"[green]ok[/] {table.table}: {files}, {rows}")
    report.result({"tables": [table.as_dict() for table in results]})


@command(GROUP)
def vacuum(
    keep: Annotated[
        str, typer.Option("--keep", help="What is younger than this stays readable, such as '30d' or '12h'.")
    ] = "30d",
    keep_last: Annotated[
        int, typer.Option("--keep-last", min=0, help="How many of the newest snapshots stay, however old.")
    ] = retention.NEWEST,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this it is only shown.")] = False,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Show which files nothing needs any more, and with --apply let exactly these go.

    What the tables are now stays, and so does every snapshot that a version was trained on which may still be given
    traffic.
    """
    report = Report(as_json=as_json)
    store, moment, span = Project.load(project, declaration).store(), now_us(), duration(keep, "--keep")
    shown = retention.plan(store, now_us=moment, keep=span, newest=keep_last)
    if shown.files:
        sizes = [(file.table, file.path, file.bytes) for file in shown.files[:_SHOWN]]
        report.table("Files that may go", ["table", "file", "bytes"], sizes)
    if shown.snapshots:
        report.say(f"snapshots that cannot be read without them: {', '.join(shown.snapshots)}")
    if apply and (shown.files or shown.snapshots):
        retention.vacuum(store, shown, now_us=moment, keep=span, newest=keep_last)
    done = "let go of" if apply else "would let go of"
    files, cuts = counted(len(shown.files), "file"), counted(len(shown.snapshots), "snapshot")
    report.say(
        f"[green]ok[/] {done} {files}, {shown.bytes:,} bytes, {cuts}; {len(shown.pinned):,} stay for certain"
    )
    if shown.files and not apply:
        report.say("nothing was changed; the same command with --apply does it")
    report.result(
        {
            "applied": apply,
            "files": [file.path for file in shown.files],
            "bytes": shown.bytes,
            "snapshots": list(shown.snapshots),
            "pinned": shown.pinned,
        }
    )
