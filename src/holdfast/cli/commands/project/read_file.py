"""Read a file that a project begins with: its rows, and the form of their values."""

from __future__ import annotations

from pathlib import Path

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
)
from holdfast.errors import InputError
from holdfast.formatting import first_line
from holdfast.store.sources.arrow_tables import frame_of
from holdfast.store.sources.csv_reader import read_csv
from holdfast.store.sources.delivery import (
    LIMIT_BYTES,
    READ_ERRORS,
    NotUtf8Error,
    UnreadableError,
    transcode_command,
)
from holdfast.store.sources.memory import Memory, TooLargeError
from holdfast.store.sources.opener import deliveries
from holdfast.store.sources.parquet_reader import read_parquet


def read_file(path: Path, zone: str, dates: tuple[str, ...], decimal: str) -> tuple[FileForm, list[str]]:
    """Return the rows of a file with the form of their values, and what the values leave open.

    A directory or a pattern stands for all of its files, one after the other.
    """
    memory = Memory(LIMIT_BYTES)
    files = [Path(each) for each in deliveries(str(path))]
    kinds = {file.suffix == ".parquet" for file in files}
    if len(kinds) > 1:
        raise refusal(f"{path} holds Parquet and other files; one model file declares one form", code="HF201")
    if kinds == {True}:
        frames = [_read_one(file, memory)[0] for file in files]
        try:
            return from_frame(pl.concat(frames, how="diagonal_relaxed")), []
        except pl.exceptions.PolarsError as error:
            raise refusal(f"{path} cannot be read: {first_line(error)}", code="HF201") from error
    read = [_read_one(file, memory) for file in files]
    separators = {separator for _, separator in read}
    if len(separators) > 1:
        listed = " and ".join(repr(each) for each in sorted(separators))
        raise refusal(f"{path} holds files with the separators {listed}", code="HF201")
    try:
        form, questions = infer_form(
            pl.concat([frame for frame, _ in read], how="diagonal_relaxed"),
            separator=read[0][1],
            zone=zone,
            dates=dates,
            decimal=decimal,
        )
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise refusal(f"{path} cannot be read: {first_line(error)}", code="HF201") from error
    return form, list(questions)


def _read_one(path: Path, memory: Memory) -> tuple[pl.DataFrame, str]:
    """Return the rows of one file, those of CSV as texts, and the separator of CSV."""
    if not path.is_file():
        raise refusal(f"{path} does not exist", code="HF201")
    try:
        if path.suffix == ".parquet":
            table, _ = read_parquet(path.read_bytes(), LIMIT_BYTES, memory)
            return as_delivered(frame_of(table)), ""
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        separator = infer_separator(text.split(b"\n", 1)[0].decode(errors="replace"))
        return read_csv(text, separator, memory).frame, separator
    except NotUtf8Error as error:
        command = transcode_command(str(path), error.encoding)
        raise refusal(f"{path} {error}", command, code="HF201") from error
    except TooLargeError as error:
        raise refusal(f"{path} is larger than {LIMIT_BYTES:,} bytes when unpacked", code="HF201") from error
    except (*READ_ERRORS, UnreadableError) as error:
        raise refusal(f"{path} cannot be read: {first_line(error)}", code="HF201") from error


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
