"""Writes the generated parts of the reference. Run by `make docs`; `make check` fails when a page is not what this writes."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from inspect import Parameter
from pathlib import Path
from typing import Final, get_args

import typer
from typer.main import get_command

import holdfast
import holdfast.contract.schema.source_metadata
import holdfast.contract.schema.units
from holdfast.cli.app import app, load_commands
from holdfast.cli.output import EXIT_STATUS
from holdfast.contract import (
    Boolean,
    Category,
    Contract,
    Expression,
    Integer,
    Label,
    Missing,
    Number,
    Rule,
    Text,
    Timestamp,
)
from holdfast.contract.batch.compiler import dtype
from holdfast.contract.row.explain import LONGEST_VALUE, MOST_WORDS
from holdfast.contract.schema.missing import SHORTHAND
from holdfast.contract.schema.rule_ast import OPERATORS
from holdfast.contract.schema.units import SAME, find_conversion
from holdfast.control.reports.metrics import LoopCounters, StatusCollector
from holdfast.control.reports.status import StatusReader
from holdfast.errors import CODES
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.rollout.model.state_machine import RESTING, TRANSITIONS, State
from holdfast.serve.api.label_items import MAX_LABELS, SOURCE_CHARACTERS
from holdfast.serve.api.recent_labels import MAX_LABELS as REMEMBERED_LABELS
from holdfast.serve.api.source_quota import MAX_SENDERS, SOURCES_OF_ADDRESS
from holdfast.serve.inference.metrics import Counters, ServerCollector, ServerFacts
from holdfast.serve.inference.request_schema import MAX_NAMED_ROWS
from holdfast.serve.protocol.metadata import input_spec
from holdfast.serve.protocol.oip import MAX_ROWS, UNIT_CHARACTERS
from holdfast.settings import SETTINGS
from holdfast.store import Store
from holdfast.store.db.schema import METADATA

WIDTH: Final = 100
"""Characters of a signature that stands on one line."""


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


def exit_status() -> str:
    """Every exit status of a command."""
    return table(("status", "meaning"), ((f"`{status}`", meaning) for status, meaning in EXIT_STATUS.items()))


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
    return "\n".join(
        part for name, each in group.commands.items() for part in _command(f"holdfast {name}", each)
    )


def _command(name: str, command: typer.core.TyperCommand | typer.core.TyperGroup) -> Iterator[str]:
    """The help of a command, or of each command of a group, and of the group itself where it does something alone."""
    if isinstance(command, typer.core.TyperGroup):
        if command.invoke_without_command:
            yield from _help(name, command)
        for each, member in command.commands.items():
            yield from _command(f"{name} {each}", member)
        return
    yield from _help(name, command)


def _help(name: str, command: typer.core.TyperCommand | typer.core.TyperGroup) -> Iterator[str]:
    yield f"## {name}\n\n{command.help}\n"
    rows = []
    for parameter in command.params:
        if parameter.name == "help":
            continue
        opts = ", ".join(f"`{o}`" for o in (*parameter.opts, *parameter.secondary_opts))
        if parameter.param_type_name == "argument":
            opts = f"`{(parameter.name or '').upper()}`"
        rows.append((opts, getattr(parameter, "help", "") or ""))
    yield table(("argument or option", "meaning"), rows)


def limits() -> str:
    """What a client of the server may cost: the limits of the serving config, and those that are the same everywhere."""
    configured = ((f"`{each.name}`", f"{each.default:,}") for each in dataclasses.fields(ConnectionLimits))
    fixed = (
        ("rows of a request", MAX_ROWS),
        ("characters of `unit`", UNIT_CHARACTERS),
        ("labels of a feedback request", MAX_LABELS),
        ("characters of a label's `source`", SOURCE_CHARACTERS),
        ("sources of an address whose labels are counted alone", SOURCES_OF_ADDRESS),
        ("sources of all addresses whose labels are counted alone", MAX_SENDERS),
        ("bad rows that a 400 names", MAX_NAMED_ROWS),
        ("known words that a 400 and the metadata name", MOST_WORDS),
        ("characters of a value that a 400 shows", LONGEST_VALUE),
        ("labels whose value a server remembers", REMEMBERED_LABELS),
    )
    return table(
        ("limit", "default"), (*configured, *((name, f"{number:,} (fixed)") for name, number in fixed))
    )


def model_metrics() -> str:
    """Every metric of the control loop and the page that is not of the process."""
    with tempfile.TemporaryDirectory() as directory:
        store = Store.open(Path(directory) / "store")
        reader = StatusReader(store, "m")
        collector = StatusCollector("m", lambda: reader.read(now_us=0), LoopCounters())
        found = [family for family in collector.collect() if family.name.startswith("holdfast_")]
        store.ledger.close()
    return table(
        ("metric", "kind", "meaning"),
        (
            (f"`{family.name}{'_total' * (family.type == 'counter')}`", family.type, family.documentation)
            for family in found
        ),
    )


def metrics() -> str:
    """Every metric of the server, as a server without a version exposes them."""
    return table(
        ("metric", "kind", "meaning"),
        (
            (f"`{family.name}{'_total' * (family.type == 'counter')}`", family.type, family.documentation)
            for family in ServerCollector(ServerFacts("", 0.0, {}), Counters()).collect()
        ),
    )


def declarations() -> str:
    """Return every name of a model file, with its signature and docstring."""
    parts = []
    for name in holdfast.__all__:
        each = getattr(holdfast, name)
        code = f"{name}{signature(each, width=WIDTH)}"
        parts.append(f"## {name}\n\n```python\n{code}\n```\n\n{as_markdown(inspect.getdoc(each) or '')}\n")
    return "\n".join(parts)


def contract_columns() -> str:
    """Return every column type with its parameters, and its types in a batch and a request."""
    parts = [
        table(
            ("type", "in a frame", "in a request (first choice, then others)"),
            (
                (
                    f"[{kind.__name__}](#{kind.__name__.lower()})",
                    f"`{dtype(column)!r}`",
                    ", ".join(input_spec(column).datatypes),
                )
                for kind, column in _SAMPLES.items()
            ),
        )
    ]
    return "\n".join([*parts, *(_declared(kind) for kind in _SAMPLES)])


def contract_policies() -> str:
    """Return the policies for missing values."""
    return table(
        ("policy", "shorthand", "meaning"),
        (
            (
                f"`{kind.__name__}{signature(kind)}`",
                ", ".join(f'`"{word}"`' for word, policy in SHORTHAND.items() if type(policy) is kind),
                " ".join((inspect.getdoc(kind) or "").split()),
            )
            for kind in get_args(Missing)
        ),
    )


def contract_rules() -> str:
    """Return `Contract`, `Rule` and the operators of an expression."""
    methods = (
        (
            f"`.{name}{signature(each)}`",
            inspect.getdoc(each),
        )
        for name, each in inspect.getmembers(Expression, inspect.isfunction)
        if not name.startswith("_") and name not in OPERATORS
    )
    operators = ((f"`{name}`", meaning) for name, meaning in OPERATORS.items())
    return "\n".join(
        [_declared(Contract), _declared(Rule), "### Expressions\n", as_markdown(inspect.getdoc(Expression) or ""), "",
         table(("operator", "meaning"), (*operators, *methods))]
    )  # fmt: skip


def contract_reasons() -> str:
    """Return every reason that a row can have, from the docstring of the package."""
    _, lines, _ = (inspect.getdoc(holdfast.contract) or "").split("=" * 11 + " " + "=" * 73)
    reasons: list[list[str]] = []
    for line in lines.strip().splitlines():
        words, meaning = line[:12], line[12:]
        if words.strip():
            reasons.append([", ".join(f"`{word.strip()}`" for word in words.split(",")), meaning])
        else:
            reasons[-1][1] += " " + meaning
    return table(("reason", "meaning"), reasons)


def contract_units() -> str:
    """Return the column metadata that a source may declare, and example conversions."""
    words = [
        ("km", "mi"),
        ("degF", "degC"),
        ("h", "min"),
        ("%", "1"),
        ("mile", "mi"),
        ("USD", "EUR"),
        ("seat", "1"),
        ("byte", "1"),
    ]
    rows = []
    for source, target in words:
        conversion = find_conversion(source, target)
        if conversion is None:
            outcome = "refused, HF202"
        elif conversion == SAME:
            outcome = "the same unit"
        else:
            outcome = f"(value × {conversion.numerator:,.15g} + {conversion.addend:,.15g}) / {conversion.denominator:,.15g}"
        rows.append((f"`{source}`", f"`{target}`", outcome))
    text = [
        as_markdown(inspect.getdoc(each) or "")
        for each in (
            holdfast.contract.schema.source_metadata,
            holdfast.contract.schema.units,
            find_conversion,
        )
    ]
    return "\n\n".join([*text, table(("source", "contract", "conversion"), rows)])


_SAMPLES = {
    Number: Number("x", unit="1"), Integer: Integer("x"), Category: Category("x"), Text: Text("x"),
    Timestamp: Timestamp("x", tz="UTC"), Boolean: Boolean("x"), Label: Label("x", delay="1h"),
}  # fmt: skip


def _declared(each: type) -> str:
    code = f"{each.__name__}{signature(each, width=WIDTH)}"
    return f"### {each.__name__}\n\n```python\n{code}\n```\n\n{as_markdown(inspect.getdoc(each) or '')}\n"


def signature(each: Callable[..., object], *, width: int | None = None) -> str:
    """What a callable takes, with defaults that can be copied: each is Python that gives the very default.

    Types are written without their modules. A signature wider than `width` characters has a line for each parameter.

    >>> signature(holdfast.LogisticRegression)
    '(c: float = 1.0, iterations: int = 1000)'
    """
    parts: list[str] = []
    keywords = False
    for parameter in inspect.signature(each).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is Parameter.KEYWORD_ONLY and not keywords and not any(p[:1] == "*" for p in parts):
            parts.append("*")
        keywords = parameter.kind is Parameter.KEYWORD_ONLY
        stars = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        kind = "" if parameter.annotation is Parameter.empty else f": {annotation(parameter.annotation)}"
        default = default_of(each, parameter)
        parts.append(
            f"{stars}{parameter.name}{kind}"
            + ("" if default is Parameter.empty else f" = {literal(default)}")
        )
    line = ", ".join(parts)
    if width is None or len(line) <= width:
        return f"({line})"
    return "(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def annotation(of: object) -> str:
    """A type as a reader writes it, without the modules of its names.

    >>> annotation("holdfast.contract.Missing | Literal['a', 'b']")
    'Missing | Literal["a", "b"]'
    """
    words = of if isinstance(of, str) else inspect.formatannotation(of)
    return re.sub(r"(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", words.replace("'", '"'))


def default_of(each: Callable[..., object], parameter: Parameter) -> object:
    """The default itself, also where a dataclass makes it anew each time; `Parameter.empty` without one."""
    if dataclasses.is_dataclass(each):
        field = next((f for f in dataclasses.fields(each) if f.name == parameter.name), None)
        if field is not None and field.default_factory is not dataclasses.MISSING:
            return field.default_factory()
    return parameter.default


def literal(value: object) -> str:
    """Python that gives `value`.

    >>> literal((0.01, "", timedelta(seconds=10))), literal(holdfast.Limits(error=0.1))
    ('(0.01, "", timedelta(seconds=10))', 'Limits(error=0.1)')
    """
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False)
        case tuple():
            return "(" + ", ".join(map(literal, value)) + ("," if len(value) == 1 else "") + ")"
        case timedelta():
            return repr(value).removeprefix("datetime.")
        case _ if dataclasses.is_dataclass(value):
            parameters = inspect.signature(type(value)).parameters.values()
            given = ((p, getattr(value, p.name)) for p in parameters)
            changed = (f"{p.name}={literal(v)}" for p, v in given if default_of(type(value), p) != v)
            return f"{type(value).__name__}({', '.join(changed)})"
        case _:
            return repr(value)


def as_markdown(text: str) -> str:
    """A docstring as Markdown: its headings bold, its parameters a list, its examples as code.

    >>> print(as_markdown("One.\\n\\nParameters\\n----------\\nunit\\n    What one is."))
    One.
    <BLANKLINE>
    **Parameters**
    <BLANKLINE>
    - `unit`: What one is.
    """
    out: list[str] = []
    lines = text.split("\n")
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if line and set(line) == {"-"}:
            continue
        if following and set(following) == {"-"}:
            out += [f"**{line}**", ""]
        elif line and not line.startswith((" ", ">>>")) and following.startswith("    ") and "." not in line:
            out.append("- " + ", ".join(f"`{part.strip()}`" for part in line.split(",")) + ":")
        elif line.startswith("    ") and out and out[-1].startswith("- `"):
            out[-1] += " " + line.strip()
        elif line.startswith(">>>") or (line and out and out[-1].startswith("    ")):
            out.append(f"    {line}")
        else:
            out.append(line)
    return "\n".join(out)
