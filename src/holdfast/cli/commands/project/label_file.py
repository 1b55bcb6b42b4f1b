"""Labels in a file of their own: read it with the rows, and declare its feed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import polars as pl

from holdfast.cli.commands.project.roles import choose, read_label_words
from holdfast.contract import Boolean
from holdfast.contract.profile.infer_contract import suggest_column, to_python
from holdfast.contract.profile.infer_delay import LabelDelay, delay_between
from holdfast.contract.profile.infer_form import FileForm, as_label, csv_line, label_words, with_words
from holdfast.store.sources.opener import name_of

FEED = "labels"
"""The name of the feed that `init` declares for labels."""


@dataclass(frozen=True, slots=True)
class LabelFile:
    """A file of labels, and the columns in it that have a role, under their names in the contract.

    `words` are those of true and false, `known_at` is when a label became known.
    """

    path: str
    form: FileForm
    label: str
    words: tuple[str, str]
    key: tuple[str, ...]
    known_at: str

    def first_labels(self, zone: str) -> pl.DataFrame:
        """Return the first label of each key, as a boolean, with the time in UTC at which it became known."""
        frame = self.form.frame
        return (
            frame.select(*self.key)
            .with_columns(
                as_label(frame[self.label], self.words).alias(self.label),
                in_utc(frame[self.known_at], zone).alias(self.known_at),
            )
            .sort(self.known_at, nulls_last=True)
            .unique(list(self.key), keep="first", maintain_order=True)
        )

    def python(self, zone: str, key_lines: dict[str, str]) -> str:
        """Return the feed as Python; `key_lines` are the key's columns as the rows declare them."""
        frame = self.form.frame
        lines = []
        for column in frame.columns:
            if column == self.label:
                line = to_python(Boolean(column, missing="keep" if frame[column].null_count() else "reject"))
            else:
                suggested = suggest_column(
                    frame[column], in_key=column == self.known_at, zone=zone, upper=False
                )
                line = key_lines.get(column, suggested.line)
            lines.append(f"        {line},")
        key = ", ".join(f'"{name}"' for name in (*self.key, self.known_at))
        lines += [
            f"        key=({key}),",
            f'        event_time="{self.known_at}",  # when the label became known',
        ]
        rest = ['    labels_for="rows",']
        if len(self.form.missing_words) > 1:
            rest.append(f"    missing_words={self.form.missing_words!r},".replace("'", '"'))
        if line := csv_line(with_words(self.form.csv, self.words)):
            rest.append(f"    csv={line},")
        if self.form.headers:
            named = ", ".join(
                f'{json.dumps(header, ensure_ascii=False)}: "{name}"'
                for header, name in self.form.headers.items()
            )
            rest.append(f"    headers={{{named}}},")
        rest += [
            "    expects=Expectations(",
            "        invalid_rows=Limits(warning=0.01, error=0.05),  # the share of a batch that may break the contract",
            "        drift=True,  # the share of true labels, against the batches before",
            "    ),",
        ]
        return "\n".join([f"{FEED} = Feed(", f'    "{FEED}",', "    Contract(", *lines, "    ),", *rest, ")"])


def join(
    path: str,
    read: tuple[FileForm, list[str]],
    rows: FileForm,
    label: str | None,
    key: str | None,
    known_at: str | None,
    zone: str,
    faults: list[str],
) -> tuple[LabelFile | None, FileForm, pl.Series | None]:
    """Return the file of labels, `rows` with the first label of each, and since when, in UTC, that was known.

    Parameters
    ----------
    path, read
        The file, and what `read_file` returned for it.
    rows
        The rows that are labelled.
    label, key, known_at
        The columns that were named.
    zone
        The time zone of timestamps that have none.
    faults
        Gets what the file leaves open; then `rows` are returned as they are.
    """
    form, questions = read
    faults += [f"{name_of(path)}: {question}" for question in questions]
    frame, open_before = form.frame, len(faults)
    two_valued = [name for name in frame.columns if label_words(frame[name]) is not None]
    label = choose(
        form, label, "label", [name for name in two_valued if name not in rows.frame.columns], faults
    )
    times = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Datetime)]
    known_at = choose(form, known_at, "known-at", times, faults)
    words = None if label is None else read_label_words(frame[label], form.is_typed, faults)
    keys = _keys(path, form, rows, key, (label, known_at), faults)
    if len(faults) > open_before or label is None or words is None or known_at is None:
        return None, rows, None
    found = LabelFile(path, form, label, words, keys, known_at)
    first = found.first_labels(zone)
    if label in rows.frame.columns:
        first = first.drop(label)
    joined = rows.frame.join(first, on=list(keys), how="left", maintain_order="left")
    return found, replace(rows, frame=joined.drop(known_at)), joined[known_at]


def _keys(
    path: str,
    form: FileForm,
    rows: FileForm,
    key: str | None,
    others: tuple[str | None, ...],
    faults: list[str],
) -> tuple[str, ...]:
    """Return the columns by which labels find their rows: those named, or all that both files have."""
    if key is None:
        keys = tuple(name for name in form.frame.columns if name in rows.frame.columns and name not in others)
    else:
        parts = [key] if key in {*rows.headers, *rows.frame.columns} else key.split(",")
        keys = tuple(rows.headers.get(part, part) for part in parts)
    if not keys:
        faults.append(f"{name_of(path)} has no column of the rows, by which a label finds its row")
    for name in keys:
        if name not in form.frame.columns:
            faults.append(f"{name_of(path)} has no column {name!r}, by which a label finds its row")
        elif name in rows.frame.columns and form.frame.schema[name] != rows.frame.schema[name]:
            kinds = form.frame.schema[name], rows.frame.schema[name]
            faults.append(f"{name!r} is {kinds[0]} in {name_of(path)} and {kinds[1]} in the rows")
    return keys


def delay(event_times: pl.Series, known_at: pl.Series | None, zone: str) -> tuple[LabelDelay, str]:
    """Return after how many days the labels of rows were known, and how that is known."""
    if known_at is None:
        return LabelDelay(1, is_measured=False), ""
    found = delay_between(in_utc(event_times, zone), known_at)
    return found, f"99 % were known within {found.days} days" if found.is_measured else ""


def in_utc(values: pl.Series, zone: str) -> pl.Series:
    """Return timestamps in UTC; those without a zone are of the wall clock of `zone`."""
    dtype = values.dtype
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        values = values.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return values.dt.convert_time_zone("UTC")
