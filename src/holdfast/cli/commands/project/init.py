"""Begin a project: init."""

from __future__ import annotations

import ast
import math
import random
import re
from dataclasses import asdict, dataclass
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
from holdfast.cli.project import MODEL_FILE, Run, with_directory
from holdfast.contract import Boolean, Category, Column, Integer, Number
from holdfast.contract.profile.infer_contract import SuggestedColumn, suggest_column
from holdfast.errors import ConflictError, InputError
from holdfast.qualify.gate_config import Gates
from holdfast.records import NAME, check_name

_SAMPLE = "parcels.csv"
_ENOUGH_ROWS = 1.25 * Gates().labelled_rows
"""Labelled rows to hold out: what the gates require, and some that may be quarantined."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a file that have a role in the declaration."""

    label: str
    key: str
    event_time: str


@command("Begin")
@with_directory
def init(
    run: Run,
    data: Annotated[
        Path | None,
        typer.Argument(help="A CSV or Parquet file of yours.", show_default="a small sample is written"),
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="The true-or-false column to predict.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="The column that identifies a row.")] = None,
    event_time: Annotated[
        str | None, typer.Option("--event-time", help="The column of the event time.")
    ] = None,
    zone: Annotated[str, typer.Option("--tz", help="The time zone of the event time.")] = "UTC",
    name: Annotated[
        str | None,
        typer.Option("--name", help="The name of the model.", show_default="the directory's name"),
    ] = None,
) -> None:
    """Write a model file for your own data: a suggested contract, features, gates and rollout, to read and correct.

    Example: holdfast init parcels.csv --label late
    """
    out, project = run.out, run.directory
    name = check_name(name or _named_for(project), "model")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise _refusal(f"{zone!r} is not a time zone") from error
    target = project / MODEL_FILE
    if target.exists():
        raise ConflictError(
            "HF102", f"{target} exists already", state="nothing was written", next_command="holdfast check"
        )
    project.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = project / _SAMPLE
        _write_sample(data)
        label, key, event_time = "late", "parcel", "handed_in"
        out.print(
            f"[green]ok[/] wrote {escape(str(data))}: 6,000 synthetic parcels, about a quarter of them late"
        )
    frame = _read(data)
    columns = _columns_of(frame, label, key, event_time)
    target.write_text(_render(name, data, frame, columns, zone), encoding="utf-8")
    out.print(f"[green]ok[/] wrote {escape(str(target))}; read it, correct units and ranges, then:")
    commands = [
        f"holdfast ingest rows {data}",
        "holdfast train",
        "holdfast qualify",
        "holdfast rollout start",
        "holdfast up",
    ]
    for line in commands:
        out.print(f"  [cyan]{escape(line)}[/]")
    out.result({"model_file": str(target), "data": str(data), **asdict(columns), "next": commands})


def _columns_of(frame: pl.DataFrame, label: str | None, key: str | None, event_time: str | None) -> _Columns:
    """Return the columns that were named; for each of the others the one column that fits."""
    booleans = [name for name, dtype in frame.schema.items() if dtype == pl.Boolean]
    timestamps = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Datetime)]
    label = _chosen(frame, label, "label", booleans)
    event_time = _chosen(frame, event_time, "event-time", timestamps)
    others = [name for name in frame.columns if name not in (label, event_time)]
    unique = [name for name in others if frame[name].n_unique() == frame.height]
    key = _chosen(frame, key, "key", unique)
    values = frame[key]
    if values.null_count() or values.n_unique() < len(values):
        raise _refusal(
            f"the key {key!r} does not identify rows: {len(values):,} rows, "
            f"{values.drop_nulls().n_unique():,} values, {values.null_count():,} missing",
            "holdfast init FILE --key COLUMN",
        )
    return _Columns(label, key, event_time)


def _suggest(frame: pl.DataFrame, roles: _Columns, zone: str) -> list[tuple[SuggestedColumn, str | None]]:
    """Return each column of `frame` except the label, with its feature, in the order of the file.

    Raises `InputError` HF110 for a name that a column cannot have, if `label` is not true or false in every row, or
    if `event_time` is not a timestamp.
    """
    for name in frame.columns:
        if not NAME.match(name):
            raise _refusal(
                f"column {name!r} needs a name of a-z, 0-9, '_' and '-', at most 63 long",
                "rename it in the file's first line, and run holdfast init again",
            )
    if not _is_boolean(frame[roles.label]):
        raise _refusal(
            f"the label {roles.label!r} must be true or false in every row; it is {frame.schema[roles.label]}",
            "write it as true and false, or in Parquet as Boolean",
        )
    if not isinstance(frame.schema[roles.event_time], pl.Datetime):
        raise _refusal(
            f"the event time {roles.event_time!r} has no timestamps such as 2026-01-31T12:00:00Z", ""
        )
    found = [
        suggest_column(frame[name], in_key=name == roles.key, zone=zone, upper=False)
        for name in frame.columns
        if name != roles.label
    ]
    return [(each, _feature(each.column, each.column.name == roles.key)) for each in found]


