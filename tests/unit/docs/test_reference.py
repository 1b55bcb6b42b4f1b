"""The generated reference shows what the code does: a default that is copied from it is that default."""

from __future__ import annotations

import ast
import datetime
import doctest
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any, get_args

import pytest

import holdfast
from holdfast.contract import Expression, Missing
from tests.support.processes import ROOT

DOCS = ROOT / "docs"
EVERYTHING = {name: getattr(holdfast, name) for name in holdfast.__all__} | {"timedelta": datetime.timedelta}


def _generators() -> Any:
    name = "holdfast_docs_generators"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, DOCS / "generators.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _printed() -> list[tuple[str, Callable[..., object], str]]:
    """Every signature of the reference: its page, what it is of, and its text."""
    found = []
    for page in ("declaration.md", "contract.md"):
        text = (DOCS / "reference" / page).read_text()
        for name, printed in re.findall(
            r"^#+ (\w+)\n\n```python\n\1(\(.*?\))\n```$", text, re.MULTILINE | re.DOTALL
        ):
            found.append((page, EVERYTHING[name], printed))
        for kind in get_args(Missing):
            row = re.search(rf"^\| `{kind.__name__}(\(.*?\))` \|", text, re.MULTILINE)
            if row:
                found.append((page, kind, row[1]))
        for name, printed in re.findall(r"^\| `\.(\w+)(\(.*?\))` \|", text, re.MULTILINE):
            found.append((page, getattr(Expression, name), printed.replace("\\|", "|")))
    return found


def _defaults(printed: str) -> dict[str, object]:
    """The defaults that a printed signature gives, evaluated with what a model file imports."""
    (function,) = ast.parse(f"def it{printed}: ...").body
    assert isinstance(function, ast.FunctionDef)
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    pairs = [
        *zip(reversed(positional), reversed(given.defaults), strict=False),
        *zip(given.kwonlyargs, given.kw_defaults, strict=True),
    ]
    return {
        argument.arg: eval(ast.unparse(default), dict(EVERYTHING))
        for argument, default in pairs
        if default is not None
    }


def test_every_name_is_in_the_reference() -> None:
    printed = {each for page, each, _ in _printed() if page == "declaration.md"}
    assert printed >= {EVERYTHING[name] for name in holdfast.__all__}


@pytest.mark.parametrize(
    ("page", "each", "printed"), _printed(), ids=lambda part: getattr(part, "__name__", "")
)
def test_every_default_of_the_reference_is_the_default(
    page: str, each: Callable[..., object], printed: str
) -> None:
    default_of = _generators().default_of
    real = {
        name: default_of(each, parameter)
        for name, parameter in inspect.signature(each).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    reported = _defaults(printed)
    assert reported == real, page


def test_a_default_of_one_kind_is_written_so_that_it_can_be_read_back() -> None:
    generators = _generators()
    assert doctest.testmod(generators).failed == 0
    value = (0.01, "a 'b' \"c\"", None, datetime.timedelta(days=3), holdfast.Limits(critical=0.5), ("x",))
    assert eval(generators.literal(value), dict(EVERYTHING)) == value
