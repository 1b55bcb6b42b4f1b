"""Every command has an example, explains each option, and prints JSON where it prints a result."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from holdfast.cli.app import app, load_commands
from holdfast.cli.command_table import COMMANDS as LISTED

PROCESSES = ("serve", "control", "page", "up")
"""Commands that run until they are stopped."""


def leaves(
    name: str, command: typer.core.TyperCommand | typer.core.TyperGroup
) -> Iterator[tuple[str, object]]:
    if isinstance(command, typer.core.TyperGroup):
        for each, member in command.commands.items():
            yield from leaves(f"{name} {each}".strip(), member)
    else:
        yield name, command


load_commands("")
COMMANDS = dict(leaves("", get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_shows_an_example_and_explains_its_options(name: str) -> None:
    command = COMMANDS[name]
    assert isinstance(command, typer.core.TyperCommand)
    example = "rollback" if name == "rollout undo" else name
    assert f"Example: holdfast {example}" in (command.help or "").replace("\n", " ")
    assert all(getattr(each, "help", None) for each in command.params)
    options = [option for each in command.params for option in each.opts]
    assert ("--json" in options) == (name not in PROCESSES)


def test_the_table_has_each_command_with_its_heading_and_the_first_line_of_its_help() -> None:
    group = get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    shown = {
        name: (each.rich_help_panel, each.get_short_help_str(1_000)) for name, each in group.commands.items()
    }
    assert shown == {name: (each.panel, each.summary) for name, each in LISTED.items()}
    assert {name.split()[0] for name in COMMANDS} == set(LISTED)


ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"(?<![\w./-])holdfast ((?:[a-z]+-)*[a-z]+)(?: ((?:[a-z]+-)*[a-z]+))?(?![\w/])")
PROSE = ("in", "with", "for", "and", "keeps", "cannot", "itself", "import")
"""Words that follow the name of the project where no command is meant."""


def test_documents_and_messages_name_commands_that_exist() -> None:
    groups = {name.split()[0] for name in COMMANDS if " " in name}
    unknown = []
    for file in [
        ROOT / "README.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("src/**/*.py"),
        *ROOT.glob("src/**/*.html"),
    ]:
        for first, second in NAMED.findall(file.read_text(encoding="utf-8")):
            if first in PROSE:
                continue
            known = (
                f"{first} {second}" in COMMANDS
                if first in groups and second
                else first in groups or first in COMMANDS
            )
            if not known:
                unknown.append(f"{file.relative_to(ROOT)}: holdfast {first} {second}".strip())
    assert unknown == []
