"""Keep the store intact and small: verify, backup, restore, rebuild-ledger, compact, vacuum."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.app import command
from holdfast.cli.output import JUDGED, escape
from holdfast.cli.project import MODEL_FILE, Run, misused, now_us, with_directory, with_project
from holdfast.control.maintenance import backup as backing
from holdfast.control.maintenance import compact as compacting
from holdfast.control.maintenance import rebuild_ledger as ledger_rebuild
from holdfast.control.maintenance import repair as repairing
from holdfast.control.maintenance import vacuum as retention
from holdfast.control.maintenance import verify as verifying
from holdfast.control.maintenance.compact_collected import compact_collected
from holdfast.formatting import counted, timestamp
from holdfast.records import duration
from holdfast.settings import Settings

GROUP = "The store"
_SHOWN = 20

Backups = Annotated[Path, typer.Argument(help="The directory of the backups.", file_okay=False)]


@command(GROUP)
@with_project
def verify(
    run: Run,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what can be proved. Stop loaders and servers first.")
    ] = False,
    sources: Annotated[
        list[Path] | None,
        typer.Option("--backup", help="A backup to restore lost bytes from.", file_okay=False),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check only names, sizes and the ledger; read no content.")
    ] = False,
) -> None:
    """Check ledger, files, checksums, exported tables and logs against each other. Exit status 1 on a finding.

    Example: holdfast verify --repair --backup /mnt/backups
    """
    if quick and repair:
        what = "--repair checks everything, --quick does not"
        raise misused(what, "holdfast verify --help", state="nothing was checked")
    with run.out.progress("verifying") as step:
        if repair:
            repaired = repairing.repair(run.store, now_us=now_us(), sources=sources or (), progress=step)
            outcome, document = repaired.verification, repaired.as_dict()
        else:
            outcome = verifying.verify(run.store, now_us=now_us(), quick=quick, progress=step)
            document = outcome.as_dict()
    if repair and repaired.repairs:
        rows = [(each.subject, each.action, each.proof) for each in repaired.repairs]
        run.out.table("Repaired", ["subject", "repair", "proof"], rows)
    run.out.print(
        f"checked {counted(outcome.files, 'file')}, {counted(outcome.rows, 'row')}, "
        f"{counted(outcome.blobs, 'blob')}; removed {counted(outcome.swept, 'orphan')}"
    )
    run.out.print(
        "the ledger matches its page checksums"
        if outcome.checksums_verified
        else "the ledger has no page checksums, because it is in use, a process was killed, or it is on PostgreSQL; it was "
        "checked against itself and the files"
    )
    if outcome.findings:
        run.out.table(
            "Findings",
            ["code", "subject", "finding", "next"],
            [
                (found.code, found.subject, found.explanation, found.next_command)
                for found in outcome.findings
            ],
        )
    else:
        run.out.print("[green]ok[/] no findings")
    run.out.result(document)
    if outcome.findings:
        raise typer.Exit(JUDGED)


@command(GROUP)
@with_project
def backup(run: Run, directory: Backups) -> None:
    """Back up ledger and files, consistently, while other processes run. Copies only what is new.

    Example: holdfast backup /mnt/backups
    """
    with run.out.progress("backing up") as step:
        done = backing.backup(run.store, directory, now_us=now_us(), progress=step)
    run.out.print(
        f"[green]ok[/] backup [bold]{escape(done.name)}[/] shows {timestamp(done.at_us)}: {counted(done.rows, 'row')}, "
        f"{counted(done.files, 'file')}, {done.bytes:,} bytes; {done.copied_bytes:,} bytes copied in {done.seconds:.1f} s"
    )
    run.out.result(done)


@command(GROUP)
@with_directory
def restore(
    run: Run,
    directory: Backups,
    at: Annotated[
        str | None, typer.Option("--at", help="The name of the backup.", show_default="the newest")
    ] = None,
) -> None:
    """Restore a backup where there is no store, and verify every byte.

    Example: holdfast restore /mnt/backups
    """
    root, outer = run.settings.root, _outer_ledger(run.settings)
    with run.out.progress("restoring") as step:
        done = backing.restore(directory, root, name=at, ledger_url=outer, progress=step)
    run.out.print(
        f"[green]ok[/] backup [bold]{done.name}[/] is restored to {escape(str(root))}: {counted(done.rows, 'row')}, "
        f"{counted(done.files, 'file')}, verified, in {done.seconds:.1f} s; later changes than {timestamp(done.at_us)} are not "
        "in it, and heads of the event log that were stored later are unknown to it (holdfast audit --against)"
    )
    run.out.result(done)


def _outer_ledger(settings: Settings) -> str | None:
    """Return the URL of a ledger that is not a file of the store; None for one that is."""
    return None if str(settings.root) in settings.ledger_url else settings.ledger_url


@command(GROUP)
@with_project
def rebuild_ledger(run: Run) -> None:
    """Rebuild a lost ledger from the files, as far as they prove it. Stop everything that uses the store first.

    Takes expectations and groups of the feeds from the declaration, if there is one.

    Example: holdfast rebuild-ledger
    """
    out = run.out
    is_declared = run.declaration is not None or (run.directory / MODEL_FILE).is_file()
    with out.progress("reading the files") as step:
        done = ledger_rebuild.rebuild(
            run.settings.root,
            now_us=now_us(),
            model=run.model if is_declared else None,
            ledger_url=_outer_ledger(run.settings),
            progress=step,
        )
    out.print(
        f"[green]ok[/] rebuilt: {counted(done.batches, 'batch')} with {counted(done.rows, 'row')} in "
        f"{counted(done.files, 'file')}, "
        f"{done.backed_out:,} backed out, {counted(len(done.snapshots), 'snapshot')}, {counted(len(done.versions), 'version')}"
    )
    if done.old_ledger:
        out.print(f"the old ledger is now {escape(str(done.old_ledger))}")
    if done.not_rebuilt:
        out.table("Not rebuilt", ["what"], [(each,) for each in done.not_rebuilt])
    out.table("Not in any file", ["what"], [(each,) for each in ledger_rebuild.NOT_IN_FILES])
    out.result(asdict(done) | {"not_in_files": ledger_rebuild.NOT_IN_FILES})


@command(GROUP)
@with_project
def compact(
    run: Run,
    feed: Annotated[
        str | None, typer.Argument(help="The feed whose files to compact.", show_default="all feeds")
    ] = None,
) -> None:
    """Merge small files. Every row keeps its batch, and reads at every version stay the same.

    Without a feed, also the collected predictions, as the control loop does unless HOLDFAST_COMPACTION is no.

    Example: holdfast compact flights
    """
    feeds = None if feed is None else [run.project.feed(feed).name]
    with run.out.progress("compacting") as step:
        results = compacting.compact(run.store, feeds, now_us=now_us(), progress=step)
        if feeds is None:
            results += compact_collected(run.store, now_us=now_us(), progress=step)
    for table in results:
        files = f"{counted(table.files_before, 'file')}, now {table.files_after:,}"
        rows = (
            f"{counted(table.rows_rewritten, 'row')} rewritten" if table.rows_rewritten else "nothing to do"
        )
        run.out.print(f"[green]ok[/] {table.table}: {files}, {rows}")
    run.out.result({"tables": results})


@command(GROUP)
@with_project
def vacuum(
    run: Run,
    keep: Annotated[
        str, typer.Option("--keep", help="Keep what is younger than this, such as '30d' or '12h'.")
    ] = "30d",
    keep_last: Annotated[
        int, typer.Option("--keep-last", min=0, help="Keep at least this many of the newest snapshots.")
    ] = retention.NEWEST,
    keep_predictions: Annotated[
        str,
        typer.Option(
            "--keep-predictions",
            help="Keep collected predictions that are younger than this; later labels cannot be joined with older ones.",
        ),
    ] = "400d",
    apply: Annotated[
        bool, typer.Option("--apply", help="Carry it out; without this it is only shown.")
    ] = False,
) -> None:
    """Show which files no kept snapshot needs, and which predictions have expired; delete exactly these with --apply.

    Keeps the current tables, and every snapshot that a version with possible traffic was trained on.

    Example: holdfast vacuum --keep 30d --apply
    """
    now, span = now_us(), duration(keep, "--keep")
    shown = retention.plan(run.store, now_us=now, keep=span, newest=keep_last)
    old = retention.plan_expiry(run.store, now_us=now, keep=duration(keep_predictions, "--keep-predictions"))
    collected = sum(map(len, old.values()))
    if shown.files:
        sizes = [(file.table, file.path, file.bytes) for file in shown.files[:_SHOWN]]
        run.out.table("Files to delete", ["table", "file", "bytes"], sizes)
    if shown.snapshots:
        run.out.print(f"snapshots that cannot be read without them: {', '.join(shown.snapshots)}")
    if shown.exported:
        run.out.print(f"files of older versions of exported tables: {len(shown.exported):,}")
    if apply and (shown.files or shown.snapshots or shown.exported):
        retention.vacuum(run.store, shown, now_us=now, keep=span, newest=keep_last)
    if apply and collected:
        retention.expire(run.store, old, now_us=now)
    verb = "deleted" if apply else "would delete"
    if collected:
        run.out.print(
            f"[green]ok[/] {verb} {counted(collected, 'file')} of predictions older than {keep_predictions}"
        )
    files, expired = counted(len(shown.files), "file"), counted(len(shown.snapshots), "snapshot")
    run.out.print(
        f"[green]ok[/] {verb} {files}, {shown.bytes:,} bytes, {expired}; {len(shown.pinned):,} snapshots are pinned"
    )
    if (shown.files or shown.exported or collected) and not apply:
        run.out.print("nothing was changed; the same command with --apply does it")
    run.out.result(
        {
            "applied": apply,
            "files": [file.path for file in shown.files],
            "bytes": shown.bytes,
            "snapshots": list(shown.snapshots),
            "exported": list(shown.exported),
            "collected": old,
            "pinned": shown.pinned,
        }
    )
