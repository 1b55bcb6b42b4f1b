"""Print what a command found: text and tables for a person, or one JSON document for a program, never both."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Final, TextIO, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from holdfast.errors import (
    ConflictError,
    HoldfastError,
    InputError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from holdfast.records import Progress, Verdict, to_plain

Row = TypeVar("Row")

EXIT_STATUS: Final[dict[type[HoldfastError], int]] = {
    InputError: 2,
    NotFoundError: 3,
    ConflictError: 4,
    RefusedError: 5,
    IntegrityError: 6,
    UnavailableError: 7,
}
"""The exit status of each kind of error; 0 is success, 1 a check that failed (a gate, a verification)."""

COLOURS: Final = {
    Verdict.PASS: "green",
    Verdict.FAIL: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.ERROR: "red",
}

_UNBROKEN: Final = 10_000
"""The width of an output that is not a terminal, in characters: wider than any table."""


class Output:
    """The output of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._out = _console(sys.stdout, quiet=as_json)
        self._err = _console(sys.stderr)

    def print(self, text: str) -> None:
        """Print one line for a person. It may hold Rich markup: escape data with `rich.markup.escape`."""
        self._out.print(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table for a person."""
        table = Table(
            title=title,
            title_justify="left",
            title_style="bold",
            header_style="dim",
            box=None,
            pad_edge=False,
        )
        for position, column in enumerate(columns):
            numeric = bool(rows) and all(
                isinstance(row[position], int | float) or row[position] is None for row in rows
            )
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(escape(cell(value)) for value in row))
        self._out.print(table)

    def records(
        self, title: str, rows: Iterable[Row], columns: Mapping[str, Callable[[Row], object]]
    ) -> None:
        """Print a table for a person: one line for each row, and the function that gives each column's value."""
        self.table(title, list(columns), [[value(row) for value in columns.values()] for row in rows])

    def result(self, document: object) -> None:
        """Print the JSON document of the command, with records as objects; nothing without --json."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, default=_plain, allow_nan=False) + "\n")
            sys.stdout.flush()

    def error(self, error: HoldfastError) -> int:
        """Print `error` and return its exit status."""
        if self.as_json:
            self.result({"error": error.as_dict()})
        else:
            self._err.print(f"[bold red]error[/] [bold]{error.code}[/] {escape(error.what)}")
            if error.state:
                self._err.print(f"  state: {escape(error.state)}")
            if error.next_command:
                self._err.print(f"  next:  [cyan]{escape(error.next_command)}[/]")
        return next((status for kind, status in EXIT_STATUS.items() if isinstance(error, kind)), 1)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Show a progress bar on a terminal, nothing elsewhere; yield a function of (done, total)."""
        if self.as_json or not self._err.is_terminal:
            yield lambda _done, _of: None
            return
        text = TextColumn("{task.description}")
        columns = (SpinnerColumn(), text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with ProgressBar(*columns, console=self._err, transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, of: bar.update(task, completed=done, total=of)


def _plain(value: object) -> object:
    """Return a record as its fields; anything else that JSON lacks as text."""
    return to_plain(value) if is_dataclass(value) else str(value)


def _console(stream: TextIO, *, quiet: bool = False) -> Console:
    """Return a console that never wraps lines, so that a command can be copied from them."""
    console = Console(file=stream, highlight=False, quiet=quiet, soft_wrap=True)
    if not console.is_terminal:
        console.width = _UNBROKEN
    return console


def cell(value: object) -> str:
    """Return one value as text.

    >>> cell(0.71534), cell(None), cell(80789), cell(True)
    ('0.715', '-', '80,789', 'yes')
    """
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.3f}"
        case _:
            return str(value)
