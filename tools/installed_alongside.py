"""Install Holdfast in one environment with another tool of the field, and run it there.

Each environment is new and nothing is pinned: it is what a user gets who installs the newest releases of both. The wheel
is of the commit. `uv pip check` must be clean, then come `import holdfast`, `init`, `ingest`, `train`, `qualify`, `verify` on
the sample that `init` writes. "Runs" is all of that. "Resolves": there was no interpreter of that Python, so wheels alone were
resolved and nothing was run. Where a requirement of the other tool excludes its newest release, the cell names it and the
nearest release that works. Needs uv.

    python -m tools.installed_alongside --pythons 3.11,3.12 --peers mlflow,dagster
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.command import ROOT, Command

PEERS: Final = ("mlflow", "mlserver", "evidently", "nannyml", "feast", "great-expectations", "dagster")
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")

FLOW: Final[tuple[tuple[str, ...], ...]] = (
    ("init", "--name", "parcels"),
    ("ingest", "rows", "parcels.csv"),
    ("train",),
    ("qualify",),
    ("verify",),
)
"""The commands that run in each environment, on the sample that `init` writes."""

Environment = dict[str, str]


class FailedError(Exception):
    """A program ended with another status than 0; the text is the end of what it printed."""


@dataclass(frozen=True)
class Outcome:
    """What came of one peer on one Python: the versions, whether the peer's is its newest there, and the first failure."""

    peer: str
    python: str
    version: str = ""
    newest: str = ""
    was_run: bool = False
    failure: str = ""
    pins: tuple[str, ...] = field(default=())

    @property
    def text(self) -> str:
        """Return the outcome as the cell of a table."""
        if self.failure:
            return f"{self.version or 'none'}: {self.failure}"
        words = f"{self.version}: {'runs' if self.was_run else 'resolves'}"
        if self.version != self.newest:
            words += f"; its newest, {self.newest}, cannot: {', '.join(self.pins)}"
        return words


def run(command: Sequence[str | Path], cwd: Path | None = None, env: Environment | None = None) -> str:
    """Return what `command` printed; raise `FailedError` if it fails."""
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        printed = " ".join((done.stderr.strip() or done.stdout.strip()).split())
        raise FailedError(f"{Path(str(command[0])).name} {command[1]}: {printed[-400:]}")
    return done.stdout


def resolve(python: str, *requirements: str) -> dict[str, str]:
    """Return the version of every package that wheels alone give for `requirements`, by name."""
    with tempfile.NamedTemporaryFile("w", suffix=".in") as wanted:
        wanted.write("\n".join(requirements))
        wanted.flush()
        platform = ["--python-platform", "x86_64-manylinux_2_28", "--python-version", python]
        shape = ["-q", "--no-header", "--no-annotate", "--only-binary", ":all:"]
        found = run(["uv", "pip", "compile", *shape, *platform, wanted.name])
    return dict(re.findall(r"^([\w.-]+)==(\S+)", found, re.MULTILINE))


def pins_against(python: str, wheel: Path, peer: str, version: str) -> tuple[str, ...]:
    """Return what `peer` at `version` demands of packages that Holdfast needs otherwise, as the resolver reports it."""
    try:
        resolve(python, str(wheel), f"{peer}=={version}")
    except FailedError as error:
        text = str(error)
        named = re.findall(rf"{re.escape(peer)}==\S+ depends on ([\w.\-\[\]]+[<>=!~][^\s]*)", text)
        return tuple(dict.fromkeys(each.rstrip(".,") for each in named)) or (text[-160:],)
    return ()


def interpreter(python: str) -> Path | None:
    """Return the interpreter of this version on the path or in pyenv; None if there is none."""
    installed = sorted(
        Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{python}.*/bin/python")
    )
    named = shutil.which(f"python{python}")
    for found in (*installed, *([Path(named)] if named else [])):
        try:
            run([found, "--version"])
        except FailedError:
            continue  # a shim of a version that is not chosen here
        return found
    return None


def play(environment: Path, wheel: Path, peer: str, python: Path) -> None:
    """Make a new environment with `wheel` and `peer`, check it, and run the flow in it; raise `FailedError`."""
    binaries = environment / "bin"
    run(["uv", "venv", "-q", "--python", python, environment])
    run(["uv", "pip", "install", "-q", "--python", binaries / "python", wheel, peer])
    run(["uv", "pip", "check", "-q", "--python", binaries / "python"])
    run([binaries / "python", "-c", "import holdfast, holdfast.cli; print(holdfast.__version__)"])
    with tempfile.TemporaryDirectory() as directory:
        for command in FLOW:
            run([binaries / "holdfast", *command], Path(directory), {"PYTHONPATH": ""})


def tried(wheel: Path, peer: str, python: str) -> Outcome:
    """Return what came of installing `wheel` with `peer`, and of running it where there is an interpreter."""
    try:
        newest = resolve(python, peer)[peer]
    except FailedError as error:
        return Outcome(
            peer, python, failure=f"has no wheels for this Python without Holdfast either: {error}"
        )
    try:
        version = resolve(python, str(wheel), peer)[peer]
    except FailedError as error:
        return Outcome(peer, python, newest=newest, failure=str(error))
    pins = pins_against(python, wheel, peer, newest) if version != newest else ()
    found = interpreter(python)
    if found is None:
        return Outcome(peer, python, version, newest, pins=pins)
    environment = Path(tempfile.mkdtemp(prefix=f"alongside-{peer}-{python}-"))
    try:
        play(environment, wheel, peer, found)
    except FailedError as error:
        return Outcome(peer, python, version, newest, failure=str(error), pins=pins)
    finally:
        shutil.rmtree(environment, ignore_errors=True)
    return Outcome(peer, python, version, newest, was_run=True, pins=pins)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try every peer on every Python; return 1 if one cannot be installed or run."""
    command = Command("tools.installed_alongside", __doc__)
    command.size("--peers", ",".join(PEERS), "dagster", help="the other tools, by comma")
    command.size("--pythons", ",".join(PYTHONS), "3.14", help="the versions of Python, by comma")
    given = command.parse(arguments)
    found: dict[str, dict[str, str]] = {}
    is_whole = True
    with tempfile.TemporaryDirectory() as built:
        run(["uv", "build", "-q", "--wheel", "--out-dir", built, ROOT])
        (wheel,) = Path(built).glob("*.whl")
        for peer in given.peers.split(","):
            for python in given.pythons.split(","):
                outcome = tried(wheel, peer, python)
                print(f"{peer} on {python}: {outcome.text}", flush=True)
                found.setdefault(peer, {})[f"Python {python}"] = outcome.text
                is_whole = is_whole and not outcome.failure
    return command.finish({"alongside": found}, passed=is_whole)


if __name__ == "__main__":
    sys.exit(main())
