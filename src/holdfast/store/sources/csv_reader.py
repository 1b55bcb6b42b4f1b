"""Read CSV without guessing: every value is text, and every line must have the header's number of fields.

A reader that pads short lines turns a delivery that was truncated in transit into rows with wrong values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

_LONGEST_LINE_BYTES: Final = 1 << 22
_ENDS: Final = b"\r\n"


class UnreadableError(Exception):
    """The bytes cannot be read as CSV; the message continues "the source x"."""


@dataclass(frozen=True, slots=True)
class Delimited:
    """The rows of a CSV file, and its broken lines.

    `lines` are those with more or fewer fields than the header, as they were delivered; they are not in `frame`.
    """

    frame: pl.DataFrame
    lines: tuple[str, ...]


def read(text: bytes) -> Delimited:
    """Read UTF-8 with a header, commas and double quotes; empty lines are skipped.

    Raises `UnreadableError` for a file that is no such thing, and for one that ends within a line or within quotes: rows
    would be missing without a sign. A file whose last line ends without a line feed is complete if that line has all its
    fields; whether its last value was truncated cannot be known.
    """
    try:
        pa.array([text], pa.large_binary()).cast(pa.large_string())  # whether it is UTF-8, without a copy
        names = _header(text)
        broken: list[pc.InvalidRow] = []
        table = _table(text, names, broken)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableError(f"is not a readable CSV file ({_first_line(error)})") from error
    if _is_truncated(text, broken) or _is_open(text, table):
        raise UnreadableError(
            "ends within a line or within quotes: it was truncated in transit, or a quote is not closed"
        )
    return Delimited(pl.DataFrame(pl.from_arrow(table)), tuple(row.text for row in broken))


def _header(text: bytes) -> list[str]:
    """Return the names in the first line. Each must be there once, or a value would belong to two columns."""
    first = pc.open_csv(
        pa.BufferReader(text[: _end_of_header(text)]), parse_options=pc.ParseOptions(newlines_in_values=True)
    ).schema.names
    twice = sorted({name for name in first if first.count(name) > 1})
    if twice:
        raise UnreadableError(f"names a column twice in its header: {', '.join(twice)}")
    return list(first)


def _end_of_header(text: bytes) -> int:
    """Return where the first line ends that holds an even number of quotes."""
    end, start = 0, len(text) - len(text.lstrip(_ENDS))
    while True:
        end = text.find(b"\n", max(end, start))
        if end < 0:
            return len(text)
        end += 1
        if text.count(b'"', 0, end) % 2 == 0:
            return end


def _table(text: bytes, names: list[str], broken: list[pc.InvalidRow]) -> pa.Table:
    def keep(row: pc.InvalidRow) -> str:
        broken.append(row)
        return "skip"

    return pc.read_csv(
        pa.BufferReader(text),
        read_options=pc.ReadOptions(block_size=_LONGEST_LINE_BYTES),
        # Without quotes each line is a row, and the blocks can be taken apart side by side.
        parse_options=pc.ParseOptions(newlines_in_values=b'"' in text, invalid_row_handler=keep),
        convert_options=pc.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )


def _is_truncated(text: bytes, broken: list[pc.InvalidRow]) -> bool:
    """Return True if the last line is short and without an end, or if quotes run through it to the end."""
    last = text.rstrip(_ENDS)
    for row in broken:
        tail = row.text.encode()
        if row.actual_columns < row.expected_columns and last.endswith(tail.rstrip(_ENDS)):
            return last == text or b"\n" in tail
    return False


def _is_open(text: bytes, table: pa.Table) -> bool:
    """Return True if the last value begins with a quote and ends with the file."""
    if not table.num_rows:
        return False
    value = table.column(table.num_columns - 1)[table.num_rows - 1].as_py().encode().replace(b'"', b'""')
    return any(end.endswith(b'"' + value if value else b',"') for end in (text, text.rstrip(_ENDS)))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
