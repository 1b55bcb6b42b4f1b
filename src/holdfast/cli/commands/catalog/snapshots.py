"""Create and read snapshots: snapshot create, list, show, diff, export."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from holdfast.cli.app import command_group
from holdfast.cli.output import Output, escape
from holdfast.cli.project import Limit, Run, now_us, with_project
from holdfast.control.training import snapshots
from holdfast.formatting import counted, timestamp
from holdfast.store.backout import taints
from holdfast.store.catalog import delta, name_lookup, recent
from holdfast.tables import Snapshot
from holdfast.tables.row_selection import SliceCount
from holdfast.tables.snapshot_diff import TableChange

_BAR = 30


class Format(StrEnum):
    """A table format that other tools read."""

    DELTA = "delta"


group = command_group("snapshot", "Rows", "Snapshots of the tables: create, list, show, compare, export.")


@group.command()
@with_project
def create(
    run: Run,
    seed: Annotated[int, typer.Option("--seed", help="The seed of samples and caps.")] = 0,
) -> None:
    """Snapshot all tables as they are now; show which rows training would use and which the selection leaves out.

    Example: holdfast snapshot create
    """
    store = run.acting_store
    found = snapshots.preview(store, run.model, run.project.snapshot(store), seed=seed)
    _print_snapshot(run.out, found.snapshot)
    quality = snapshots.assess(store, found.snapshot.snapshot, now_us=now_us())
    run.out.print(quality.describe())
    taken = found.selected.frame.height
    run.out.print(
        f"{taken:,} of {found.found:,} training rows are selected; {found.held_out:,} more are held out"
    )
    _print_left_out(run.out, found.selected.counts)
    print_slices(run.out, found.selected.slices)
    for warning in found.selected.warnings:
        run.out.print(f"[yellow]warning[/] {escape(warning)}")
    run.out.result(found.as_dict() | {"quality": asdict(quality) | {"score": quality.score}})


@group.command(name="list")
@with_project
def list_(run: Run, limit: Limit = 20) -> None:
    """List the snapshots, newest first.

    Example: holdfast snapshot list --limit 5
    """
    with run.store.ledger.read() as connection:
        found = recent.made(connection, limit=limit)
    run.out.records(
        "Snapshots",
        found.rows,
        {
            "snapshot": lambda row: row.snapshot,
            "created": lambda row: timestamp(row.created_at_us),
            "tables": lambda row: row.tables,
            "rows": lambda row: row.rows,
            "": lambda row: "tainted" if row.tainted else "",
        },
    )
    if found.older:
        run.out.print(f"[dim]and {found.older:,} older; --limit shows more[/]")
    run.out.result({"snapshots": found.rows, "older": found.older})


@group.command()
@with_project
def show(
    run: Run,
    name: Annotated[str, typer.Argument(help="The snapshot, as in s41-9a3c12ff, or s41 for short.")],
) -> None:
    """Show a snapshot: its tables, and each selection of training rows from it.

    Example: holdfast snapshot show s41
    """
    with run.store.ledger.read() as connection:
        snapshot, selections = snapshots.show(connection, name_lookup.snapshot(connection, name))
        quality = snapshots.kept_quality(connection, snapshot.snapshot)
    _print_snapshot(run.out, snapshot)
    if quality is not None:
        run.out.print(quality.describe())
    for selection in selections:
        run.out.print(
            f"selection with seed {selection.seed}: {selection.rows_selected:,} of {selection.rows_total:,} rows are selected"
        )
        _print_left_out(run.out, selection.counts)
        print_slices(run.out, selection.slices)
    if not selections:
        run.out.print("[dim]no training rows were selected from it yet[/]")
    kept = None if quality is None else asdict(quality) | {"score": quality.score}
    run.out.result(snapshots.shown(snapshot) | {"selections": selections, "quality": kept})


@group.command()
@with_project
def diff(
    run: Run,
    before: Annotated[str, typer.Argument(help="The older snapshot.")],
    after: Annotated[str, typer.Argument(help="The newer snapshot.")],
) -> None:
    """Compare two snapshots: volume, contracts, distributions of columns, labels. Reads no rows.

    Also shows the labels of the champion's newest predictions, estimated and as observed.

    Example: holdfast snapshot diff s40 s41
    """
    store = run.store
    with store.ledger.read() as connection:
        before, after = name_lookup.snapshot(connection, before), name_lookup.snapshot(connection, after)
        changes = snapshots.diff(connection, before, after)
    for change in changes:
        _print_change(run.out, change)
    traffic = snapshots.last_traffic_comparison(store, run.model.name)
    predictions = None
    if traffic is not None and traffic.label is not None:
        run.out.print(
            f"newest {traffic.predictions:,} predictions of {traffic.version}: {escape(traffic.label.explanation)}"
        )
        predictions = {"version": traffic.version, **asdict(traffic.label)}
    tables = [change.as_dict() for change in changes]
    run.out.result({"before": before, "after": after, "tables": tables, "predictions": predictions})


@group.command()
@with_project
def export(
    run: Run,
    snapshot: Annotated[
        str | None,
        typer.Argument(
            help="The snapshot to export.", show_default="a new one of all tables as they are now"
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="The table format.")] = Format.DELTA,
) -> None:
    """Export a snapshot as Delta tables over the same files, for Polars, DuckDB, Spark and others.

    Each feed has one table, exported/FEED, and each export is its next Delta version. A tainted snapshot is refused. When a
    batch is backed out later, a new version lacks its rows.

    Example: holdfast snapshot export s41-9a3c12ff --format delta
    """
    snapshot = run.snapshot(snapshot)
    with run.store.ledger.read() as connection:
        taints.refuse(connection, "snapshot", snapshot)
    exported = delta.export(run.store, snapshot, now_us=now_us())
    run.out.print(f"[green]ok[/] snapshot [bold]{snapshot}[/] as {format_} tables")
    for table, path in sorted(exported.items()):
        run.out.print(f"  {table}: {escape(str(path))}")
    tables = {table: str(path) for table, path in exported.items()}
    run.out.result({"snapshot": snapshot, "format": format_, "tables": tables})


def _print_snapshot(out: Output, snapshot: Snapshot) -> None:
    out.print(
        f"snapshot [bold]{snapshot.snapshot}[/] of table version {snapshot.table_version}, {timestamp(snapshot.created_at_us)}"
    )
    out.table(
        "Tables",
        ["table", "rows", "files"],
        [(table.table, table.rows, table.files) for table in snapshot.tables],
    )
    if snapshot.incomplete_loads:
        left = ", ".join(f"{feed}/{batch}" for feed, batch, _ in snapshot.incomplete_loads)
        out.print(f"[yellow]held back[/] until their group is complete: {escape(left)}")
        out.print("  next: holdfast feeds")


def _print_left_out(out: Output, counts: dict[str, int]) -> None:
    if counts:
        out.table("Left out", ["by", "rows"], sorted(counts.items()))


def print_slices(out: Output, slices: Iterable[SliceCount]) -> None:
    """Print the rows of each slice before and after the selection, their shares, and their share of the weight."""
    rows = list(slices)
    most = max((each.found for each in rows), default=0) or 1

    def bar(each: SliceCount) -> str:
        """Return a bar: full blocks for selected rows, light blocks for the others."""
        length, full = round(_BAR * each.found / most), round(_BAR * each.kept / most)
        return "█" * full + "░" * (length - full)

    totals: dict[tuple[str, str], float] = {}
    for each in rows:
        for what, amount in (("found", each.found), ("kept", each.kept), ("weight", each.weight or 0.0)):
            totals[each.column, what] = totals.get((each.column, what), 0.0) + amount
    lines = [
        (
            each.column,
            each.value,
            each.found,
            _share(each.found, totals[each.column, "found"]),
            each.kept,
            _share(each.kept, totals[each.column, "kept"]),
            _share(each.weight, totals[each.column, "weight"]),
            bar(each),
        )
        for each in rows
    ]
    if lines:
        out.table("Slices", ["column", "value", "found", "share", "selected", "share", "weight", ""], lines)


def _share(part: float | None, whole: float) -> str:
    return "" if part is None or not whole else f"{part / whole:.1%}"


def _print_change(out: Output, change: TableChange) -> None:
    out.print(
        f"[bold]{change.table}[/]: {change.rows_before:,} -> {change.rows_after:,} rows, "
        f"{counted(change.loads_added, 'load')} added, {change.loads_removed:,} removed"
    )
    if change.evolution is not None:
        for each in change.evolution.changes:
            out.print(f"  contract: {escape(f'{each.column}: {each.what} ({each.before} -> {each.after})')}")
    if change.label_before is not None and change.label_after is not None:
        out.print(f"  positive labels: {change.label_before:.1%} -> {change.label_after:.1%}")
    for column, why in change.not_compared:
        out.print(f"  [yellow]not compared[/] {escape(column or 'any column')}: {why}")
    if change.not_compared:
        out.print(
            "  to compare them, back out and reload the older loads, so that all loads were profiled alike"
        )
    if change.columns:
        out.records(
            "",
            change.columns,
            {
                "column": lambda column: column.column,
                "stability index": lambda column: column.stability,
                "divergence (bits)": lambda column: column.divergence,
                "effect": lambda column: column.effect,
                "missing": lambda column: f"{column.missing_before:.1%} -> {column.missing_after:.1%}",
                "change": lambda column: column.description,
            },
        )
