"""Read a file that a project begins with: its rows, and the form of their values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from holdfast.contract.batch.csv_format import Csv
from holdfast.contract.batch.typed_input import as_delivered
from holdfast.contract.profile.infer_form import (
    FileForm,
    as_flag,
    column_names,
    header_units,
    infer_form,
    infer_separator,
    type_texts,
)
from holdfast.errors import InputError, UnavailableError
from holdfast.formatting import first_line
from holdfast.settings import Settings
from holdfast.store.sources.arrow_tables import frame_of
from holdfast.store.sources.csv_reader import read_csv
from holdfast.store.sources.delivery import (
    READ_ERRORS,
    Bundle,
    File,
    Kind,
    NotUtf8Error,
    UnreadableError,
    transcode_command,
    unpacked,
)
from holdfast.store.sources.infer_types import json_rows
from holdfast.store.sources.memory import Memory, TooLargeError
from holdfast.store.sources.opener import deliveries, open_source
from holdfast.store.sources.parquet_reader import read_parquet


def read_file(
    spec: str, settings: Settings, zone: str, dates: tuple[str, ...], decimal: str
) -> tuple[FileForm, list[str]]:
    """Return the rows of a file with the form of their values, and what the values leave open.

    Reads what a load reads: packed files, and s3:// and other URLs. A directory or a pattern stands for all of its files, one
    after the other.

    Raises `InputError` HF201 when they cannot be read, and `UnavailableError` HF209 when the other system does not answer.
    """
    memory = Memory(settings.source_bytes)
    read: list[tuple[pl.DataFrame, str]] = []
    kinds: dict[Kind, None] = {}
    for place, file in _files(spec, settings):
        kinds[file.kind] = None
        if len(kinds) > 1:
            what = f"{spec} holds files of several kinds, {' and '.join(sorted(kinds))}; one model file declares one form"
            raise refusal(what, code="HF201")
        read.append(_read_one(place, file, memory))
    separators = {separator for _, separator in read}
    if len(separators) > 1:
        listed = " and ".join(repr(each) for each in sorted(separators))
        raise refusal(f"{spec} holds files with the separators {listed}", code="HF201")
    heights = tuple(frame.height for frame, _ in read)
    try:
        frame = pl.concat([frame for frame, _ in read], how="diagonal_relaxed")
        if Kind.CSV not in kinds:
            return replace(from_frame(frame), file_rows=heights), []
        form, questions = infer_form(frame, separator=read[0][1], zone=zone, dates=dates, decimal=decimal)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise refusal(f"{spec} cannot be read: {first_line(error)}", code="HF201") from error
    return replace(form, file_rows=heights), list(questions)


def _files(spec: str, settings: Settings) -> Iterator[tuple[str, File]]:
    """Yield each file at `spec` with its place, opened as a load opens it."""
    deadline_seconds = settings.source_seconds
    try:
        for place in deliveries(spec, deadline_seconds=deadline_seconds):
            source = open_source(place, deadline_seconds=deadline_seconds, limit_bytes=settings.source_bytes)
            if isinstance(source, Bundle):
                yield from ((place, file) for file in source.files)
    except (InputError, UnavailableError) as error:
        error.state = "nothing was written"
        raise


def _read_one(place: str, file: File, memory: Memory) -> tuple[pl.DataFrame, str]:
    """Return the rows of one file, those of CSV as texts, and the separator of CSV."""
    try:
        if file.kind is Kind.PARQUET:
            table, _ = read_parquet(file.data, memory.limit_bytes, memory)
            return as_delivered(frame_of(table)), ""
        text = unpacked(file.data, memory.limit_bytes, memory).removeprefix(b"\xef\xbb\xbf")
        if file.kind is Kind.JSON_LINES:
            return _with_times(json_rows(text, memory)), ""
        separator = infer_separator(text.split(b"\n", 1)[0].decode(errors="replace"))
        return read_csv(text, separator, memory).frame, separator
    except NotUtf8Error as error:
        command = transcode_command(place, error.encoding)
        raise refusal(f"{place} {error}", command, code="HF201") from error
    except TooLargeError as error:
        what = f"{place} is larger than {memory.limit_bytes:,} bytes when unpacked"
        raise refusal(what, code="HF201") from error
    except (*READ_ERRORS, UnreadableError) as error:
        raise refusal(f"{place} cannot be read: {first_line(error)}", code="HF201") from error


def _with_times(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of JSON with timestamps in place of the texts that are some: JSON has no type of its own for them."""
    texts = frame.select(pl.col(pl.String))
    if not texts.width:
        return frame
    typed = type_texts(texts, Csv(), ("",))
    return frame.with_columns(typed.select(pl.col(pl.Datetime)))


def from_frame(frame: pl.DataFrame) -> FileForm:
    """Return the form of rows that have types."""
    names = column_names(frame.columns)
    headers = {header: name for header, name in names.items() if header != name}
    frame = frame.with_columns(pl.col(pl.Date).cast(pl.Datetime("us")))
    frame = pl.DataFrame([as_flag(column) for column in frame.get_columns()])
    return FileForm(frame.rename(names), Csv(), ("",), headers, header_units(names), is_typed=True)


def refusal(what: str, next_command: str = "holdfast init --help", *, code: str = "HF110") -> InputError:
    """Return the error of a file or option from which no project can be derived."""
    return InputError(code, what, state="nothing was written", next_command=next_command)
