"""Load a project, a directory with a model file and a store, and give commands the options that many of them share."""

from __future__ import annotations

import getpass
import inspect
import runpy
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, Final, ParamSpec, get_type_hints

import typer

from holdfast.cli.output import Output
from holdfast.control import user_code
from holdfast.control.user_code import UserCodeError
from holdfast.declaration import Model
from holdfast.errors import HoldfastError, InputError, NotFoundError
from holdfast.feeds import Feed, FeedGroup
from holdfast.formatting import counted
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.catalog import name_lookup, snapshots
from holdfast.store.durability import access
from holdfast.store.models import versions
from holdfast.store.serving import members, servers
from holdfast.tables import Snapshot

MODEL_FILE = "model.py"

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

_LONGEST_SOURCE: Final = 1_000_000
"""The longest source file that the ledger keeps, in bytes."""
UNSTATED: Final = "requested by an operator"
"""The reason that is recorded when the operator gives none."""
P = ParamSpec("P")

_SHARED: Final[dict[str, tuple[object, object]]] = {
    "project": (Directory, HERE),
    "declaration": (DeclarationFile, None),
    "as_json": (AsJson, False),
}
"""The type and the default of each shared option."""


@dataclass(frozen=True, slots=True)
class Project:
    """The directory, settings and declared model that a command works on."""

    directory: Path
    settings: Settings
    model: Model
    sources: dict[str, str]
    """The text of the model file and of the modules of the directory that it imports, by path in the directory."""

    @classmethod
    def load(cls, directory: Path, file: Path | None = None) -> Project:
        """Load the project in `directory`, declared by `file` (default: its model.py).

        Raises `InputError` HF102 if there is no such file, if running it fails, or if it declares no `model`.
        """
        path = (directory / (file or MODEL_FILE)).resolve()
        directory = directory.resolve()
        model, files = _declared(path)
        return cls(directory, Settings.read(directory), model, _sources(directory, files))

    def store(self) -> Store:
        """Open the project's store; create it if it does not exist."""
        return Store.of(self.settings)

    @property
    def groups(self) -> dict[str, FeedGroup | None]:
        """The group of each declared feed, with its period."""
        return {feed.name: feed.membership for feed in self.model.feeds}

    def snapshot(self, store: Store) -> Snapshot:
        """Create a snapshot of all the model's tables as they are now, with the labels that callers sent until now."""
        if self.model.label_feeds:
            from holdfast.control.training.feedback_labels import (
                load_corrections,
                load_feedback,
                load_key_feedback,
            )  # it loads Polars

            load_feedback(store, self.model, now_us=now_us(), clock_us=now_us)
            load_corrections(store, self.model, now_us=now_us(), clock_us=now_us)
            load_key_feedback(store, self.model, now_us=now_us(), clock_us=now_us)
        begun_at_us = now_us()
        with store.ledger.write() as connection:
            return snapshots.create(
                connection,
                store.root,
                [feed.name for feed in self.model.feeds],
                contract_hash=self.model.contract.hash,
                now_us=now_us(),
                groups=self.groups,
                label_delays_us=self.model.label_delays_us,
                may_be_empty={feed.name for feed in self.model.label_feeds},
                begun_at_us=begun_at_us,
            )

    def feed(self, name: str) -> Feed:
        """Return the declared feed `name`. Raises `NotFoundError` HF303, which names the declared ones."""
        for feed in self.model.feeds:
            if feed.name == name:
                return feed
        known = ", ".join(feed.name for feed in self.model.feeds)
        raise NotFoundError(
            "HF303",
            f"there is no feed {name!r}; the model declares {known}",
            state="nothing was read",
            next_command="holdfast feeds",
        )


