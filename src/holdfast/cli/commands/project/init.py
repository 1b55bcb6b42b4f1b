"""Begin a project: init."""

from __future__ import annotations

import ast
import json
import math
import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl
import typer
from jinja2 import Environment, PackageLoader, StrictUndefined

import holdfast
from holdfast.cli.app import command
from holdfast.cli.commands.project import label_file
from holdfast.cli.commands.project.delivery_interval import DeliveryInterval, stale_days, suggest_interval
from holdfast.cli.commands.project.label_file import LabelFile
from holdfast.cli.commands.project.read_file import read_file, refusal
from holdfast.cli.commands.project.roles import Columns, find_columns
from holdfast.cli.commands.project.sample import write_sample
from holdfast.cli.output import escape
from holdfast.cli.project import HERE, MODEL_FILE, Run, with_directory
from holdfast.contract import Boolean, Category, Column, Integer, Label, Number
from holdfast.contract.profile.infer_contract import suggest_column, to_python
from holdfast.contract.profile.infer_delay import LabelDelay, delay_of_missing, due_labels
from holdfast.contract.profile.infer_form import FileForm, as_label, csv_line, late_columns, with_words
from holdfast.contract.schema.missing import Reject
from holdfast.contract.schema.source_metadata import ColumnFacts
from holdfast.errors import ConflictError
from holdfast.features.precision import LARGEST_EXACT, find_merged
from holdfast.formatting import counted
from holdfast.qualify.gate_config import Gates, suggest_margin
from holdfast.records import check_name
from holdfast.rollout.expected_duration import forecast, suggest
from holdfast.rollout.expected_duration import span as in_days
from holdfast.rollout.expected_duration import to_python as policy_line
from holdfast.store.sources.opener import name_of

_SAMPLE = "parcels.csv"
_ENOUGH = 1.25
"""Labelled rows to hold out, as a multiple of what the gates require: some may be quarantined."""


