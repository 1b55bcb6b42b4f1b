"""Show, compare and restore declarations: declaration history, show, diff, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from holdfast.cli.app import command_group
from holdfast.cli.output import Output, escape, escape_lines
from holdfast.cli.project import Project, Reason, Run, now_us, with_directory, with_project
from holdfast.contract.evolution.declared_fields import FieldChange, compare_declarations, flatten_declaration
from holdfast.control.ingest import declarations as declared
from holdfast.errors import HoldfastError, InputError
from holdfast.formatting import counted, timestamp
from holdfast.records import DeclarationKind
from holdfast.store import Store
from holdfast.store.durability import fsync
from holdfast.store.feeds import declarations
from holdfast.store.feeds.declarations import DeclarationRow

REPLACED: Final = ".replaced"
"""The ending that a file gets when another one is restored in its place."""

Number = Annotated[
    int, typer.Argument(help="The number of a declaration, from `declaration history`.", min=1)
]

group = command_group(
    "declaration", "Rows", "What model.py declared when: list, compare, restore an earlier one."
)


@group.command()
@with_project
def history(
    run: Run, name: Annotated[str | None, typer.Argument(help="List only this feed or model.")] = None
) -> None:
    """List the declarations that were in force, what each changed, and how many loads each judged.

    One of a feed is recorded by its first load; one of the model by each command that loads, trains, qualifies or rolls out.

    Example: holdfast declaration history
    """
    lines = declared.history(run.store, name)
    heads = ("declaration", "of", "in force from", "by", "loads", "change")
    run.out.table(
        "Declarations",
        heads,
        [
            (
                *(change.row.declaration_id, f"{change.row.kind} {change.row.name}"),
                *(timestamp(change.row.recorded_at_us), change.row.actor, loads, change.explanation),
            )
            for change, loads in lines
        ],
    )
    run.out.result(
        {
            "declarations": [
                _as_document(change.row) | {"loads": loads, "fields": change.fields, "files": change.files}
                for change, loads in lines
            ]
        }
    )


@group.command()
@with_project
def show(
    run: Run,
    number: Number,
    source: Annotated[bool, typer.Option("--source", help="Show the text of the source files.")] = False,
) -> None:
    """Show the fields of a declaration, or its source files.

    Example: holdfast declaration show 3 --source
    """
    with run.store.ledger.read() as connection:
        row = declarations.get(connection, number)
    run.out.print(f"declaration {number} of {row.kind} {row.name}, from {timestamp(row.recorded_at_us)}")
    if source:
        for path, text in row.sources.items():
            run.out.print(f"[bold]{escape(path)}[/]")
            run.out.print(escape_lines(text))
    else:
        run.out.table("Fields", ["field", "value"], sorted(row.fields.items()))
    run.out.result(_as_document(row) | {"fields": row.fields, "sources": row.sources})


@group.command()
@with_project
def diff(
    run: Run,
    old: Number,
    new: Annotated[
        int | None,
        typer.Argument(help="The newer declaration.", min=1, show_default="what is declared now"),
    ] = None,
) -> None:
    """Compare two declarations of one feed or model, field by field.

    Example: holdfast declaration diff 2
    """
    with run.store.ledger.read() as connection:
        before = declarations.get(connection, old)
        after = None if new is None else declarations.get(connection, new)
    if after is not None and (after.kind, after.name) != (before.kind, before.name):
        raise InputError(
            "HF101",
            f"declaration {old} is of {before.kind} {before.name}, and {new} of {after.kind} {after.name}",
            state="nothing was changed",
            next_command="holdfast declaration history",
        )
    changes = compare_declarations(
        before.fields, _declared_now(run, before) if after is None else after.fields
    )
    _print_changes(run.out, changes)
    run.out.result({"old": old, "new": new, "changes": changes})


@group.command()
@with_directory
def restore(run: Run, number: Number, reason: Reason) -> None:
    """Write the source files of an earlier declaration of the model again, as they were.

    Each file that is replaced is kept with the ending `.replaced`. Loads, versions and traffic stay as they are: the next
    command runs with the restored declaration, and a change of contract is judged as any other.

    Example: holdfast declaration restore 3 --reason "the new expectations refuse every delivery"
    """
    store = Store.of(run.settings)
    with store.ledger.read() as connection:
        row = declarations.get(connection, number)
    if row.kind is not DeclarationKind.MODEL or not row.sources:
        raise InputError(
            "HF101",
            f"declaration {number} of {row.kind} {row.name} has no source files",
            state="nothing was changed",
            next_command=f"holdfast declaration history {row.name}",
        )
    written, kept = _write(run.directory.resolve(), row)
    declared.record_restored(store, row, reason=reason, actor=run.actor, now_us=now_us())
    run.out.print(
        f"[green]ok[/] declaration {number} is restored: {counted(len(written), 'file')} written"
        + (f", {escape(', '.join(kept))} kept" if kept else "")
    )
    for problem in _problems(run, row):
        run.out.print(f"[yellow]{escape(problem)}[/]")
    run.out.print("next: holdfast check")
    run.out.result({"declaration": number, "written": written, "kept": kept, "reason": reason})


def _write(directory: Path, row: DeclarationRow) -> tuple[list[str], list[str]]:
    """Write the files of `row` that differ; return their paths, and the paths of what they replaced."""
    written, kept = [], []
    for path, text in row.sources.items():
        file = (directory / path).resolve()
        if not file.is_relative_to(directory):
            raise InputError("HF101", f"{path} is outside of {directory}", state="nothing was changed")
        if file.is_file() and file.read_bytes() == text.encode():
            continue
        if file.is_file():
            replaced = file.with_name(file.name + REPLACED)
            fsync.replace(replaced, file.read_bytes())
            kept.append(str(replaced.relative_to(directory)))
        fsync.make_directory(file.parent)
        fsync.replace(file, text.encode())
        written.append(path)
    return written, kept


def _problems(run: Run, row: DeclarationRow) -> list[str]:
    """Return how what is declared now differs from `row`: by files that it does not keep, for example."""
    try:
        now = _declared_now(run, row)
    except HoldfastError as error:
        return [f"it cannot be loaded: {error}"]
    return [
        f"it declares something else than before: {each}" for each in compare_declarations(row.fields, now)
    ]


def _declared_now(run: Run, row: DeclarationRow) -> dict[str, str]:
    """Return the fields that the feed or model of `row` has in the model file as it is now."""
    loaded = Project.load(run.directory, run.declaration)
    if row.kind is DeclarationKind.MODEL:
        return declared.fields_of_model(loaded.model)
    return flatten_declaration(loaded.feed(row.name))


def _print_changes(out: Output, changes: tuple[FieldChange, ...]) -> None:
    out.print(counted(len(changes), "change") if changes else "no change")
    for each in changes:
        out.print(f"  {escape(str(each))}")


def _as_document(row: DeclarationRow) -> dict[str, object]:
    return {
        "declaration": row.declaration_id,
        "kind": row.kind,
        "name": row.name,
        "digest": row.digest,
        "actor": row.actor,
        "recorded_at_us": row.recorded_at_us,
    }
