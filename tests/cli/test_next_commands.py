"""Every command that an error, a problem or a line `next:` of the code names is complete: it parses as it is pasted."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

import holdfast
from holdfast.cli.app import app

_SOURCES = Path(holdfast.__file__).parent
_END = re.compile(
    r"\[/|, |; |: | then | and | or | `|`| (?:in|to|shows|first|only|lists|records|again|with|for|before|when|which|if) |"
    r" (?:first|again)(?=,|$)|$"
)


def _texts(tree: ast.AST) -> list[str]:
    """Return the texts of `tree` that may name a command, with VALUE for what is filled in."""
    found = []
    for node in _walk(tree):
        for keyword in node.keywords if isinstance(node, ast.Call) else ():
            if keyword.arg == "next_command":
                found += [_rendered(part) for part in _walk(keyword.value) if _is_text(part)]
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem" and len(node.args) == 4:
            found += [_rendered(part) for part in _walk(node.args[3]) if _is_text(part)]
        if _is_text(node) and "next: " in _rendered(node):
            found.append(_rendered(node).split("next: ", 1)[1])
    return found


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield `node` and what it consists of; a formatted text is one part."""
    yield node
    for part in () if isinstance(node, ast.JoinedStr) else ast.iter_child_nodes(node):
        yield from _walk(part)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _rendered(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
    return node.value


def _commands() -> set[str]:
    found = set()
    for path in sorted(_SOURCES.rglob("*.py")):
        for text in _texts(ast.parse(path.read_text())):
            for part in re.split(r"(?=\bholdfast [a-z])", text):
                if part.startswith("holdfast "):
                    found.add(part[: _END.search(part).start()].strip().rstrip(".)'"))
    return found


@pytest.mark.parametrize("line", sorted(_commands()))
def test_the_command_parses(line: str):
    command, words = get_command(app), shlex.split(line.replace("--before VALUE", "--before 1"))[1:]
    context = command.context_class(command, info_name="holdfast")
    while hasattr(command, "resolve_command") and words and not words[0].startswith("-"):
        name, command, words = command.resolve_command(context, words)
        context = command.context_class(command, info_name=name, parent=context)
    if words[-1:] != ["--help"]:
        command.make_context(context.info_name, list(words), parent=context.parent)
    if context.info_name == "accept":
        assert "--reason" in words