@command("Begin")
@with_directory
def init(
    run: Run,
    data: Annotated[
        str | None,
        typer.Argument(
            help="A CSV, JSON lines or Parquet file of yours, packed or not; a directory or a pattern of files of one form; "
            "or a URL of these, such as s3://.",
            show_default="a small sample is written",
        ),
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
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            help="A file of labels that become known later, with the key of each row.",
            show_default="the rows have them",
        ),
    ] = None,
    known_at: Annotated[
        str | None,
        typer.Option(
            "--known-at",
            help="The column of that file with the time since when a label is known.",
            show_default="its only timestamp",
        ),
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
    as found. One report has everything that the file leaves open. Labels that become known later can be in a file of their
    own (--labels); the time that they take is measured.

    Example: holdfast init parcels.csv --label late
    """
    out, project = run.out, run.directory
    name = check_name(name or _named_for(project), "model")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise refusal(f"{zone!r} is not a time zone") from error
    if decimal not in (None, ".", ","):
        raise refusal(f"--decimal is '.' or ',', not {decimal!r}")
    target = project / MODEL_FILE
    if target.exists():
        raise ConflictError(
            "HF102", f"{target} exists already", state="nothing was written", next_command="holdfast check"
        )
    project.mkdir(parents=True, exist_ok=True)
    is_sample = data is None
    if data is None:
        data = str(project / _SAMPLE)
        write_sample(Path(data))
        label, key, event_time = "late", "parcel", "handed_in"
        out.print(f"[green]ok[/] wrote {escape(data)}: 6,000 synthetic parcels, about a quarter of them late")
    orders = (dates,) if dates else ()
    form, faults = read_file(data, run.settings, zone, orders, decimal or "")
    if labels is None:
        columns = find_columns(data, form, label, key, event_time, faults)
        delay, why = _delay(form, columns)
        found_labels = None
    else:
        read = read_file(labels, run.settings, zone, orders, decimal or "")
        found_labels, form, known = label_file.join(labels, read, form, label, key, known_at, zone, faults)
        label = None if found_labels is None else found_labels.label
        columns = find_columns(data, form, label, key, event_time, faults, labels)
        delay, why = label_file.delay(form.frame[columns.event_time], known, zone)
    late = _known_late(form, columns)
    times = form.frame[columns.event_time]
    interval = suggest_interval(times, form.file_rows)
    age_days = None if is_sample else stale_days(times, interval.interval, datetime.now(UTC))
    source = _render(
        name,
        data,
        form,
        columns,
        zone,
        late,
        (delay, why),
        found_labels,
        interval,
        is_stale=age_days is not None,
    )
    target.write_text(source, encoding="utf-8")
    out.print(f"[green]ok[/] wrote {escape(str(target))}; read it, correct units and ranges, then:")
    for column, reason in late.items():
        out.print(
            f"  [yellow]known when a prediction is requested?[/] {escape(f'{column}: {reason}')}; it is loaded, "
            "the model lacks it"
        )
    if not delay.is_measured:
        labelled = form.frame[columns.label].count()
        out.print(
            f"  [yellow]how long do labels take?[/] {labelled:,} of {counted(form.frame.height, 'row')} have a label, "
            f"too few to measure it: the rows are at most {counted(delay.days, 'day')} old. Begin with older "
            f"rows too, or correct delay= in {MODEL_FILE}"
        )
    elif labels is None and delay.days > 1:
        out.print(
            f"  [yellow]labels that come later?[/] the newest {delay.days} days lack labels; load theirs as a feed of its own, "
            'Feed(..., labels_for="rows"), or name a first file of them with --labels'
        )
    if age_days is not None:
        out.print(
            f"  [yellow]how often does it deliver?[/] the newest event is {counted(age_days, 'day')} old, so interval= is left "
            f"open in {MODEL_FILE}: until you declare it, the feed is never overdue"
        )
    held_out = _holdout(form, columns, delay, zone)[1]
    if held_out < Gates().of_each_class:
        out.print(
            f"  [yellow]enough history?[/] the gates hold out {counted(held_out, 'label')} of the rarer class, in the newest "
            f"days, and need {Gates().of_each_class}: until then no version qualifies. Begin with more files: "
            "holdfast init DIRECTORY"
        )
    where = [] if project == HERE else ["-p", str(project)]
    commands = [
        shlex.join([*words, *where])
        for words in (
            ["holdfast", "ingest", "rows", data],
            *([["holdfast", "ingest", label_file.FEED, labels]] if labels else []),
            ["holdfast", "train"],
            ["holdfast", "qualify"],
            ["holdfast", "rollout", "start"],
            ["holdfast", "up"],
        )
    ]
    for line in commands:
        out.print(f"  [cyan]{escape(line)}[/]")
    example = shlex.join(["holdfast", "versions", "example-request", *where])
    url = f"http://{run.settings.host}:{run.settings.port}/v2/models/{name}/infer"
    out.print("and when it serves, a request to try:")
    out.print(f"  [cyan]{escape(example)} | curl -H 'Content-Type: application/json' -d @- {escape(url)}[/]")
    found = {"label": columns.label, "key": list(columns.key), "event_time": columns.event_time}
    out.result(
        {
            "model_file": str(target),
            "data": data,
            **found,
            "known_later": late,
            "label_delay_days": delay.days,
            "label_delay_measured": delay.is_measured,
            "held_out_labels": held_out,
            "stale_days": age_days,
            "next": commands,
        }
    )


def _known_late(form: FileForm, roles: Columns) -> dict[str, str]:
    """Return the columns that look as if they were known only after the event, with the reason."""
    frame = form.frame
    taken = {roles.label, roles.event_time, *roles.key}
    label = pl.Series(roles.label, as_label(frame[roles.label], roles.words))
    return dict(late_columns(frame, label, candidates=[name for name in frame.columns if name not in taken]))


def _delay(form: FileForm, roles: Columns) -> tuple[LabelDelay, str]:
    """Return after how many days the label is known, and how that is known."""
    found = delay_of_missing(form.frame[roles.event_time], form.frame[roles.label].is_not_null())
    return found, "rows of the newest days have no label yet" if found.days > 1 else ""


def _holdout(form: FileForm, roles: Columns, delay: LabelDelay, zone: str) -> tuple[int, int]:
    """Return how many days to hold out, and how many labels of the rarer class these newest days have."""
    times = form.frame[roles.event_time]
    due = due_labels(times, as_label(form.frame[roles.label], roles.words), delay.days)
    days, most = holdout_days(times, due), int(_days(times) / 3)
    local = label_file.in_utc(times, zone).dt.convert_time_zone(zone)
    while (held_out := rarer_of_newest(local, due, days)) < _ENOUGH * Gates().of_each_class and days < most:
        days += 1
    return days, held_out


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


def _render(
    name: str,
    data: str,
    form: FileForm,
    roles: Columns,
    zone: str,
    late: dict[str, str],
    delay: tuple[LabelDelay, str],
    labels: LabelFile | None,
    interval: DeliveryInterval,
    *,
    is_stale: bool,
) -> str:
    """Return the text of the model file.

    Parameters
    ----------
    name
        The name of the model.
    data, form, roles
        The file, its rows, and the columns with a role.
    zone
        The time zone of timestamps that have none.
    late
        The columns that are known only after the event, with the reason.
    delay
        After how many days the label is known, and how that is known.
    labels
        The file of labels; None if the rows have them.
    interval
        How often the feed probably delivers.
    is_stale
        The newest event is old: how often the feed delivers is left open.
    """
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
            is_event_time=column == roles.event_time,
        )
        for column in frame.columns
        if column != roles.label
    }
    # Rows without an event time are few (`roles`), and quarantined: no contract accepts them.
    when = found[roles.event_time]
    found[roles.event_time] = replace(when, column=replace(when.column, missing=Reject()))
    times = frame[roles.event_time]
    per_day = _rows_a_day(times)
    is_late = labels is not None or frame[roles.label].null_count() > 0
    label_delay, why = delay
    if not label_delay.is_measured:
        why = "at least, correct it: the rows are too recent to measure it"
    label = Label(roles.label, delay=f"{label_delay.days}d", missing="keep" if is_late else "reject")
    holdout, held_out = _holdout(form, roles, label_delay, zone)
    is_enough = held_out >= Gates().of_each_class
    counted_labels = (
        f"the newest {counted(holdout, 'day')} have {counted(held_out, 'label')} of the rarer class"
    )
    margin = suggest_margin(held_out)
    policy = suggest(units_per_day=per_day, label_delay=label.delay_span)
    facts = {
        "label_line": to_python(label),
        "label_why": f": {why}" if why else "",
        "label_feed": ""
        if labels is None
        else labels.python(zone, {column: found[column].line for column in roles.key}),
        "feeds": "rows," if labels is None else f"rows, {label_file.FEED}",
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
        "source": name_of(data),
        "holdout_days": holdout,
        "gates": f"Gates(worse_than_champion_by={margin:g})"
        if is_enough and margin > Gates().worse_than_champion_by
        else "",
        "gates_why": f"{counted_labels}, which show no smaller loss",
        "gates_open": "" if is_enough else f"{counted_labels}, of the {Gates().of_each_class} that they need",
        "missing_words": repr(form.missing_words).replace("'", '"') if len(form.missing_words) > 1 else "",
        "missing_texts": form.missing_texts,
        "csv": csv_line(with_words(form.csv, roles.words)),
        "headers": [
            (json.dumps(header, ensure_ascii=False), column) for header, column in form.headers.items()
        ],
        "interval": interval,
        "is_stale": is_stale,
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
    return timestamps.count() / _days(timestamps)


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


def _named_for(project: Path) -> str:
    """Return a model's name made of its directory's, in the characters that a name may have."""
    return re.sub(r"[^a-z0-9_-]+", "-", project.resolve().name.lower()).strip("-_")[:63] or "model"


def holdout_days(timestamps: pl.Series, labels: pl.Series) -> int:
    """Return how many days have enough labels for the gates, of both classes; 7 or more, at most a third of the days.

    `labels` are booleans; null where a row has none, or one that is not due.

    >>> from datetime import timedelta
    >>> at = pl.Series([datetime(2026, 1, 1) + timedelta(hours=n) for n in range(2400)])
    >>> often, seldom = (pl.Series([n % every == 0 for n in range(2400)]) for every in (2, 17))
    >>> holdout_days(at, often), holdout_days(at, seldom)
    (27, 33)
    """
    days = _days(timestamps.filter(labels.is_not_null()))
    gates, rows = Gates(), labels.count() / days
    needed = _ENOUGH * max(
        gates.labelled_rows / max(rows, 1e-9),
        gates.of_each_class / max(rarer_per_day(timestamps, labels), 1e-9),
    )
    return max(1, min(max(7, math.ceil(needed)), int(_days(timestamps) / 3)))


def rarer_per_day(timestamps: pl.Series, labels: pl.Series) -> float:
    """Return how many labels of the rarer class a day has, over the days that have labels."""
    positives = int(labels.sum() or 0)
    return min(positives, labels.count() - positives) / _days(timestamps.filter(labels.is_not_null()))


def rarer_of_newest(timestamps: pl.Series, labels: pl.Series, days: int) -> int:
    """Return how many labels of the rarer class the newest `days` have, which are whole and end with the newest label's.

    >>> at = pl.Series([datetime(2026, 1, day) for day in (1, 2, 3, 4)])
    >>> rarer_of_newest(at, pl.Series([True, False, True, None]), 2)
    1
    """
    per_day = pl.DataFrame({"day": timestamps.dt.date(), "label": labels}).drop_nulls()
    newest = per_day.filter(pl.col("day") > pl.col("day").max() - pl.duration(days=days))["label"]
    positives = int(newest.sum() or 0)
    return min(positives, newest.len() - positives)


def _days(timestamps: pl.Series) -> float:
    """Return how many days the timestamps span, at least one."""
    newest, oldest = timestamps.max(), timestamps.min()
    if not isinstance(newest, datetime) or not isinstance(oldest, datetime):
        return 1.0
    return max(1.0, (newest - oldest).total_seconds() / 86_400)