def _is_boolean(values: pl.Series) -> bool:
    if values.null_count():
        return False
    if values.dtype == pl.Boolean:
        return True
    if values.dtype == pl.String:
        return set(values.str.to_lowercase().unique()) <= {"true", "false"}
    return False


def _feature(column: Column, is_key: bool) -> str | None:
    """Return the feature of a column as it is; None if it has none."""
    match column:
        case Category():
            return f'Ordinal("{column.name}")'
        case Boolean():
            return f'Passthrough("{column.name}")'
        case Integer() | Number():
            return None if is_key else f'Passthrough("{column.name}")'
        case _:
            return None


def _render(name: str, data: Path, frame: pl.DataFrame, columns: _Columns, zone: str) -> str:
    """Return the text of the model file; `zone` is the time zone of timestamps in `data` that have none."""
    environment = Environment(
        loader=PackageLoader("holdfast.cli"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - it writes Python, not HTML
    )
    facts = {
        **asdict(columns),
        "name": name,
        "columns": _suggest(frame, columns, zone),
        "source": data.name,
        "holdout_days": holdout_days(frame[columns.event_time]),
        "has_na": _has_na(data, frame),
    }
    template = environment.get_template("model.py.j2")
    # The first rendering shows which names the file uses; the second imports exactly these.
    imports = used(template.render(facts, imports=["Model"]))
    return template.render(facts, imports=imports)


def used(source: str) -> list[str]:
    """Return the names of Holdfast that a model file uses, sorted.

    >>> used("weight = Number('kg', unit='kg', missing=Keep())")
    ['Keep', 'Number']
    """
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    return sorted(names & set(holdfast.__all__))


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise _refusal(f"{path} does not exist", code="HF201")
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, try_parse_dates=True, null_values=["", "NA"], infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _refusal(f"{path} cannot be read: {error}", code="HF201") from error


def _has_na(path: Path, frame: pl.DataFrame) -> bool:
    """Return True if a column that is not text writes a missing value as NA."""
    if path.suffix == ".parquet":
        return False
    texts = pl.read_csv(path, infer_schema=False)
    return any(
        bool((texts[name] == "NA").any())
        for name, dtype in frame.schema.items()
        if dtype != pl.String and name in texts.columns
    )


def _chosen(frame: pl.DataFrame, given: str | None, role: str, candidates: list[str]) -> str:
    if given is not None:
        if given not in frame.columns:
            known = ", ".join(frame.columns)
            raise _refusal(f"--{role} {given!r} is not a column; there are {known}")
        return given
    if len(candidates) != 1:
        found = f"{', '.join(candidates)} are candidates" if candidates else "no column is a candidate"
        raise _refusal(f"which column is the {role}? {found}", f"holdfast init FILE --{role} COLUMN")
    return candidates[0]


def _named_for(project: Path) -> str:
    """Return a model's name made of its directory's, in the characters that a name may have."""
    return re.sub(r"[^a-z0-9_-]+", "-", project.resolve().name.lower()).strip("-_")[:63] or "model"


def holdout_days(timestamps: pl.Series) -> int:
    """Return how many of the newest days have enough rows for the gates; at least 7, at most a third of the days.

    >>> from datetime import datetime, timedelta
    >>> holdout_days(pl.Series([datetime(2026, 1, 1) + timedelta(hours=n) for n in range(2400)]))
    27
    """
    known = timestamps.drop_nulls()
    newest, oldest = known.max(), known.min()
    if not isinstance(newest, datetime) or not isinstance(oldest, datetime):
        return 7
    span_days = max(1.0, (newest - oldest).total_seconds() / 86_400)
    enough = math.ceil(_ENOUGH_ROWS / (len(known) / span_days))
    return max(7, min(enough, int(span_days / 3)))


def _write_sample(path: Path) -> None:
    """Write 6,000 parcels over sixty days; lateness depends on weight, service, town and hour."""
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


def _refusal(what: str, next_command: str = "holdfast init --help", *, code: str = "HF110") -> InputError:
    """Return the error of a file or option from which no project can be derived."""
    return InputError(code, what, state="nothing was written", next_command=next_command)
