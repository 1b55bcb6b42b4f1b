"""Options that many commands share, and the run of a command that has all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, Final, ParamSpec, get_type_hints

import typer

from holdfast.cli.output import Output
from holdfast.cli.project import Project
from holdfast.declaration import Model
from holdfast.store import Store

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Directory = Annotated[
    Path,
    typer.Option("--project", "-p", help="The project's directory.", file_okay=False, show_default="here"),
]
DeclarationFile = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="The file that declares the model.", show_default="model.py"),
]
HERE: Final = Path()
VersionName = Annotated[
    str | None,
    typer.Argument(
        help="The version, as in v3-1f2e3d4c, or v3 for short.", show_default="the newest that fits"
    ),
]
Limit = Annotated[int, typer.Option("--limit", help="The most rows to show.", min=1)]
Reason = Annotated[str, typer.Option("--reason", help="Why; recorded in the ledger.")]
UNSTATED: Final = "requested by an operator"
"""The reason that is recorded when the operator gives none."""

P = ParamSpec("P")


@dataclass(frozen=True)
class Run:
    """One run of a command: where it prints, and the project that it works on."""

    out: Output
    project: Project
    declaration: Path | None
    """The file that `--file` names."""

    @property
    def model(self) -> Model:
        """The declared model."""
        return self.project.model

    @cached_property
    def store(self) -> Store:
        """The project's store, created if it does not exist."""
        return self.project.store()


def with_project(function: Callable[Concatenate[Run, P], None]) -> Callable[..., None]:
    """Give a command the options `--project`, `--file` and `--json`, and pass them to it as its `Run`."""

    @wraps(function)
    def command(*, project: Path, declaration: Path | None, as_json: bool, **given: Any) -> None:
        run = Run(Output(as_json=as_json), Project.load(project, declaration), declaration)
        function(run, **given)  # type: ignore[call-arg]  # Typer passes the parameters of the signature below by name

    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    shared = {
        "project": (Directory, HERE),
        "declaration": (DeclarationFile, None),
        "as_json": (AsJson, False),
    }
    parameters = [each.replace(annotation=hints[each.name]) for each in own]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in shared.items()
    ]
    # Typer reads the options of a command from its signature and its annotations.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command