def now_us() -> int:
    """Return the time, which each command reads once, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def _declared(path: Path) -> tuple[Model, set[Path]]:
    """Return the model that the file declares, and the files that it is made of: itself and the modules next to it."""
    if not path.is_file():
        raise _unusable(f"there is no {path.name} in {path.parent}", "holdfast init")
    # The file may import modules of its directory, as a script may.
    sys.path.insert(0, str(path.parent))
    files = {path}
    try:
        declared = user_code.call(runpy.run_path, str(path)).get("model")
    except HoldfastError as error:
        raise InputError(error.code, f"{path.name}: {error.what}", state="nothing was read") from error
    except UserCodeError as error:
        raise _unusable(f"running {path.name} failed: {error}") from error
    finally:
        with suppress(ValueError):  # the file may have changed the list
            sys.path.remove(str(path.parent))
        files |= _unload_modules(path.parent)
    if not isinstance(declared, Model):
        raise _unusable(f"{path.name} declares no `model = Model(...)`")
    return declared, files


def _unusable(what: str, next_command: str = "correct the file, then the same command again") -> InputError:
    return InputError("HF102", what, state="nothing was read", next_command=next_command)


def _unload_modules(directory: Path) -> set[Path]:
    """Unload modules of `directory`, so that another project may have modules of the same names; return their files."""
    found = set[Path]()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).parent == directory:
            found.add(Path(file))
            del sys.modules[name]
    return found


def _sources(directory: Path, files: set[Path]) -> dict[str, str]:
    """Return the texts of `files` by their paths; those outside of the directory, and long ones, are left out."""
    sources: dict[str, str] = {}
    for file in sorted(files):
        if file.is_relative_to(directory) and file.suffix == ".py" and file.stat().st_size <= _LONGEST_SOURCE:
            with suppress(UnicodeDecodeError):  # a file in another encoding is not kept
                # Bytes, so that line ends are kept: what is restored is what was there.
                sources[str(file.relative_to(directory))] = file.read_bytes().decode()
    return sources


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
    def acting_store(self) -> Store:
        """The project's store, for a command that acts by the declaration: records it if it has changed."""
        from holdfast.control.ingest.declarations import record_model

        record_model(self.store, self.model, self.project.sources, actor=self.actor, now_us=now_us())
        return self.store

    @cached_property
    def actor(self) -> str:
        """The operating-system user that runs the command."""
        return getpass.getuser()

    def snapshot(self, name: str | None) -> str:
        """Return the full name of a snapshot; without a name, create one of all tables as they are now."""
        if not name:
            return self.project.snapshot(self.store).snapshot
        with self.store.ledger.read() as connection:
            return name_lookup.snapshot(connection, name)

    def candidate(self, name: str | None) -> str:
        """Return the full name of a version; without a name, that of the newest candidate."""
        with self.store.ledger.read() as connection:
            if name:
                return name_lookup.version(connection, name, self.model.name)
            return versions.newest(connection, self.model.name, role="candidate").version

    def server_address(self) -> str:
        """Return the address of the model's newest server that runs; of the settings if none is known."""
        with self.store.ledger.read() as connection:
            found = members.polled(connection, self.model.name)
        known = [each for each in found if not servers.has_ended(each)]
        if known:
            return max(known, key=lambda each: each.started_at_us).address
        return f"http://{self.settings.host}:{self.settings.port}"


def _sharing(*shared: str) -> Callable[[Callable[Concatenate[Run, P], None]], Callable[..., None]]:
    """Return a decorator that gives a command the `shared` options, and passes them to it as its `Run`."""

    def decorate(function: Callable[Concatenate[Run, P], None]) -> Callable[..., None]:
        @wraps(function)
        def command(
            *, project: Path, declaration: Path | None = None, as_json: bool = False, **given: Any
        ) -> None:
            run = Run(Output(as_json=as_json), project, declaration)
            _restrict_files(run.out, Settings.read(project.resolve()))
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


def _restrict_files(out: Output, settings: Settings) -> None:
    """Make files for the declared users alone, and warn if others may use those that are there."""
    access.declare(group=settings.access == "group")
    if access.has_group() and (left := access.share_root(settings.root)):
        what = (
            f"HOLDFAST_ACCESS=group is declared, and {counted(len(left), 'path')} below {settings.root} of another user "
            f"cannot be shared, such as {left[0]}"
        )
        out.warn(what, "the same command as that user")
    mode = access.width_of(settings.root)
    if mode is not None:
        what = (
            f"users that HOLDFAST_ACCESS={settings.access} excludes may use {settings.root} (mode {mode:04o})"
        )
        out.warn(what, access.narrowing_command(settings.root))


with_project: Final = _sharing("project", "declaration", "as_json")
"""For commands that need the declared model."""
with_directory: Final = _sharing("project", "as_json")
"""For commands that work without a model file."""
with_process: Final = _sharing("project", "declaration")
"""For commands that run until they are stopped; they have no result."""


def misused(what: str, next_command: str, *, state: str = "nothing was changed") -> InputError:
    """Return the error of arguments that are missing, malformed or contradict each other."""
    return InputError("HF101", what, state=state, next_command=next_command)
