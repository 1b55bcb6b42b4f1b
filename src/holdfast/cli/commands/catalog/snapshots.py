"""Create and read snapshots: snapshot create, list, show, diff, export."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import app
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory, Limit
from holdfast.cli.output import Report
from holdfast.cli.project import Project
from holdfast.control.training import snapshots as cutting
from holdfast.formatting import counted, moment
from holdfast.store.catalog import delta, name_lookup, recent
from holdfast.tables import Snapshot
from holdfast.tables.apply_selection import SliceCount
from holdfast.tables.snapshot_diff import TableChange

_BAR = 30


class Format(StrEnum):
    """A table format that other tools read."""

    DELTA = "delta"


group = typer.Typer(
    name="snapshot",
    help="Snapshots of the tables: create, list, show, compare, export.",
    no_args_is_help=True,
)
app.add_typer(group, rich_help_panel="Rows")


@group.command()
def create(
    seed: Annotated[int, typer.Option("--seed", help="Decides which rows samples and caps keep.")] = 0,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Snapshot all tables as they are now; show which rows training would use and which the selection leaves out.

    Example: holdfast snapshot create
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store = loaded.store()
    found = cutting.preview(store, loaded.model, loaded.cut(store), seed=seed)
    _say_snapshot(report, found.snapshot)
    taken = found.selected.frame.height
    report.say(
        f"{taken:,} of {found.found:,} training rows teach; {found.held_out:,} rows are held out and not selected"
    )
    _say_left_out(report, found.selected.counts)
    _say_slices(report, found.selected.slices)
    for warning in found.selected.warnings:
        report.say(f"[yellow]warning[/] {escape(warning)}")
    report.result(found.as_dict())


@group.command(name="list")
def list_(
    limit: Limit = 20,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """List the snapshots that were made, the newest first. Example: holdfast snapshot list --limit 5"""
    report = Report(as_json=as_json)
    found = recent.made(Project.load(project, declaration).store(), limit=limit)
    report.table(
        "Snapshots",
        ["snapshot", "made", "tables", "rows", ""],
        [
            (row.snapshot, moment(row.created_at_us), row.tables, row.rows, "tainted" if row.tainted else "")
            for row in found.rows
        ],
    )
    if found.older:
        report.say(f"[dim]and {found.older:,} older; --limit shows more[/]")
    report.result({"snapshots": [asdict(row) for row in found.rows], "older": found.older})


@group.command()
def show(
    name: Annotated[str, typer.Argument(help="The snapshot, as in s41-9a3c12ff, or s41 for short.")],
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a snapshot: its tables, and every selection of its rows that was made."""
    report = Report(as_json=as_json)
    store = Project.load(project, declaration).store()
    snapshot, kept = cutting.show(store, name_lookup.snapshot(store, name))
    _say_snapshot(report, snapshot)
    for selection in kept:
        report.say(
            f"selection with seed {selection.seed}: {selection.rows_selected:,} of {selection.rows_total:,} rows teach"
        )
        _say_left_out(report, selection.counts)
        _say_slices(report, selection.slices)
    if not kept:
        report.say("[dim]no row of it was selected for training yet[/]")
    report.result({**cutting.shown(snapshot), "selections": [asdict(selection) for selection in kept]})


