"""Write RESULTS.md: what each benchmark and each soak measures, in its own words, and the figures of its last record.

    python -m benchmarks.results [--check]

The words are the docstrings of the modules, the numbers those that `--record` kept in `benchmarks/records/`. A scalar
figure becomes a row of one table; a figure that is a table by itself becomes one. Nothing is written by hand.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.command import RECORDS, ROOT

PAGE: Final = ROOT / "benchmarks" / "RESULTS.md"
HEAD: Final = """\
# Results

Made by `make results` from the files in [records](records), which `--record` of each command keeps; what is measured is the
docstring of its module. Two cores that other work shares are the usual machine: the load before and after stands with each
record, absolute figures drift by half from one hour to the next, and ratios within one run are what to read.
A commit with a plus sign had changes that were not committed yet.
"""
FOLDERS: Final = ("benchmarks", "tests", "tools")


def page(records: Path = RECORDS) -> str:
    """Return RESULTS.md as the records in a folder make it."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(records.glob("*.json"))]
    parts = [HEAD]
    for record in sorted(
        found, key=lambda record: (FOLDERS.index(record["module"].split(".")[0]), record["module"])
    ):
        parts.append("\n".join(_section(record)))
    return "\n".join(parts)


def _section(record: Mapping[str, Any]) -> Iterator[str]:
    machine, load = record["machine"], record["load"]
    yield f"## `{record['command']}`\n"
    yield f"{_description(record['module'])}\n"
    facts = [f"Commit {record['commit']}", record["date"]]
    if machine:
        facts.append(
            f"{machine['cores']} cores, {machine['processor']}, {machine['system']}, Python {machine['python']}"
        )
    if load:
        facts.append(f"load {load[0]} before and {load[1]} after")
    if record.get("seconds"):
        facts.append(f"{record['seconds']:,} s, of the processor {record['cpu_seconds']:,} s")
    yield "; ".join(facts) + "." + ("" if record["passed"] else " **It missed a bound.**")
    if note := record.get("note"):
        yield f"**{note}**"
    yield ""
    figures = record["figures"]
    scalars = {name: value for name, value in figures.items() if not _is_table(value)}
    if scalars:
        plain = {name: {"value": str(value) if name == "seed" else value} for name, value in scalars.items()}
        yield from _table("", plain)
    for name, value in figures.items():
        if _is_table(value):
            rows = {key: row if isinstance(row, dict) else {"": row} for key, row in value.items()}
            yield from _table(name, rows)


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


def _table(name: str, rows: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """Yield the lines of a table; each row has its columns by name."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    heads = [_words(name) or "figure", *(_words(column) for column in columns)]
    yield "| " + " | ".join(heads) + " |"
    yield "| --- |" + " --- |" * len(columns)
    for key, row in rows.items():
        yield "| " + " | ".join([_words(key), *(_cell(row.get(column)) for column in columns)]) + " |"
    yield ""


def _words(name: str) -> str:
    return name.replace("|", r"\|") if " " in name or "|" in name else name.replace("_", " ")


def _cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case float() if 0 < abs(value) < 1:
            return f"{value:.3g}"
        case int() | float():
            return f"{value:,}"
        case list() | tuple():
            return ", ".join(_cell(each) for each in value) or "none"
        case dict():
            return ", ".join(f"{_words(name)} {_cell(each)}" for name, each in value.items()) or "none"
        case _:
            return str(value).replace("|", r"\|")


def _description(module: str) -> str:
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or compare it; 1 if it differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if the page is not current"
    )
    wished = parser.parse_args(arguments)
    made = page()
    if wished.check:
        return int(PAGE.read_text(encoding="utf-8") != made)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
