"""The command line: its commands, its help, and how an error leaves it."""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Annotated, Any, Final

import typer

from holdfast.cli.output import Report
from holdfast.errors import HoldfastError

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
    "commands.maintenance.maintenance": ("verify", "backup", "restore", "repair-ledger", "compact", "vacuum"),
    "commands.maintenance.audit": ("audit",),
    "commands.reports.events": ("events",),
    "commands.reports.explain": ("explain",),
    "commands.reports.status": ("status",),
    "commands.serving.feedback": ("feedback",),
}
"""Which module of this package registers which commands, in the order of the help page."""

app = typer.Typer(
    name="holdfast",
    help="Keeps a machine-learning model trustworthy in production, from the rows it learns from to the answers it gives.",
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
    """Options that stand before any command."""


def command(group: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the command of its name, under a heading of the help page."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__.strip("_").replace("_", "-")
        return app.command(name, rich_help_panel=group)(function)

    return register


def load_commands(name: str) -> None:
    """Register the command called `name` with those of its module, or all of them when no command is called so.

    Each module brings what it needs, and that takes its time: a loader need not wait for what a trainer imports.
    """
    found = next((module for module, names in MODULES.items() if name in names), None)
    for module in MODULES if found is None else (found,):
        import_module(f"holdfast.cli.{module}")


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    try:
        load_commands(sys.argv[1] if len(sys.argv) > 1 else "")
        app(prog_name="holdfast")
    except HoldfastError as error:
        sys.exit(Report(as_json="--json" in sys.argv).error(error))
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what was acknowledged is kept, what was not is as if it had never begun\n")
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has what it wanted.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        sys.exit(Report(as_json="--json" in sys.argv).error(_defect(error)))


def _defect(error: Exception) -> HoldfastError:
    """What a person is told of an error that nobody foresaw; its traceback is kept for whoever mends it."""
    with tempfile.NamedTemporaryFile("w", prefix="holdfast-", suffix=".log", delete=False) as kept:
        traceback.print_exception(error, file=kept)
    return HoldfastError(
        "HF901",
        f"{type(error).__name__}: {error}",
        state="the ledger and its files are as they were before the command, or as after its last acknowledged step",
        next_command=f"send {kept.name} to the developers",
    )