@group.command()
def diff(
    before: Annotated[str, typer.Argument(help="The older snapshot.")],
    after: Annotated[str, typer.Argument(help="The newer one.")],
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell how two snapshots differ: volume, contracts, distributions of columns, labels. No row is read.

    Beside the labels of both stands what the champion's newest answers say of theirs, estimated and as far as seen.
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store = loaded.store()
    before, after = name_lookup.snapshot(store, before), name_lookup.snapshot(store, after)
    changes = cutting.diff(store, before, after)
    for change in changes:
        _say_change(report, change)
    asked = cutting.answered(store, loaded.model.name)
    label = None if asked is None else asked.label
    if asked is not None and label is not None:
        report.say(f"newest {asked.answers:,} answers of {asked.version}: {escape(label.words)}")
    report.result(
        {
            "before": before,
            "after": after,
            "tables": [change.as_dict() for change in changes],
            "answers": None
            if asked is None or label is None
            else {"version": asked.version, **asdict(label)},
        }
    )


@group.command()
def export(
    snapshot: Annotated[
        str | None,
        typer.Argument(
            help="The snapshot to export.", show_default="a new one of all tables as they are now"
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="The table format.")] = Format.DELTA,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Export a snapshot as Delta tables over the same files, for Polars, DuckDB, Spark and others.

    Example: holdfast snapshot export s41-9a3c12ff --format delta
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store = loaded.store()
    snapshot = name_lookup.snapshot(store, snapshot) if snapshot else loaded.cut(store).snapshot
    exported = delta.publish(store, snapshot)
    report.say(f"[green]ok[/] snapshot [bold]{snapshot}[/] as {format_} tables")
    for table, path in sorted(exported.items()):
        report.say(f"  {table}: {escape(str(path))}")
    tables = {table: str(path) for table, path in exported.items()}
    report.result({"snapshot": snapshot, "format": format_, "tables": tables})


def _say_snapshot(report: Report, snapshot: Snapshot) -> None:
    report.say(
        f"snapshot [bold]{snapshot.snapshot}[/] of table version {snapshot.table_version}, {moment(snapshot.created_at_us)}"
    )
    report.table(
        "Tables", ["table", "rows", "files"], [(cut.table, cut.rows, cut.files) for cut in snapshot.tables]
    )
    if snapshot.incomplete_loads:
        left = ", ".join(f"{feed}/{batch}" for feed, batch, _ in snapshot.incomplete_loads)
        report.say(f"[yellow]held back[/] until their group is whole: {escape(left)}")
        report.say("  next: holdfast feeds")


def _say_left_out(report: Report, counts: dict[str, int]) -> None:
    if counts:
        report.table("Left out", ["by", "rows"], sorted(counts.items()))


def _say_slices(report: Report, slices: Iterable[SliceCount]) -> None:
    rows = list(slices)
    if not rows:
        return
    most = max(each.found for each in rows) or 1
    report.table(
        "Slices",
        ["column", "value", "found", "teach", ""],
        [(each.column, each.value, each.found, each.kept, _bar(each, most)) for each in rows],
    )


def _bar(each: SliceCount, most: int) -> str:
    """The rows that teach as full blocks, those that were found and do not as light ones."""
    whole, full = round(_BAR * each.found / most), round(_BAR * each.kept / most)
    return "█" * full + "░" * (whole - full)


def _say_change(report: Report, change: TableChange) -> None:
    report.say(
        f"[bold]{change.table}[/]: {change.rows_before:,} -> {change.rows_after:,} rows, "
        f"{counted(change.loads_added, 'load')} more, {change.loads_removed:,} gone"
    )
    if change.evolution is not None:
        for each in change.evolution.changes:
            report.say(f"  contract: {escape(f'{each.column}: {each.what} ({each.before} -> {each.after})')}")
    if change.label_before is not None and change.label_after is not None:
        report.say(f"  positive labels: {change.label_before:.1%} -> {change.label_after:.1%}")
    for column, why in change.not_compared:
        report.say(f"  [yellow]not compared[/] {escape(column or 'any column')}: {why}")
    if change.not_compared:
        report.say(
            "  they are compared once all loads in both snapshots were judged alike: back the older ones out and load them "
            "again, if it matters"
        )
    if change.columns:
        report.table(
            "",
            ["column", "stability index", "divergence (bits)", "effect", "missing", "what moved"],
            [
                (
                    column.column,
                    round(column.stability, 3),
                    round(column.divergence, 3),
                    None if column.effect is None else round(column.effect, 3),
                    f"{column.missing_before:.1%} -> {column.missing_after:.1%}",
                    column.description,
                )
                for column in change.columns
            ],
        )
