"""Begin a project: init."""

from __future__ import annotations

import ast
import json
import math
import random
import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl
import pyarrow as pa
import typer
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.markup import escape

import holdfast
from holdfast.cli.app import command
from holdfast.cli.project import HERE, MODEL_FILE, Run, with_directory
from holdfast.contract import Boolean, Category, Column, Integer, Label, Number
from holdfast.contract.batch.csv_format import Csv
from holdfast.contract.profile.infer_contract import suggest_column, to_python
from holdfast.contract.profile.infer_form import (
    FileForm,
    as_label,
    column_names,
    csv_line,
    header_units,
    infer_form,
    infer_separator,
    label_words,
    late_columns,
    with_label,
)
from holdfast.contract.schema.source_metadata import ColumnFacts
from holdfast.errors import ConflictError, InputError
from holdfast.features.precision import LARGEST_EXACT, find_merged
from holdfast.formatting import first_line
from holdfast.qualify.gate_config import Gates
from holdfast.records import check_name
from holdfast.rollout.expected_duration import forecast, suggest
from holdfast.rollout.expected_duration import span as in_days
from holdfast.rollout.expected_duration import to_python as policy_line
from holdfast.store.sources.csv_reader import read_csv
from holdfast.store.sources.delivery import LIMIT_BYTES, TooLargeError, UnreadableError
from holdfast.store.sources.parquet_reader import read_parquet

_SAMPLE = "parcels.csv"
_ENOUGH_ROWS = 1.25 * Gates().labelled_rows
"""Labelled rows to hold out: what the gates require, and some that may be quarantined."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a file that have a role in the declaration, under their names in the contract."""

    label: str
    key: tuple[str, ...]
    event_time: str
    words: tuple[str, str]
    """The label's words of true and false."""


@command("Begin")
@with_directory
def init(
    run: Run,
    data: Annotated[
        Path | None,
        typer.Argument(help="A CSV or Parquet file of yours.", show_default="a small sample is written"),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="The column to predict, of two values such as yes and no.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="The column that identifies a row; several are separated by commas."),
    ] = None,
    event_time: Annotated[
        str | None, typer.Option("--event-time", help="The column of the event time.")
    ] = None,
    zone: Annotated[str, typer.Option("--tz", help="The time zone of the event time.")] = "UTC",
    dates: Annotated[
        str | None,
        typer.Option(
            "--dates", help="The order of dates, such as d/m/yyyy.", show_default="found in the file"
        ),
    ] = None,
    decimal: Annotated[
        str | None,
        typer.Option(
            "--decimal", help="The decimal sign of a CSV file, '.' or ','.", show_default="found in the file"
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="The name of the model.", show_default="the directory's name"),
    ] = None,
) -> None:
    """Write a model file for your own data: a suggested contract, features, gates and rollout, to read and correct.

    Reads what people have: separators, decimal commas, dates of several forms, and headers that are no names are declared
    as found. One report has everything that the file leaves open.

    Example: holdfast init parcels.csv --label late
    """
    out, project = run.out, run.directory
    name = check_name(name or _named_for(project), "model")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise _refusal(f"{zone!r} is not a time zone") from error
    if decimal not in (None, ".", ","):
        raise _refusal(f"--decimal is '.' or ',', not {decimal!r}")
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
    form, faults = _read(data, zone, (dates,) if dates else (), decimal or "")
    columns = _columns_of(data, form, label, key, event_time, faults)
    late = _known_late(form, columns)
    target.write_text(_render(name, data, form, columns, zone, late), encoding="utf-8")
    out.print(f"[green]ok[/] wrote {escape(str(target))}; read it, correct units and ranges, then:")
    for column, reason in late.items():
        out.print(
            f"  [yellow]known when a prediction is requested?[/] {column}: {escape(reason)}; it is loaded, the model lacks it"
        )
    where = [] if project == HERE else ["-p", str(project)]
    commands = [
        shlex.join([*words, *where])
        for words in (
            ["holdfast", "ingest", "rows", str(data)],
            ["holdfast", "train"],
            ["holdfast", "qualify"],
            ["holdfast", "rollout", "start"],
            ["holdfast", "up"],
        )
    ]
    for line in commands:
        out.print(f"  [cyan]{escape(line)}[/]")
    found = {"label": columns.label, "key": list(columns.key), "event_time": columns.event_time}
    out.result({"model_file": str(target), "data": str(data), **found, "known_later": late, "next": commands})


