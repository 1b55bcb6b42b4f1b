"""Find the columns of a file that have a role in a declaration: label, key and event time."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import polars as pl

from holdfast.cli.commands.project.read_file import refusal
from holdfast.contract.profile.infer_form import FileForm, column_names, label_words
from holdfast.formatting import counted


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file that have a role in the declaration, under their names in the contract."""

    label: str
    key: tuple[str, ...]
    event_time: str
    words: tuple[str, str]
    """The label's words of true and false."""


_EARLIER: Final = re.compile(r"(?:^|_)(?:prev|previous|previously|prior|former|earlier|last)(?:_|$)")
"""In the name of what was known before the event."""


def find_columns(
    data: str,
    form: FileForm,
    label: str | None,
    key: str | None,
    event_time: str | None,
    faults: list[str],
    labels: str | None = None,
) -> Columns:
    """Return the columns that were named; for each of the others the one column that fits.

    Parameters
    ----------
    data, form
        The file and its rows.
    label, key, event_time
        What was named; with `labels`, the label that was found there, None if that is open already.
    faults
        What is open already.
    labels
        The file from which the labels of `form` are; None if they are of `data`.

    Raises `InputError` HF110 with everything that the file leaves open, `faults` included.
    """
    frame = form.frame
    two_valued = [name for name in frame.columns if label_words(frame[name]) is not None]
    booleans = [name for name in two_valued if frame[name].dtype == pl.Boolean]
    if labels is None:
        candidates = booleans or two_valued
        if label is None and len(candidates) == 1 and _EARLIER.search(candidates[0]):
            # A file of labels, or another column of two values, is more likely than what was known before the event.
            faults.append(
                f"which column is the label? of two values: {', '.join(two_valued)}, and {candidates[0]!r} is named as "
                "what was known before; labels in a file of their own: --labels FILE"
            )
        else:
            label = choose(form, label, "label", candidates, faults)
    times = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Datetime) and name != label]
    event_time = choose(form, event_time, "event-time", times, faults)
    words = None if label is None else read_label_words(frame[label], form.is_typed, faults)
    if event_time is not None and (problem := _no_event_time(frame[event_time])):
        faults.append(problem)
        event_time = next((name for name in times if not _no_event_time(frame[name])), None)
    others = [name for name in frame.columns if name not in (label, event_time)]
    keys = _key_of(form, key, others, faults)
    if faults or label is None or event_time is None or words is None:
        listed = (
            faults[0]
            if len(faults) == 1
            else "; ".join(f"({n}) {fault}" for n, fault in enumerate(faults, 1))
        )
        keys = keys or (() if key is None else _identifying(frame, others))
        if words is None and labels is None:
            fitting = [name for name in two_valued if not _EARLIER.search(name)]
            label = fitting[0] if len(fitting) == 1 else None
        given = {"label": label, "key": ",".join(keys) or None, "event-time": event_time}
        options = " ".join(f"--{role} {shlex.quote(name or 'COLUMN')}" for role, name in given.items())
        more = "" if labels is None else f" --labels {shlex.quote(labels)}"
        raise refusal(listed, f"holdfast init {shlex.quote(data)} {options}{more}")
    return Columns(label, keys, event_time, words)


def read_label_words(values: pl.Series, is_typed: bool, faults: list[str]) -> tuple[str, str] | None:
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


def _identifying(frame: pl.DataFrame, columns: list[str]) -> tuple[str, ...]:
    """Return the column, else the two columns, that identify rows; empty if none do. Measured values and times do not."""
    fit = [
        name
        for name in columns
        if not frame[name].null_count() and (frame[name].dtype.is_integer() or frame[name].dtype == pl.String)
    ]
    parts = [*combinations(fit, 1), *combinations(fit, 2)]
    return next((each for each in parts if frame.select(each).n_unique() == frame.height), ())


def _key_of(form: FileForm, given: str | None, others: list[str], faults: list[str]) -> tuple[str, ...]:
    frame = form.frame
    if given is None:
        unique = [name for name in others if not frame[name].null_count() and frame[name].is_unique().all()]
        found = choose(form, None, "key", unique, faults)
        return () if found is None else (found,)
    parts = [given] if given in {*form.headers, *frame.columns} or "," not in given else given.split(",")
    found_parts = [choose(form, part, "key", [], faults) for part in parts]
    keys = tuple(part for part in found_parts if part is not None)
    if len(keys) < len(parts):
        return ()
    missing = frame.select(pl.any_horizontal(pl.col(keys).is_null()).sum()).item()
    distinct = frame.select(keys).n_unique()
    if missing or distinct < frame.height:
        faults.append(
            f"the key {given!r} does not identify rows: {counted(frame.height, 'row')}, "
            f"{distinct:,} values, {missing:,} missing"
        )
        return ()
    return keys


def choose(
    form: FileForm, given: str | None, role: str, candidates: list[str], faults: list[str]
) -> str | None:
    """Return the column of a role, under its name in the contract; None, with a fault, if it is open."""
    if given is not None:
        # As in the file, as in the contract, or as a person writes it, such as "order no" for "Order No".
        for found in (form.headers.get(given, given), column_names([given])[given]):
            if found in form.frame.columns:
                return found
        known = {name: name for name in form.frame.columns} | {
            name: header for header, name in form.headers.items()
        }
        listed = ", ".join(
            header if header == name else f"{header} ({name})" for name, header in known.items()
        )
        elsewhere = "; labels in a file of their own: --labels FILE" if role == "label" else ""
        faults.append(f"--{role} {given!r} is not a column; there are {listed}{elsewhere}")
        return None
    if len(candidates) == 1:
        return candidates[0]
    found_text = f"{', '.join(candidates)} are candidates" if candidates else "no column is a candidate"
    faults.append(f"which column is the {role}? {found_text}")
    return None
