"""The pages of a Parquet file, from their own headers: what a reader will unpack, whatever the footer claims.

The footer counts what a column takes when it is unpacked, and a hostile one lies. A page header is what the reader
goes by. The footer is read here too, because PyArrow ends the process at some damaged descriptions of columns that are
requested from Python. Both are structs of Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md, and for Parquet
https://parquet.apache.org/docs/file-format/data-pages/).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from holdfast.store.sources.delivery import UnreadableError

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_HEADERS: Final = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}
"""By the type of a page, the field of its header that describes it."""
_DICTIONARY_CODED: Final = frozenset({2, 8})
_SHARED_PREFIXES: Final = 7
"""DELTA_BYTE_ARRAY: a value is a part of the one before it and a rest, so a page of any size holds long values."""
_DEEPEST: Final = 16
_CODECS: Final = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_FOOTER_BYTES: Final = 8
"""The length of the footer and the magic number after it."""
_MOST_EMPTY_PAGES: Final = 1_000
_LARGEST_SCANNED_BYTES: Final = 1 << 24
"""A dictionary that is larger is taken to be one word."""


@dataclass(frozen=True, slots=True)
class Column:
    """What a column of a row group becomes.

    Parameters
    ----------
    words_bytes
        An upper bound of its values together, bytes; 0 for numbers.
    longest_bytes
        An upper bound of one value, bytes; 0 for numbers.
    page_bytes
        The largest page and the dictionary when unpacked, bytes.
    """

    words_bytes: int
    longest_bytes: int
    page_bytes: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column of a row group, as the footer describes it."""

    codec: int
    values: int
    packed_bytes: int
    data_at: int
    dictionary_at: int


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group, as the footer describes it; `size` is that of its pages when unpacked, bytes."""

    rows: int
    size: int
    chunks: tuple[Chunk, ...]


def row_groups(data: bytes) -> list[RowGroup]:
    """Return what the footer of `data` describes. Raises `UnreadableError` when it is damaged."""
    length = int.from_bytes(data[-_FOOTER_BYTES:-4], "little")
    if not 0 < length <= len(data) - _FOOTER_BYTES:
        raise UnreadableError("has a footer of an impossible length")
    footer, _ = _struct(data[len(data) - _FOOTER_BYTES - length : -_FOOTER_BYTES], 0, 0)
    return [
        RowGroup(
            _number(group, 3),
            _number(group, 2),
            tuple(_chunk(_one(column, 3)) for column in _structs(group, 1)),
        )
        for group in _structs(footer, 4)
    ]


def _chunk(about: dict[int, Any]) -> Chunk:
    dictionary_at = _number(about, 11) if 11 in about else 0
    return Chunk(_number(about, 4), _number(about, 5), _number(about, 7), _number(about, 9), dictionary_at)


def measure(data: bytes, chunk: Chunk, rows: int, *, has_words: bool) -> Column:
    """Return what the column `chunk` of `data` becomes, without unpacking a page of values.

    Parameters
    ----------
    rows
        The number of rows of its row group.
    has_words
        True if its values are of any length.

    Raises `UnreadableError` when a header is damaged or the pages hold another number of values than the footer counts.
    """
    if not rows and not chunk.values:
        return Column(0, 0, 0)  # it has no page, and the place of its first one means nothing
    values = empty = plain_bytes = coded = largest = dictionary_bytes = longest_word = longest = 0
    dictionary: tuple[int, int, int] | None = None
    for kind, size, packed, start, about in _pages(data, chunk):
        if kind == _DICTIONARY:
            dictionary_bytes, dictionary = size, (start, packed, size)
            continue
        count, encoding = _number(about, 1), _number(about, 4 if kind == _DATA_V2 else 2)
        empty += not count
        if empty > _MOST_EMPTY_PAGES:
            raise UnreadableError(f"has more than {_MOST_EMPTY_PAGES:,} pages without a value in a column")
        values += count
        largest = max(largest, size)
        if encoding in _DICTIONARY_CODED:
            coded += count
        elif encoding == _SHARED_PREFIXES:
            plain_bytes += count * size
            longest = max(longest, size)
        else:
            plain_bytes += size
            longest = max(longest, size)
        if values >= chunk.values:
            break
    if values != chunk.values or values != rows:
        raise UnreadableError(f"has {values:,} values in a column, and {rows:,} rows by its footer")
    if not has_words:
        return Column(0, 0, largest + dictionary_bytes)
    if coded and dictionary is not None:
        longest_word = _longest_word(data, chunk.codec, *dictionary)
    return Column(plain_bytes + coded * longest_word, max(longest, longest_word), largest + dictionary_bytes)


def _pages(data: bytes, chunk: Chunk) -> Iterator[tuple[int, int, int, int, dict[int, Any]]]:
    """Yield of each page its type, its size unpacked and packed, where its bytes begin, and what describes it."""
    at = chunk.dictionary_at if 0 < chunk.dictionary_at < chunk.data_at else chunk.data_at
    end = at + chunk.packed_bytes
    if end > len(data):
        raise UnreadableError("has a column outside of the file")
    while at < end:
        header, at = _struct(data, at, 0)
        kind, size, packed = (_number(header, field) for field in (1, 2, 3))
        about = header.get(_HEADERS.get(kind, 0), {})
        yield kind, size, packed, at, about if isinstance(about, dict) else {}
        at += packed


def _number(header: dict[int, Any], field: int) -> int:
    found = header.get(field)
    if not isinstance(found, int) or found < 0:
        raise UnreadableError(f"has a description without a number in its field {field}")
    return found


def _one(about: dict[int, Any], field: int) -> dict[int, Any]:
    found = about.get(field)
    if not isinstance(found, dict):
        raise UnreadableError(f"has a description without its field {field}")
    return found


def _structs(about: dict[int, Any], field: int) -> list[dict[int, Any]]:
    found = about.get(field)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise UnreadableError(f"has a description without a list in its field {field}")
    return found


def _longest_word(data: bytes, codec: int, start: int, packed: int, size: int) -> int:
    """Return the length of the longest word of a dictionary page; its whole size if it cannot be looked at."""
    if size > _LARGEST_SCANNED_BYTES:
        return size
    page: Any = memoryview(data)[start : start + packed]
    if codec:
        if codec not in _CODECS:
            return size
        try:
            page = pa.Codec(_CODECS[codec]).decompress(pa.py_buffer(page), size, asbytes=True)
        except (pa.ArrowException, OSError, ValueError):
            return size
    longest = at = 0
    length_at = struct.Struct("<I").unpack_from
    end = len(page) - 4
    while at <= end:
        (length,) = length_at(page, at)
        longest = max(longest, length)
        at += 4 + length
    return min(longest, size)


# --- Thrift's compact protocol ----------------------------------------------------------------------------------------


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise UnreadableError("has a description with a number that does not end")


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the integers and structs of the struct at `at` by their field, and where it ends."""
    if depth > _DEEPEST:
        raise UnreadableError("has a description that is nested too deep")
    found: dict[int, Any] = {}
    field = 0
    try:
        while head := data[at]:
            at += 1
            kind = head & 15
            if head >> 4:
                field += head >> 4
            else:
                raw, at = _varint(data, at)
                field = (raw >> 1) ^ -(raw & 1)
            found[field], at = _value(data, at, kind, depth)
    except IndexError as error:
        raise UnreadableError("ends within a description") from error
    return found, at + 1


def _list(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    if depth > _DEEPEST:
        raise UnreadableError("has a description that is nested too deep")
    head, at = data[at], at + 1
    size = head >> 4
    if size == 15:
        size, at = _varint(data, at)
    if size > len(data) - at:
        raise UnreadableError("ends within a description")
    found = []
    for _ in range(size):
        # In a list a boolean is a byte; elsewhere it is part of the type.
        value, at = _value(data, at, 3 if head & 15 in (1, 2) else head & 15, depth)
        found.append(value)
    return found, at


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    match kind:
        case 1 | 2:
            return 2 - kind, at
        case 3:
            return data[at], at + 1
        case 4 | 5 | 6:
            raw, at = _varint(data, at)
            return (raw >> 1) ^ -(raw & 1), at
        case 7:
            return None, at + 8
        case 8:
            size, at = _varint(data, at)
            if size > len(data) - at:
                raise UnreadableError("ends within a description")
            return None, at + size
        case 9 | 10:
            return _list(data, at, depth + 1)
        case 12:
            return _struct(data, at, depth + 1)
        case _:
            raise UnreadableError(f"has a description with a field of the unknown type {kind}")
