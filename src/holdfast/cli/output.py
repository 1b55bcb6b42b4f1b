"""Print what a command found: text and tables for a person, or one JSON document for a program, never both."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeVar

from holdfast.errors import (
    ConflictError,
    HoldfastError,
    InputError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from holdfast.formatting import visible
from holdfast.records import Progress, Verdict, to_plain

if TYPE_CHECKING:
    from rich.console import Console

Row = TypeVar("Row")

DONE: Final = 0
JUDGED: Final = 1
MISUSED: Final = 2
NOT_FOUND: Final = 3
DEFECT: Final = 70
RETRY: Final = 75
INTERRUPTED: Final = 130

EXIT_STATUS: Final[dict[int, str]] = {
    DONE: "done; also where a run before had done it already",
    JUDGED: "judged and refused: a gate, an expectation, a rule or a check was not passed; the same call gives the same result",
    MISUSED: "the usage or the input is wrong: arguments, the model file, settings, a delivery that cannot be read",
    NOT_FOUND: "what was named does not exist",
    DEFECT: "a defect of Holdfast (HF901)",
    RETRY: "not possible now; the same call may succeed later",
    INTERRUPTED: "interrupted by Ctrl-C; committed work is kept",
}
"""Every exit status of a command, and what it means; an orchestrator branches on these (sysexits.h names 70 and 75)."""

_OF_KIND: Final[dict[type[HoldfastError], int]] = {
    InputError: MISUSED,
    NotFoundError: NOT_FOUND,
    ConflictError: JUDGED,
    RefusedError: JUDGED,
    IntegrityError: JUDGED,
    UnavailableError: RETRY,
}
_OVERTAKEN: Final = "HF304"
"""A conflict with a process that came first: unlike the other conflicts, it passes by itself."""

COLOURS: Final = {
    Verdict.PASS: "green",
    Verdict.FAIL: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.ERROR: "red",
}

_UNBROKEN: Final = 10_000
"""The width of an output that is not a terminal, in characters: wider than any table."""


class Output:
    """The output of one command. Rich is imported by what prints with it: `--version` is quick."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @cached_property
    def _out(self) -> Console:
        return _console(sys.stdout, quiet=self.as_json)

    @cached_property
    def _err(self) -> Console:
        return _console(sys.stderr)

    def print(self, text: str) -> None:
        """Print lines for a person. They may hold Rich markup: data passes `escape`, or it may begin a line of its own."""
        self._out.print("\n".join(map(visible, text.split("\n"))))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table for a person."""
        from rich.table import Table

        table = Table(
            title=escape(title),
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
            table.add_column(escape(column), justify="right" if numeric else "left", overflow="fold")
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

    def warn(self, what: str, next_command: str) -> None:
        """Print a warning, and the command that ends it, on standard error; with --json too."""
        self._err.print(f"[yellow]warning[/] {escape(what)}; next: [cyan]{escape(next_command)}[/]")

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
        return exit_status(error)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Show a progress bar on a terminal, nothing elsewhere; yield a function of (done, total)."""
        if self.as_json or not self._err.is_terminal:
            yield lambda _done, _of: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as ProgressBar

        text = TextColumn("{task.description}")
        columns = (SpinnerColumn(), text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with ProgressBar(*columns, console=self._err, transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, of: bar.update(task, completed=done, total=of)


def exit_status(error: HoldfastError) -> int:
    """Return the exit status of a command that `error` ended.

    >>> exit_status(RefusedError("HF207", "refused")), exit_status(UnavailableError("HF302", "no reply"))
    (1, 75)
    """
    if error.code == _OVERTAKEN:
        return RETRY
    return next((status for kind, status in _OF_KIND.items() if isinstance(error, kind)), DEFECT)


def _plain(value: object) -> object:
    """Return a record as its fields; anything else that JSON lacks as text."""
    return to_plain(value) if is_dataclass(value) else str(value)


class UntilClosed:
    """Standard output that goes nowhere once its reader, such as `head`, has closed the pipe.

    The command goes on: its exit status is that of its work, whatever was read of its output.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_closed_by_reader = False

    def write(self, text: str) -> int:
        """Write `text`, or drop it if no reader is left."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        """Flush what was written, or drop it if no reader is left."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _discard(self) -> None:
        self.is_closed_by_reader = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)


def has_reader() -> bool:
    """Return True unless the reader of standard output has closed the pipe."""
    return not getattr(sys.stdout, "is_closed_by_reader", False)


def _console(stream: TextIO, *, quiet: bool = False) -> Console:
    """Return a console that never wraps lines, so that a command can be copied from them."""
    from rich.console import Console

    console = Console(file=stream, highlight=False, quiet=quiet, soft_wrap=True)
    if not console.is_terminal:
        console.width = _UNBROKEN
    return console


def escape(text: str) -> str:
    r"""Return a text that the command did not write itself as `Output.print` shows it: on one line, and without markup.

    >>> escape("[bold]x[/bold] \n y")
    '\\[bold]x\\[/bold] \\x0a y'
    """
    from rich.markup import escape as without_markup

    return without_markup(visible(text))


def escape_lines(text: str) -> str:
    r"""Return a document of several lines as `escape` returns each of them.

    >>> escape_lines("[a]\nb\t")
    '\\[a]\nb\\x09'
    """
    return "\n".join(map(escape, text.split("\n")))


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
