"""Options that many commands share, and the run of a command that has all of them."""

from __future__ import annotations

import getpass
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
from holdfast.errors import InputError
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.catalog import name_lookup
from holdfast.store.models import versions

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
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Return once it is decided; do not wait for the servers.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; recorded in the ledger.")]
UNSTATED: Final = "requested by an operator"
"""The reason that is recorded when the operator gives none."""

P = ParamSpec("P")
_SHARED: Final[dict[str, tuple[object, object]]] = {
    "project": (Directory, HERE),
    "declaration": (DeclarationFile, None),
    "as_json": (AsJson, False),
}
"""The type and the default of each shared option."""


@dataclass(frozen=True)
class Run:
    """One run of a command: where it prints, and the project that it works on, loaded when it is needed."""

    out: Output
    directory: Path
    declaration: Path | None
    """The file that `--file` names."""

    @cached_property
    def settings(self) -> Settings:
        """The settings of the project's directory. They need no model file."""
        return Settings.read(self.directory)

    @cached_property
    def project(self) -> Project:
        """The project. Raises `InputError` HF102 if it declares no model."""
        return Project.load(self.directory, self.declaration)

    @property
    def model(self) -> Model:
        """The declared model."""
        return self.project.model

    @cached_property
    def store(self) -> Store:
        """The project's store, created if it does not exist."""
        return self.project.store()

    @cached_property
    def actor(self) -> str:
        """The operating-system user that runs the command."""
        return getpass.getuser()

    def snapshot(self, name: str | None) -> str:
        """Return the full name of a snapshot; without a name, create one of all tables as they are now."""
        return name_lookup.snapshot(self.store, name) if name else self.project.snapshot(self.store).snapshot

    def candidate(self, name: str | None) -> str:
        """Return the full name of a version; without a name, that of the newest candidate."""
        if name:
            return name_lookup.version(self.store, name, self.model.name)
        with self.store.ledger.read() as connection:
            return versions.newest(connection, self.model.name, role="candidate").version


def _sharing(*shared: str) -> Callable[[Callable[Concatenate[Run, P], None]], Callable[..., None]]:
    """Return a decorator that gives a command the `shared` options, and passes them to it as its `Run`."""

    def decorate(function: Callable[Concatenate[Run, P], None]) -> Callable[..., None]:
        @wraps(function)
        def command(
            *, project: Path, declaration: Path | None = None, as_json: bool = False, **given: Any
        ) -> None:
            run = Run(Output(as_json=as_json), project, declaration)
            function(run, **given)  # type: ignore[call-arg]  # Typer passes the parameters of the signature below by name

        hints = get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]
        parameters = [each.replace(annotation=hints[each.name]) for each in own]
        for name in shared:
            kind, default = _SHARED[name]
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            )
        # Typer reads the options of a command from its signature and its annotations.
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate


with_project: Final = _sharing("project", "declaration", "as_json")
"""For commands that need the declared model."""
with_directory: Final = _sharing("project", "as_json")
"""For commands that work without a model file."""
with_process: Final = _sharing("project", "declaration")
"""For commands that run until they are stopped; they have no result."""


def misused(what: str, next_command: str, *, state: str = "nothing was changed") -> InputError:
    """Return the error of arguments that are missing, malformed or contradict each other."""
    return InputError("HF101", what, state=state, next_command=next_command)
