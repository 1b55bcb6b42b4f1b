"""The command line: its commands, its help, and its errors."""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Annotated, Any, Final, TextIO, cast

import typer

from holdfast.cli.output import DONE, INTERRUPTED, Output, UntilClosed
from holdfast.errors import HoldfastError, InputError

MODULES: Final[dict[str, tuple[str, ...]]] = {
    "commands.project.init": ("init",),
    "demo.demo": ("demo",),
    "commands.ingest.ingest": ("check", "ingest"),
    "commands.ingest.contracts": ("contract",),
    "commands.catalog.snapshots": ("snapshot",),
    "commands.ingest.feeds": ("feeds", "accept", "quarantine"),
    "commands.backout.backout": ("backout", "lineage"),
    "commands.training.train": ("train", "qualify"),
    "commands.rollout.rollout": ("rollout",),
    "commands.rollout.rollback": ("rollback",),
    "commands.rollout.policy": ("policy",),
    "commands.runtimes.serving_config": ("serving-config",),
    "commands.runtimes.runtime": ("runtime",),
    "commands.evaluation.replay": ("replay",),
    "commands.drills.drill": ("drill",),
    "commands.serving.processes": ("serve", "control", "page", "up"),
    "commands.maintenance.maintenance": (
        "verify",
        "backup",
        "restore",
        "rebuild-ledger",
        "compact",
        "vacuum",
    ),
    "commands.maintenance.audit": ("audit",),
    "commands.reports.events": ("events",),
    "commands.reports.explain": ("explain",),
    "commands.reports.status": ("status",),
    "commands.serving.feedback": ("feedback",),
}
"""The commands that each module of this package registers, in the order of the help page."""

app = typer.Typer(
    name="holdfast",
    help="Keep a machine-learning model trustworthy in production, from its training rows to its predictions.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"holdfast {installed_version('holdfast')}")
        except PackageNotFoundError:
            typer.echo("holdfast, run from its source")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options before any command."""


def command(group: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the command of its name, under the heading `group` of the help page."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__.strip("_").replace("_", "-")
        return app.command(name, rich_help_panel=group)(function)

    return register


def command_group(name: str, group: str, text: str) -> typer.Typer:
    """Register and return a group of commands, such as `snapshot create`, under the heading `group`."""
    made = typer.Typer(name=name, help=text, no_args_is_help=True)
    app.add_typer(made, rich_help_panel=group)
    return made


def load_commands(name: str) -> None:
    """Register the commands of the module that has the command `name`; all of them if none has.

    Importing only that module keeps a command's start short: `ingest` does not wait for what `train` imports.
    """
    found = next((module for module, names in MODULES.items() if name in names), None)
    for module in MODULES if found is None else (found,):
        import_module(f"holdfast.cli.{module}")


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    sys.stdout = cast(TextIO, UntilClosed(sys.stdout))
    output = Output(as_json="--json" in sys.argv)
    try:
        load_commands(sys.argv[1] if len(sys.argv) > 1 else "")
        status = app(prog_name="holdfast", standalone_mode=False) or DONE
    except HoldfastError as error:
        status = output.error(error)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:
        status = output.error(_misused(error) or _defect(error))
    if status == INTERRUPTED:
        sys.stderr.write("interrupted; committed work is kept, the rest was rolled back\n")
    sys.stdout.flush()
    sys.exit(status)


def _misused(error: Exception) -> HoldfastError | None:
    """Return what is wrong with the arguments as HF101; None for another error."""
    # Typer keeps the class of these errors to itself.
    if not isinstance(error, typer.BadParameter.__mro__[1]):
        return None
    error = cast(typer.BadParameter, error)
    named = error.ctx.command_path if error.ctx is not None else "holdfast"
    what = error.format_message().strip().rstrip(".")
    # Without any argument Typer has printed the help already, and has nothing to add.
    what = what or f"{named} needs a command"
    return InputError("HF101", what, state="nothing was done", next_command=f"{named} --help")


def _defect(error: Exception) -> HoldfastError:
    """Return an unexpected error as HF901; write its traceback to a file for the developers."""
    with tempfile.NamedTemporaryFile("w", prefix="holdfast-", suffix=".log", delete=False) as log:
        traceback.print_exception(error, file=log)
    return HoldfastError(
        "HF901",
        f"{type(error).__name__}: {error}",
        state="the ledger and its files are as before the command, or as after its last committed step",
        next_command=f"send {log.name} to the developers",
    )