def _columns_of(
    data: Path,
    form: FileForm,
    label: str | None,
    key: str | None,
    event_time: str | None,
    faults: list[str],
) -> _Columns:
    """Return the columns that were named; for each of the others the one column that fits.

    Raises `InputError` HF110 with everything that the file leaves open, `faults` included.
    """
    frame = form.frame
    two_valued = [name for name in frame.columns if label_words(frame[name]) is not None]
    booleans = [name for name in two_valued if frame[name].dtype == pl.Boolean]
    label = _chosen(form, label, "label", booleans or two_valued, faults)
    times = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Datetime) and name != label]
    event_time = _chosen(form, event_time, "event-time", times, faults)
    words = None if label is None else _label_words(frame[label], form.is_typed, faults)
    if event_time is not None and (problem := _no_event_time(frame[event_time])):
        faults.append(problem)
    keys = _key_of(form, key, [name for name in frame.columns if name not in (label, event_time)], faults)
    if faults or label is None or event_time is None or words is None:
        listed = (
            faults[0]
            if len(faults) == 1
            else "; ".join(f"({n}) {fault}" for n, fault in enumerate(faults, 1))
        )
        given = {"label": label, "key": ",".join(keys) or None, "event-time": event_time}
        options = " ".join(f"--{role} {shlex.quote(name or 'COLUMN')}" for role, name in given.items())
        raise _refusal(listed, f"holdfast init {shlex.quote(str(data))} {options}")
    return _Columns(label, keys, event_time, words)


def _label_words(values: pl.Series, is_typed: bool, faults: list[str]) -> tuple[str, str] | None:
    """Return the label's words of true and false; None, with a fault, if it cannot be learned from."""
    words = label_words(values)
    if words is None:
        known = values.drop_nulls().n_unique()
        several = "regression" if values.dtype.is_numeric() else "several classes"
        faults.append(
            f"the label {values.name!r} must be true or false, as in yes and no or 1 and 0; it has {known:,} values"
            + (f": {several}, not yet" if known > 2 else "")
        )
    elif is_typed and values.dtype == pl.String:
        faults.append(
            f"the label {values.name!r} is text in a Parquet file, where a label is a boolean or 0 and 1: "
            f"write {words[0]!r} as true and {words[1]!r} as false"
        )
    return words


def _no_event_time(values: pl.Series) -> str:
    if not isinstance(values.dtype, pl.Datetime):
        return f"the event time {values.name!r} has no timestamps such as 2026-01-31T12:00:00Z or 31.1.2026"
    if values.null_count() > 0.01 * len(values):
        return f"the event time {values.name!r} is missing in {values.null_count():,} of {len(values):,} rows"
    return ""


def _key_of(form: FileForm, given: str | None, others: list[str], faults: list[str]) -> tuple[str, ...]:
    frame = form.frame
    if given is None:
        unique = [name for name in others if not frame[name].null_count() and frame[name].is_unique().all()]
        found = _chosen(form, None, "key", unique, faults)
        return () if found is None else (found,)
    parts = [given] if given in {*form.headers, *frame.columns} else given.split(",")
    found_parts = [_chosen(form, part, "key", [], faults) for part in parts]
    keys = tuple(part for part in found_parts if part is not None)
    if len(keys) < len(parts):
        return ()
    missing = frame.select(pl.any_horizontal(pl.col(keys).is_null()).sum()).item()
    distinct = frame.select(keys).n_unique()
    if missing or distinct < frame.height:
        faults.append(
            f"the key {given!r} does not identify rows: {frame.height:,} rows, {distinct:,} values, {missing:,} missing"
        )
    return keys


def _known_late(form: FileForm, roles: _Columns) -> dict[str, str]:
    """Return the columns that look as if they were known only after the event, with the reason."""
    frame = form.frame
    taken = {roles.label, roles.event_time, *roles.key}
    label = pl.Series(roles.label, as_label(frame[roles.label], roles.words))
    return dict(late_columns(frame, label, candidates=[name for name in frame.columns if name not in taken]))


def _feature(column: Column, values: pl.Series, is_key: bool) -> tuple[str | None, str]:
    """Return the feature of a column as it is, or None and why a column that could have one has none."""
    match column:
        case Category():
            return f'Ordinal("{column.name}")', ""
        case Integer() | Number() if is_key:
            return None, ""
        case Integer() | Number() if _is_too_exact(column, values):
            return (
                None,
                f"{column.name} has whole numbers above 2**24, which a model merges: it computes in float32",
            )
        case Boolean() | Integer() | Number():
            return f'Passthrough("{column.name}")', ""
        case _:
            return None, ""


def _is_too_exact(column: Integer | Number, values: pl.Series) -> bool:
    """Return True if training would refuse the column as it is, or may refuse it with the next batch."""
    numbers = values.drop_nulls().cast(pl.Float64)
    if isinstance(column, Integer):
        return bool((numbers.abs() > LARGEST_EXACT).any())
    return find_merged(numbers.to_numpy()) is not None


