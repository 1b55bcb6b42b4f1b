"""Writes the generated parts of the reference. Run by `make docs`; `make check` fails when a page is not what this writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import typer
from typer.main import get_command

from holdfast.cli.app import app, load_commands
from holdfast.errors import CODES
from holdfast.rollout.machine import RESTING, TRANSITIONS, State
from holdfast.serve.http import Limits
from holdfast.serve.metrics import Counters, ServerFacts, exposition
from holdfast.settings import SETTINGS
from holdfast.store.schema import METADATA


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def settings() -> str:
    """Every environment variable."""
    return table(
        ("variable", "default", "what it decides"),
        ((f"`{n}`", f"`{d}`" if d else "", h) for n, d, h in SETTINGS),
    )


def errors() -> str:
    """Every error code."""
    return table(("code", "meaning"), ((f"`{code}`", meaning) for code, meaning in CODES.items()))


def rollout() -> str:
    """The rollout's state machine as a diagram and a table."""
    diagram = "```mermaid\nstateDiagram-v2\n    [*] --> pending\n"
    diagram += "".join(
        f"    {before} --> {after}: {event}\n" for (before, event), after in TRANSITIONS.items()
    )
    diagram += "".join(f"    {state} --> [*]\n" for state in State if state in RESTING)
    rows = ((before, event, after) for (before, event), after in TRANSITIONS.items())
    return diagram + "```\n\n" + table(("from", "event", "to"), rows)


def ledger() -> str:
    """Every table of the ledger, with its columns and what must always hold."""
    parts = []
    for each in METADATA.sorted_tables:
        parts.append(f"## {each.name}\n")
        if each.comment:
            parts.append(each.comment + "\n")
        parts.append(
            table(
                ("column", "type", "null", "meaning"),
                (
                    (
                        f"`{column.name}`",
                        column.type,
                        "yes" if column.nullable else "no",
                        column.comment or "",
                    )
                    for column in each.columns
                ),
            )
        )
    return "\n".join(parts)


def commands() -> str:
    """The help of every command."""
    load_commands("")

    group = get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    parts = []
    for name, each in group.commands.items():
        parts.append(f"## holdfast {name}\n\n{each.help}\n")
        rows = []
        for parameter in each.params:
            if parameter.name == "help":
                continue
            opts = ", ".join(f"`{o}`" for o in (*parameter.opts, *parameter.secondary_opts))
            if parameter.param_type_name == "argument":
                opts = f"`{(parameter.name or '').upper()}`"
            rows.append((opts, getattr(parameter, "help", "") or ""))
        parts.append(table(("argument or option", "meaning"), rows))
    return "\n".join(parts)


def limits() -> str:
    """What a client of the server may cost."""
    return table(
        ("limit", "default"), ((f"`{each.name}`", f"{each.default:,}") for each in dataclasses.fields(Limits))
    )


def metrics() -> str:
    """Every metric of the server, from the page that a server without a version shows."""
    nothing = {
        each.name: "" if each.name == "model" else () if each.name == "versions" else 0
        for each in dataclasses.fields(ServerFacts)
    }
    page = exposition(ServerFacts(**nothing), Counters()).decode()
    kinds = dict(line.split(" ")[2:4] for line in page.splitlines() if line.startswith("# TYPE"))
    helps = [line.split(" ", 3)[2:] for line in page.splitlines() if line.startswith("# HELP")]
    return table(("metric", "kind", "meaning"), ((f"`{name}`", kinds[name], text) for name, text in helps))
