"""The pages of a Parquet file, from their own headers: what a reader will unpack, whatever the footer claims.

The footer counts what a column takes when it is unpacked, and a hostile one lies. A page header is what the reader
goes by. Headers are structs of Thrift's compact protocol
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
_DEEPEST: Final = 8
_CODECS: Final = {"SNAPPY": "snappy", "GZIP": "gzip", "BROTLI": "brotli", "ZSTD": "zstd", "LZ4": "lz4_raw"}
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


def measure(data: bytes, chunk: Any, rows: int) -> Column:
    """Return what the column `chunk` of `data` becomes, without unpacking a page of values.

    Parameters
    ----------
    chunk
        The column chunk, as PyArrow describes it (`ColumnChunkMetaData`).
    rows
        The number of rows of its row group.

    Raises `UnreadableError` when a header is damaged or the pages hold another number of values than the footer counts.
    """
    has_words = chunk.physical_type == "BYTE_ARRAY"
    values = empty = plain_bytes = coded = largest = dictionary_bytes = longest_word = longest = 0
    dictionary: tuple[int, int, int] | None = None
    for kind, size, packed, start, about in _pages(data, chunk):
        if size < 0 or packed < 0:
            raise UnreadableError("has a page of a negative size")
        if kind == _DICTIONARY:
            dictionary_bytes, dictionary = size, (start, packed, size)
            continue
        count, encoding = about.get(1, 0), about.get(4 if kind == _DATA_V2 else 2, 0)
        if count < 0:
            raise UnreadableError("has a page with a negative number of values")
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
        if values >= chunk.num_values:
            break
    if values != chunk.num_values or values != rows:
        raise UnreadableError(f"has {values:,} values in a column, and {rows:,} rows by its footer")
    if not has_words:
        return Column(0, 0, largest + dictionary_bytes)
    if coded and dictionary is not None:
        longest_word = _longest_word(data, chunk.compression, *dictionary)
    return Column(plain_bytes + coded * longest_word, max(longest, longest_word), largest + dictionary_bytes)


def _pages(data: bytes, chunk: Any) -> Iterator[tuple[int, int, int, int, dict[int, Any]]]:
    """Yield of each page its type, its size unpacked and packed, where its bytes begin, and what describes it."""
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < at:
        at = chunk.dictionary_page_offset
    end = at + chunk.total_compressed_size
    if at < 0 or end > len(data):
        raise UnreadableError("has a column outside of the file")
    while at < end:
        header, at = _struct(data, at, 0)
        kind, size, packed = (header.get(field, -1) for field in (1, 2, 3))
        yield kind, size, packed, at, header.get(_HEADERS.get(kind, 0), {})
        at += packed


def _longest_word(data: bytes, compression: str, start: int, packed: int, size: int) -> int:
    """Return the length of the longest word of a dictionary page; its whole size if it cannot be looked at."""
    if size > _LARGEST_SCANNED_BYTES:
        return size
    page: Any = memoryview(data)[start : start + packed]
    if compression != "UNCOMPRESSED":
        if compression not in _CODECS:
            return size
        try:
            page = pa.Codec(_CODECS[compression]).decompress(pa.py_buffer(page), size, asbytes=True)
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
    raise UnreadableError("has a page header with a number that does not end")


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the integers and structs of the struct at `at` by their field, and where it ends."""
    if depth > _DEEPEST:
        raise UnreadableError("has a page header that is nested too deep")
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
        raise UnreadableError("ends within a page header") from error
    return found, at + 1


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
                raise UnreadableError("ends within a page header")
            return None, at + size
        case 12:
            return _struct(data, at, depth + 1)
        case _:
            raise UnreadableError(f"has a page header with a field of the unknown type {kind}")
