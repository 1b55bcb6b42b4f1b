"""Take a CSV file apart into columns of text, as Python's `csv` with strict=True does, or refuse it.

Two passes that share nothing: NumPy finds where rows begin and end, PyArrow parses the values. A file in which they count
different rows is refused. PyArrow gets blocks that end where a row ends, because within a block of its own choice it can
lose the line feed of a quoted CR LF, and refuses a row that is longer than two of them.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

from holdfast.contract.batch.input_columns import list_names
from holdfast.formatting import first_line
from holdfast.store.sources.delivery import LIMIT_BYTES, NotUtf8Error, UnreadableError
from holdfast.store.sources.memory import Memory

_STEP_BYTES: Final = 1 << 20
_MOST_COLUMNS: Final = 10_000
_QUOTE_BYTES: Final = 40
"""What the position of a quote takes while it is found and looked at."""
_END_BYTES: Final = 32
"""What the end of a line takes while the rows of a block are counted."""
_LONGEST_ROW_BYTES: Final = 1 << 30
_LF, _CR, _QUOTE = b'\n\r"'
_ENDS: Final = b"\r\n"

_Positions: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Delimited:
    """The rows of a CSV file, and its broken lines.

    `lines` are those with more or fewer fields than the header, as they were delivered; they are not in `frame`.
    """

    frame: pl.DataFrame
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Block:
    """The bytes from `start` to before `stop`, which end with a row, and the number of rows in them."""

    start: int
    stop: int
    rows: int


def read_csv(
    text: bytes, separator: str = ",", memory: Memory | None = None, *, block_bytes: int | None = None
) -> Delimited:
    """Read UTF-8 with a header, separators and double quotes; empty lines are skipped, and so is a byte order mark.

    Parameters
    ----------
    separator
        What stands between two values, one character of ASCII.
    memory
        What the rows may take, which are counted before they are parsed; None for that of the default limit.
    block_bytes
        The size of the blocks that are parsed side by side; None for what suits `memory`.

    Raises `UnreadableError` for a file that is no such thing, for a quote within a quoted value that is not doubled, and for
    a file that ends within a line or within quotes: rows would be missing without a sign. A file whose last line ends
    without a line feed is complete if that line has all its fields; whether its last value was truncated cannot be known.
    Raises `TooLargeError` for a file that would take more than `memory`.
    """
    memory = memory or Memory(LIMIT_BYTES)
    text = text.removeprefix(codecs.BOM_UTF8)
    _check_utf8(text)
    try:
        memory.require(_QUOTE_BYTES * text.count(b'"'))
        quotes = _quote_positions(text, separator)
        start = _end_of_header(text, quotes)
        names = _header(text[:start], separator)
        step = block_bytes or memory.piece_bytes
        memory.require(_END_BYTES * min(step, len(text)))
        blocks = [block for block in _blocks(text, quotes, start, step) if block.rows]
        memory.hold_rows(sum(block.rows for block in blocks), len(names), len(text))
        if blocks and not text.endswith((b"\n", b"\r")):
            _check_last_line(text, quotes, blocks[-1].start, len(names), separator)
        parsed = _parse_all(text, blocks, names, separator)
    except (pa.ArrowException, OSError, ValueError, csv.Error) as error:
        raise UnreadableError(f"is not a readable CSV file ({first_line(error)})") from error
    tables = [table for table, _ in parsed] or [pa.table({name: pa.array([], pa.string()) for name in names})]
    lines = tuple(line for _, broken in parsed for line in broken)
    return Delimited(pl.DataFrame(pl.from_arrow(pa.concat_tables(tables))), lines)


def _check_utf8(text: bytes) -> None:
    ends = pa.py_buffer(np.array([0, len(text)], np.int64))
    whole = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(text)])  # without a copy
    try:
        whole.cast(pa.large_string())
    except pa.ArrowException:
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise NotUtf8Error(text, error) from error


# --- where rows begin and end -----------------------------------------------------------------------------------------


def _quote_positions(text: bytes, separator: str) -> _Positions:
    """Return where quotes are that begin or end a quoted value, or are doubled in one: an even number, in order.

    A position is within quotes if an odd number of them comes before it. Raises `UnreadableError` where one within a
    quoted value is neither doubled nor its end.
    """
    if b'"' not in text:
        return np.empty(0, np.int64)
    buffer = np.frombuffer(text, np.uint8)
    steps = range(0, len(text), _STEP_BYTES)
    quotes = np.concatenate([np.flatnonzero(buffer[at : at + _STEP_BYTES] == _QUOTE) + at for at in steps])
    if len(quotes) % 2:
        return _quotes_by_value(text, separator)
    is_edge = np.zeros(256, np.bool_)
    is_edge[[_LF, _CR, ord(separator)]] = True
    opening, closing = quotes[::2], quotes[1::2]
    doubled = closing[:-1] + 1 == opening[1:]
    opens = is_edge[buffer[opening - 1]]  # of a quote at 0 this is the last byte, which does not matter
    opens[0] |= opening[0] == 0
    opens[1:] |= doubled
    closes = is_edge[buffer[(closing + 1) % len(text)]]
    closes[-1] |= closing[-1] + 1 == len(text)
    closes[:-1] |= doubled
    return quotes if opens.all() and closes.all() else _quotes_by_value(text, separator)


def _quotes_by_value(text: bytes, separator: str) -> _Positions:
    """As `_quote_positions`, value by value: a quote that does not begin a value is a character like any other."""
    edge = re.escape(separator.encode()) + rb"\r\n"
    quoted = re.compile(rb'(?<![^%b])"(?:((?:[^"]++|"")*+)"(?![^%b])|)' % (edge, edge))
    found = array("q")
    for value in quoted.finditer(text):
        if value[1] is None:
            raise _misplaced(text, value.start())
        found.extend((value.start(), value.end() - 1))
    return np.array(found, np.int64)


def _misplaced(text: bytes, start: int) -> UnreadableError:
    """Return the error about the quoted value at `start`, which has no end or has more after it."""
    line = text.count(b"\n", 0, start) + 1
    if re.compile(rb'"(?:[^"]++|"")*+').fullmatch(text, start):
        return UnreadableError(
            f"ends within the quotes that begin in line {line}: it was truncated in transit, or a quote is not closed"
        )
    return UnreadableError(
        f"has a quote that is not doubled within the quoted value that begins in line {line}: "
        "where the value ends, and with it the row, cannot be known"
    )


def _end_of_header(text: bytes, quotes: _Positions) -> int:
    """Return where the first line that is not empty ends, its line feed included."""
    start = len(text) - len(text.lstrip(_ENDS))
    for end in re.compile(rb"[\r\n]").finditer(text, start):
        if not np.searchsorted(quotes, end.start()) % 2:
            return end.end()
    return len(text)


def _blocks(text: bytes, quotes: _Positions, start: int, block_bytes: int) -> Iterator[_Block]:
    """Yield blocks of about `block_bytes` of `text` from `start` on."""
    buffer = np.frombuffer(text, np.uint8)
    rows = 0
    for at in range(start, len(text), block_bytes):
        piece = buffer[at : at + block_bytes]
        ends = np.flatnonzero((piece == _LF) | (piece == _CR)) + at
        if len(quotes):
            ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
        if not len(ends):
            continue
        # An end after an end is the end of an empty line.
        before = buffer[ends - 1]
        rows += int(np.count_nonzero((before != _LF) & (before != _CR)))
        stop = int(ends[-1]) + 1
        yield _Block(start, stop, rows)
        start, rows = stop, 0
    if start < len(text):
        yield _Block(start, len(text), rows + 1)


# --- what they hold ---------------------------------------------------------------------------------------------------


def _header(line: bytes, separator: str) -> list[str]:
    """Return the names in the first line. Each must be there once, or a value would belong to two columns."""
    if line.count(separator.encode()) >= _MOST_COLUMNS:
        raise UnreadableError(f"has a header of more than {_MOST_COLUMNS:,} columns")
    text = io.StringIO(line.strip(_ENDS).decode(), newline="")
    names = next(csv.reader(text, delimiter=separator, strict=True), [])
    if not names:
        raise UnreadableError("is empty: it has no header")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise UnreadableError(f"names a column twice in its header: {list_names(twice)}")
    return names


def _check_last_line(text: bytes, quotes: _Positions, start: int, count: int, separator: str) -> None:
    """Raise `UnreadableError` if the line from `start` to the end of the file has fewer than `count` fields."""
    between = np.flatnonzero(np.frombuffer(text, np.uint8, offset=start) == ord(separator)) + start
    if np.count_nonzero(np.searchsorted(quotes, between) % 2 == 0) + 1 < count:
        raise UnreadableError("ends within a line: it was truncated in transit")


def _parse_all(
    text: bytes, blocks: list[_Block], names: list[str], separator: str
) -> list[tuple[pa.Table, list[str]]]:
    shared = pa.py_buffer(text)

    def parse(block: _Block) -> tuple[pa.Table, list[str]]:
        return _parse(shared, text, block, names, separator)

    if len(blocks) < 2:
        return [parse(block) for block in blocks]
    with ThreadPoolExecutor(min(len(blocks), pa.cpu_count())) as pool:
        return list(pool.map(parse, blocks))


def _parse(
    shared: pa.Buffer, text: bytes, block: _Block, names: list[str], separator: str
) -> tuple[pa.Table, list[str]]:
    """Return the rows of `block`, and the lines with another number of fields than `names`."""
    size = block.stop - block.start
    if size > _LONGEST_ROW_BYTES:
        raise UnreadableError(f"has a line of more than {_LONGEST_ROW_BYTES:,} bytes")
    data = shared.slice(block.start, size)
    if text.startswith(codecs.BOM_UTF8, block.start):
        data = pa.py_buffer(
            b"\n" + text[block.start : block.stop]
        )  # where a file begins, PyArrow skips this character
    broken: list[str] = []

    def keep(row: pc.InvalidRow) -> str:
        broken.append(row.text)
        return "skip"

    table = pc.read_csv(
        pa.BufferReader(data),
        read_options=pc.ReadOptions(column_names=names, block_size=size + 2, use_threads=False),
        parse_options=pc.ParseOptions(
            # Without quotes no value has a line feed, and rows are found faster.
            newlines_in_values=text.find(b'"', block.start, block.stop) >= 0,
            invalid_row_handler=keep,
            delimiter=separator,
        ),
        convert_options=pc.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    if table.num_rows + len(broken) != block.rows:
        raise UnreadableError(
            f"has {block.rows:,} rows by their line ends and {table.num_rows + len(broken):,} by their values, "
            f"between its bytes {block.start:,} and {block.stop:,}"
        )
    return table, broken
