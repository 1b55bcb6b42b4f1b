"""What the package shows on an index: links that lead somewhere, one address, and requirements that nothing else holds."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module

import pytest

from tests.support.processes import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
HOME = PYPROJECT["project"]["urls"]["Homepage"]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_links_of_the_readme_are_absolute_on_an_index_and_their_files_exist() -> None:
    pytest.importorskip("hatchling", reason="the build step needs hatchling, as `make` installs it")
    readme = (ROOT / "README.md").read_text("utf-8")
    shown = LINK.findall(import_module("tools.readme").absolute(readme, HOME))
    assert len(shown) == len(LINK.findall(readme)) > 10
    assert [link for link in shown if not link.startswith(("https://", "#"))] == []
    files = [link.removeprefix(HOME).partition("#")[0] for link in shown if link.startswith(HOME)]
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_the_address_of_the_project_stands_in_one_place() -> None:
    address = HOME.partition("//")[2].strip("/")
    holders = {
        path.relative_to(ROOT).as_posix()
        for folder in ("*", "src/**/*", "docs/**/*", "tools/*", "examples/**/*", "constraints/*")
        for path in ROOT.glob(folder)
        if path.suffix in {".md", ".py", ".toml", ".txt", ".html"} and address in path.read_text("utf-8")
    }
    assert holders == {"pyproject.toml", "CONTRIBUTING.md"}


def test_pinned_packages_name_no_index() -> None:
    for path in sorted((ROOT / "constraints").glob("*.txt")):
        assert re.search(r"https?:|file:|index", path.read_text("utf-8")) is None, path.name


def test_a_requirement_has_a_lower_bound_that_the_floors_pin_and_no_upper_bound() -> None:
    project = PYPROJECT["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    floors = (ROOT / "constraints" / "floors.txt").read_text("utf-8")
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", floors, re.MULTILINE))
    for requirement in wanted:
        if "==" in requirement or requirement.startswith("holdfast["):
            continue
        found = re.fullmatch(r"([a-z0-9-]+)(?:\[\w+\])?>=([\w.]+)", requirement)
        assert found is not None, f"{requirement}: an upper bound needs a known break, and a line here"
        assert f"{pinned[found[1]]}.".startswith(f"{found[2]}."), requirement


def test_the_changelog_begins_with_what_is_not_released() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "Unreleased"
