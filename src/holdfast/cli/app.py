"""The command line: its commands, its help, and its errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, TextIO, cast

import typer
from typer.main import get_command

import holdfast
from holdfast.cli.command_table import COMMANDS
from holdfast.cli.output import DONE, INTERRUPTED, Output, UntilClosed
from holdfast.errors import HoldfastError, InputError
from holdfast.settings import setting_of


class CommandTable(typer.core.TyperGroup):
    """All commands, of which the module of one is imported when that one is called.

    Help and completion of the whole show what the table has, so that they import no command.
    """

    def __init__(self, *, name: str | None = None, commands: Any = None, **attributes: Any) -> None:
        super().__init__(name=name, commands=commands, **attributes)
        loaded = self.commands
        self.commands = {
            each: loaded.get(each)
            or typer.core.TyperCommand(
                name=each, callback=None, help=listed.summary, rich_help_panel=listed.panel
            )
            for each, listed in COMMANDS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that `args` name, from its module."""
        if args and args[0] in COMMANDS:
            load_commands(args[0])
            self.commands[args[0]] = cast(typer.core.TyperGroup, get_command(app)).commands[args[0]]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="holdfast",
    cls=CommandTable,
    help="Keep a machine-learning model trustworthy in production, from its training rows to its predictions.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"holdfast {holdfast.__version__}")
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
    """Register the commands of the module that has the command `name`; all of them if none has."""
    found = COMMANDS.get(name)
    for module in {each.module: None for each in ((found,) if found else COMMANDS.values())}:
        import_module(f"holdfast.cli.{module}")


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    sys.stdout = cast(TextIO, UntilClosed(sys.stdout))
    output = Output(as_json="--json" in sys.argv)
    try:
        status = app(prog_name="holdfast", standalone_mode=False) or DONE
    except HoldfastError as error:
        status = output.error(error)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except SystemExit:
        raise
    except BaseException as error:  # a panic of Polars is no Exception
        status = INTERRUPTED if _is_interruption(error) else output.error(_misused(error) or _defect(error))
    if status == INTERRUPTED:
        sys.stderr.write("interrupted; committed work is kept, the rest was rolled back\n")
    sys.stdout.flush()
    sys.exit(status)


def _is_interruption(error: BaseException | None) -> bool:
    """Return True if the error came up while an interruption ended the command, such as that of a lock it left in disorder."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _misused(error: BaseException) -> HoldfastError | None:
    """Return what is wrong with the arguments as HF101; None for another error."""
    # Typer keeps the class of these errors to itself.
    if not isinstance(error, typer.BadParameter.__mro__[1]):
        return None
    error = cast(typer.BadParameter, error)
    named = error.ctx.command_path if error.ctx is not None else "holdfast"
    what = error.format_message().strip().rstrip(".")
    # Without any argument Typer has printed the help already, and has nothing to add.
    what = what or f"{named} needs a command"
    option = getattr(error, "option_name", "")  # of an option that there is not
    setting = setting_of(option, named.split()[-1]) if option else None
    if setting is not None:
        return InputError(
            "HF101",
            f"No such option: {option}; it is the setting {setting}",
            state="nothing was done",
            next_command=f"{setting}=VALUE {named}",
        )
    return InputError("HF101", what, state="nothing was done", next_command=f"{named} --help")


def _defect(error: BaseException) -> HoldfastError:
    """Return an unexpected error as HF901; write its traceback to a file for the developers."""
    from holdfast.cli import crash_reports

    try:
        next_command = f"send {crash_reports.write(error)} to the developers"
    except OSError as full:
        next_command = (
            f"make room in the directory of temporary files ({full.strerror}), then the same command again"
        )
    return HoldfastError(
        "HF901",
        f"{type(error).__name__}: {error}",
        state="the ledger and its files are as before the command, or as after its last committed step",
        next_command=next_command,
    )