def _render(name: str, data: Path, form: FileForm, roles: _Columns, zone: str, late: dict[str, str]) -> str:
    """Return the text of the model file; `zone` is the time zone of timestamps in `data` that have none."""
    environment = Environment(
        loader=PackageLoader("holdfast.cli"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - it writes Python, not HTML
    )
    frame = form.frame
    found = {
        column: suggest_column(
            frame[column],
            in_key=column in roles.key,
            zone=zone,
            facts=ColumnFacts(unit=form.units.get(column)),
            upper=False,
        )
        for column in frame.columns
        if column != roles.label
    }
    times = frame[roles.event_time]
    per_day = _rows_a_day(times)
    label = Label(roles.label, delay="1d", missing="keep" if frame[roles.label].null_count() else "reject")
    policy = suggest(units_per_day=per_day, label_delay=label.delay_span)
    facts = {
        "label_line": to_python(label),
        "key": f'"{roles.key[0]}"' if len(roles.key) == 1 else repr(roles.key).replace("'", '"'),
        "event_time": roles.event_time,
        "name": name,
        "columns": [
            (each, *_feature(each.column, frame[column], column in roles.key))
            for column, each in found.items()
            if column not in late
        ],
        "late": [(found[column], reason) for column, reason in late.items()],
        "has_hours": _has_hours(times),
        "source": data.name,
        "holdout_days": holdout_days(times),
        "missing_words": repr(form.missing_words).replace("'", '"') if len(form.missing_words) > 1 else "",
        "missing_texts": form.missing_texts,
        "csv": csv_line(with_label(form.csv, roles.words)),
        "headers": [
            (json.dumps(header, ensure_ascii=False), column) for header, column in form.headers.items()
        ],
        "interval": (interval := _interval(times)),
        "interval_why": f"the longest time without an event is at most {interval} here",
        "canary": policy_line(policy),
        "canary_why": f"{per_day:,.0f} rows a day: about "
        + in_days(forecast(policy, units_per_day=per_day, label_delay=label.delay_span).days)
        + " if as many predictions are requested",
    }
    template = environment.get_template("model.py.j2")
    # The first rendering shows which names the file uses; the second imports exactly these.
    imports = used(template.render(facts, imports=["Model"]))
    return template.render(facts, imports=imports)


def _rows_a_day(timestamps: pl.Series) -> float:
    """Return how many rows a day has, over the days that the rows span, at least one."""
    known = timestamps.drop_nulls()
    newest, oldest = known.max(), known.min()
    if not isinstance(newest, datetime) or not isinstance(oldest, datetime):
        return 1.0
    return len(known) / max(1.0, (newest - oldest).total_seconds() / 86_400)


def _interval(timestamps: pl.Series) -> str:
    """Return the shortest usual interval of deliveries that no time without an event exceeds.

    >>> _interval(pl.Series([datetime(2026, 1, day) for day in (1, 3, 4)]))
    '7d'
    """
    steps = timestamps.drop_nulls().unique().sort().diff().drop_nulls()
    longest = steps.max()
    days = longest / timedelta(days=1) if isinstance(longest, timedelta) else 0.0
    return next((f"{size}d" for size in (1, 7, 31, 92) if days <= size), "366d")


def _has_hours(timestamps: pl.Series) -> bool:
    """Return True if the times are more than dates."""
    known = timestamps.drop_nulls()
    return bool(((known.dt.hour() != 0) | (known.dt.minute() != 0)).any())


def used(source: str) -> list[str]:
    """Return the names of Holdfast that a model file uses, sorted.

    >>> used("weight = Number('kg', unit='kg', missing=Keep())")
    ['Keep', 'Number']
    """
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    return sorted(names & set(holdfast.__all__))


def _read(path: Path, zone: str, dates: tuple[str, ...], decimal: str) -> tuple[FileForm, list[str]]:
    """Return the rows of a file with the form of their values, and what the values leave open."""
    if not path.is_file():
        raise _refusal(f"{path} does not exist", code="HF201")
    try:
        if path.suffix == ".parquet":
            table, _ = read_parquet(path.read_bytes(), LIMIT_BYTES)
            return _from_frame(pl.DataFrame(pl.from_arrow(table))), []
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        separator = infer_separator(text.split(b"\n", 1)[0].decode(errors="replace"))
        form, questions = infer_form(
            read_csv(text, separator).frame, separator=separator, zone=zone, dates=dates, decimal=decimal
        )
    except TooLargeError as error:
        raise _refusal(f"{path} is larger than {LIMIT_BYTES:,} bytes when unpacked", code="HF201") from error
    except (pl.exceptions.PolarsError, pa.ArrowException, UnreadableError, OSError, ValueError) as error:
        raise _refusal(f"{path} cannot be read: {first_line(error)}", code="HF201") from error
    return form, list(questions)


def _from_frame(frame: pl.DataFrame) -> FileForm:
    names = column_names(frame.columns)
    headers = {header: name for header, name in names.items() if header != name}
    frame = frame.with_columns(pl.col(pl.Date).cast(pl.Datetime("us")))
    return FileForm(frame.rename(names), Csv(), ("",), headers, header_units(names), is_typed=True)


def _chosen(
    form: FileForm, given: str | None, role: str, candidates: list[str], faults: list[str]
) -> str | None:
    """Return the column of a role, under its name in the contract; None, with a fault, if it is open."""
    if given is not None:
        if (found := form.headers.get(given, given)) in form.frame.columns:
            return found
        known = {name: name for name in form.frame.columns} | {
            name: header for header, name in form.headers.items()
        }
        faults.append(f"--{role} {given!r} is not a column; there are {', '.join(known.values())}")
        return None
    if len(candidates) == 1:
        return candidates[0]
    found_text = f"{', '.join(candidates)} are candidates" if candidates else "no column is a candidate"
    faults.append(f"which column is the {role}? {found_text}")
    return None


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
