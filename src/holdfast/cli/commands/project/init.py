"""The command that begins a project: init."""

from __future__ import annotations

import ast
import math
import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl
import typer
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.markup import escape

import holdfast
from holdfast.cli.app import command
from holdfast.cli.commands.project.init_template import suggest
from holdfast.cli.options import HERE, AsJson, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import MODEL_FILE
from holdfast.errors import ConflictError, InputError
from holdfast.qualify.gate_config import Gates
from holdfast.records import check_name

_SAMPLE = "parcels.csv"
_ENOUGH_ROWS = 1.25 * Gates().labelled_rows
"""Labelled rows to hold out: what the gates ask for, and some that may go to quarantine."""


@command("Begin")
def init(
    data: Annotated[
        Path | None,
        typer.Argument(help="A CSV or Parquet file of yours.", show_default="a small sample is written"),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="The true-or-false column to foretell.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="The column that tells rows apart.")] = None,
    event_time: Annotated[str | None, typer.Option("--event-time", help="The column that says when.")] = None,
    zone: Annotated[str, typer.Option("--tz", help="Time zone of the event time.")] = "UTC",
    name: Annotated[
        str | None,
        typer.Option("--name", help="What the model is called.", show_default="the directory's name"),
    ] = None,
    project: Directory = HERE,
    as_json: AsJson = False,
) -> None:
    """Write a model file for your own data: a suggested contract, features, gates and rollout, to read and correct."""
    report = Report(as_json=as_json)
    name = check_name(name or _named_for(project), "model")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InputError(
            "HF110",
            f"{zone!r} is not a time zone",
            state="nothing was written",
            next_command="holdfast init --help",
        ) from error
    target = project / MODEL_FILE
    if target.exists():
        raise ConflictError(
            "HF102", f"{target} is already there", state="nothing was written", next_command="holdfast check"
        )
    project.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = project / _SAMPLE
        _write_sample(data)
        label, key, event_time = "late", "parcel", "handed_in"
        report.say(
            f"[green]ok[/] wrote {escape(str(data))}: 6,000 parcels, made up, of which about a quarter come late"
        )
    frame = _read(data)
    label = _chosen(frame, label, "label", [n for n, t in frame.schema.items() if t == pl.Boolean])
    event_time = _chosen(
        frame, event_time, "event-time", [n for n, t in frame.schema.items() if isinstance(t, pl.Datetime)]
    )
    unique = [
        n for n in frame.columns if n not in (label, event_time) and frame[n].n_unique() == frame.height
    ]
    key = _chosen(frame, key, "key", unique)
    _require_key(frame[key])
    suggestions = suggest(frame, label=label, key=key, event_time=event_time, zone=zone)
    environment = Environment(
        loader=PackageLoader("holdfast.cli"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - it writes Python, not HTML
    )
    facts = {
        "name": name,
        "label": label,
        "key": key,
        "event_time": event_time,
        "columns": suggestions,
        "source": data.name,
        "holdout_days": holdout_days(frame[event_time]),
        "says_na": _says_na(data, frame),
    }
    template = environment.get_template("model.py.j2")
    imports = used(template.render(facts, imports=["Model"]))
    target.write_text(template.render(facts, imports=imports), encoding="utf-8")
    report.say(f"[green]ok[/] wrote {escape(str(target))}; read it, correct units and ranges, then:")
    commands = [
        f"holdfast ingest rows {data}",
        "holdfast train",
        "holdfast qualify",
        "holdfast rollout start",
        "holdfast up",
    ]
    for line in commands:
        report.say(f"  [cyan]{escape(line)}[/]")
    report.result(
        {
            "model_file": str(target),
            "data": str(data),
            "label": label,
            "key": key,
            "event_time": event_time,
            "next": commands,
        }
    )


def used(source: str) -> list[str]:
    """The names of Holdfast that a model file's text uses, in order.

    >>> used("weight = Number('kg', unit='kg', missing=Keep())")
    ['Keep', 'Number']
    """
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    return sorted(names & set(holdfast.__all__))


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise InputError(
            "HF201",
            f"{path} does not exist",
            state="nothing was written",
            next_command="holdfast init --help",
        )
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, try_parse_dates=True, null_values=["", "NA"], infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            "HF201",
            f"{path} cannot be read: {error}",
            state="nothing was written",
            next_command="holdfast init --help",
        ) from error


def _says_na(path: Path, frame: pl.DataFrame) -> bool:
    """Whether a column that holds no words says NA where it has no value."""
    if path.suffix == ".parquet":
        return False
    texts = pl.read_csv(path, infer_schema=False)
    return any(
        bool((texts[name] == "NA").any())
        for name, dtype in frame.schema.items()
        if dtype != pl.String and name in texts.columns
    )


def _chosen(frame: pl.DataFrame, given: str | None, what: str, fitting: list[str]) -> str:
    if given is not None:
        if given not in frame.columns:
            known = ", ".join(frame.columns)
            raise InputError(
                "HF110",
                f"--{what} {given!r} is not a column; there are {known}",
                state="nothing was written",
                next_command="holdfast init --help",
            )
        return given
    if len(fitting) != 1:
        found = f"{', '.join(fitting)} could be it" if fitting else "no column could be it"
        raise InputError(
            "HF110",
            f"which column is the {what}? {found}",
            state="nothing was written",
            next_command=f"holdfast init FILE --{what} COLUMN",
        )
    return fitting[0]


def _named_for(project: Path) -> str:
    """A model's name from its directory's, in the letters that a name may have."""
    return re.sub(r"[^a-z0-9_-]+", "-", project.resolve().name.lower()).strip("-_")[:63] or "model"


def _require_key(values: pl.Series) -> None:
    if values.null_count() or values.n_unique() < len(values):
        raise InputError(
            "HF110",
            f"the key {values.name!r} does not tell rows apart: {len(values):,} rows, "
            f"{values.drop_nulls().n_unique():,} values, {values.null_count():,} missing",
            state="nothing was written",
            next_command="holdfast init FILE --key COLUMN",
        )


def holdout_days(moments: pl.Series) -> int:
    """How many of the newest days hold enough rows for the gates to judge by; at least 7, at most a third of the span.

    >>> from datetime import datetime, timedelta
    >>> holdout_days(pl.Series([datetime(2026, 1, 1) + timedelta(hours=n) for n in range(2400)]))
    27
    """
    known = moments.drop_nulls()
    newest, oldest = known.max(), known.min()
    if not isinstance(newest, datetime) or not isinstance(oldest, datetime):
        return 7
    span_days = max(1.0, (newest - oldest).total_seconds() / 86_400)
    enough = math.ceil(_ENOUGH_ROWS / (len(known) / span_days))
    return max(7, min(enough, int(span_days / 3)))


def _write_sample(path: Path) -> None:
    """Six thousand parcels over sixty days; whether one is late depends on its weight, service, town and hour."""
    rng = random.Random(20130101)  # noqa: S311 - a sample, not a secret
    towns = {"bergen": 0.9, "oslo": -0.4, "tromso": 1.3, "stavanger": 0.1, "bodo": 0.7}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = []
    for number in range(6000):
        when = start + timedelta(minutes=14.4 * number)
        town = rng.choice(list(towns))
        weight, express = round(rng.lognormvariate(0.8, 0.7), 2), rng.random() < 0.3
        risk = -2.2 + towns[town] + 0.25 * weight - 1.2 * express + (0.8 if when.hour >= 16 else 0.0)
        late = rng.random() < 1 / (1 + 2.718281828**-risk)
        rows.append((f"p{number:05d}", when.strftime("%Y-%m-%dT%H:%M:%SZ"), town, weight, express, late))
    frame = pl.DataFrame(rows, ["parcel", "handed_in", "town", "weight_kg", "express", "late"], orient="row")
    frame.write_csv(path)
