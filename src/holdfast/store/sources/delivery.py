"""One delivery as it was received, before any value of it is read."""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final, TypeAlias

import polars as pl
import pyarrow as pa

from holdfast.errors import InputError, UnavailableError
from holdfast.formatting import first_line
from holdfast.store.sources.memory import TIMES_LIMIT, Memory, TooLargeError
from holdfast.store.sources.memory_room import Room, find_room

LIMIT_BYTES: Final = 8 << 30
"""The largest delivery, unpacked, unless HOLDFAST_SOURCE_BYTES sets another limit."""

DEADLINE_SECONDS: Final = 300.0
"""Deadline for reading a source, unless HOLDFAST_SOURCE_SECONDS sets another."""

READ_ERRORS: Final = (
    OSError,
    ValueError,
    ArithmeticError,
    pa.ArrowException,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)
"""What libraries raise at bytes that they cannot read; a panic of Polars is no `Exception`."""

_PARQUET_MAGIC: Final = b"PAR1"
_PACKED: Final = frozenset({".gz", ".zst"})
_UNFINISHED: Final = frozenset(
    {".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".inprogress", ".incomplete"}
)
_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_CHUNK_BYTES: Final = 1 << 22


class Kind(StrEnum):
    """How the rows of a file are written."""

    PARQUET = "Parquet"
    CSV = "CSV"
    JSON_LINES = "JSON lines"


@dataclass(frozen=True, slots=True)
class File:
    """One file of a delivery: its name within it, its kind, and its bytes, still packed if they were."""

    name: str
    kind: Kind
    data: bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """A delivery of files.

    `name` is what the ledger keeps of where they came from. A single file has the same digest wherever it lies; a directory
    has its files' names in its digest.
    """

    name: str
    files: tuple[File, ...]
    alone: bool
    limit_bytes: int = LIMIT_BYTES

    def memory(self) -> Memory:
        """Return what the delivery may still take in memory, its bytes counted."""
        return Memory(self.limit_bytes, sum(len(file.data) for file in self.files))

    def pieces(self) -> Iterator[bytes]:
        """Yield what is digested."""
        for file in self.files:
            if not self.alone:
                yield f"{len(file.name.encode())} {len(file.data)}\n{file.name}".encode()
            yield file.data


@dataclass(frozen=True, slots=True)
class Rows:
    """A delivery of rows that a database returned, in an order that depends on nothing but the rows.

    `digested` is their canonical form (`canonical_order.py`): the same rows have the same, in whatever order they came.
    """

    name: str
    table: pa.Table
    digested: tuple[bytes, ...]

    def pieces(self) -> Iterator[bytes]:
        """Yield what is digested."""
        yield from self.digested


Source: TypeAlias = Bundle | Rows


class UnreadableError(Exception):
    """The bytes do not have the form that the name of their file declares; the message continues "the source x"."""


class NotUtf8Error(UnreadableError):
    """The bytes are text of another encoding; `encoding` is the likely one, as `iconv` names it."""

    def __init__(self, text: bytes, error: UnicodeDecodeError) -> None:
        is_wide = text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        self.encoding = "UTF-16" if is_wide else "CP1252"
        line = text.count(b"\n", 0, error.start) + 1
        likely = "UTF-16" if is_wide else "that of Windows (1252)"
        super().__init__(
            f"is not UTF-8 (byte 0x{text[error.start]:02X} in line {line}); its encoding is likely {likely}: convert it"
        )


def transcode_command(path: str, encoding: str) -> str:
    """Return the command that writes the file at `path` again in UTF-8, with another name.

    >>> transcode_command("in/my loans.csv", "CP1252")
    "iconv -f CP1252 -t UTF-8 'in/my loans.csv' > 'in/my loans.utf8.csv'"
    """
    converted = PurePosixPath(path).with_suffix(f".utf8{PurePosixPath(path).suffix}")
    return f"iconv -f {encoding} -t UTF-8 {shlex.quote(path)} > {shlex.quote(str(converted))}"


@contextmanager
def reading(source: Bundle, file: File) -> Iterator[None]:
    """Raise what readers raise about `file` as `InputError` HF201."""
    name = source.name if source.alone else f"{source.name}: {file.name}"
    try:
        yield
    except TooLargeError as error:
        raise too_large(
            source.name, source.limit_bytes, in_memory=error.in_memory, room=error.room
        ) from error
    except MemoryError as error:
        raise too_large(source.name, source.limit_bytes, in_memory=True, room=find_room()) from error
    except NotUtf8Error as error:
        raise refused(name, str(error), next_command=transcode_command(file.name, error.encoding)) from error
    except UnreadableError as error:
        raise refused(name, str(error)) from error
    except READ_ERRORS as error:
        raise refused(name, f"is not a readable {file.kind} file ({first_line(error)})") from error


class AbsentError(InputError):
    """There is nothing at the place that a source names: it was mistyped, or has not come yet."""


def absent(name: str) -> AbsentError:
    """Return the error of a source that does not exist: HF201."""
    return AbsentError("HF201", f"the source {name} does not exist", state="nothing was loaded")


def refused(name: str, reason: str, *, next_command: str = "") -> InputError:
    """Return the error of a source that can never be read: HF201."""
    return InputError(
        "HF201", f"the source {name} {reason}", state="nothing was loaded", next_command=next_command
    )


def changed(name: str) -> InputError:
    """Return the error of a source that another process writes to: HF201."""
    return refused(
        name, "changed while it was read", next_command="the same command when the delivery is complete"
    )


def unanswered(name: str, reason: str) -> UnavailableError:
    """Return the error of a system that may respond another time: HF209."""
    return UnavailableError(
        "HF209",
        f"the source {name} {reason}",
        state="nothing was loaded",
        next_command="the same command again",
    )


def too_large(
    name: str, limit_bytes: int, *, in_memory: bool = False, room: Room | None = None
) -> InputError:
    """Return the error of a delivery beyond the limit, or that would take too much memory: HF201.

    `room` is what the system leaves, if the delivery would not fit in that.
    """
    if room is not None:
        return refused(
            name,
            f"would take more than the {room.left_bytes:,} bytes of memory that this process has left by {room.limit}",
            next_command=f"deliver it as several batches, or {room.next_command}",
        )
    return refused(
        name,
        f"would take more than {TIMES_LIMIT} x {limit_bytes:,} bytes of memory while it is loaded"
        if in_memory
        else f"holds more than {limit_bytes:,} bytes when it is unpacked",
        next_command="deliver it as several batches, or raise HOLDFAST_SOURCE_BYTES",
    )


_KINDS: Final = {
    ".csv": Kind.CSV,
    ".txt": Kind.CSV,
    ".jsonl": Kind.JSON_LINES,
    ".ndjson": Kind.JSON_LINES,
    ".parquet": Kind.PARQUET,
    ".pq": Kind.PARQUET,
}


def is_data(name: str) -> bool:
    """Return True if `name`, a path below a directory, is a file of rows.

    Hadoop's markers, hidden files and control files are none.

    >>> [is_data(name) for name in ("a/day.csv", "_SUCCESS", ".day.csv.crc", "_tmp/day.csv", "day.csv~", "day.csv.count")]
    [True, False, False, False, False, False]
    """
    return not name.endswith(("~", ".count")) and not any(
        part.startswith((".", "_")) for part in PurePosixPath(name).parts
    )


def is_unfinished(name: str) -> bool:
    """Return True if a writer has not yet given the file its final name.

    >>> is_unfinished("day.csv.part"), is_unfinished("day.csv")
    (True, False)
    """
    return PurePosixPath(name).suffix.lower() in _UNFINISHED


def as_file(name: str, data: bytes, shown: str) -> File:
    """Return the file with its kind; `InputError` HF201 if it is empty or of an unknown kind."""
    if not data:
        raise refused(shown, "is empty")
    if data.startswith(_PARQUET_MAGIC):
        return File(name, Kind.PARQUET, data)
    path = PurePosixPath(name.lower())
    packed = path.suffix in _PACKED
    inner = path.with_suffix("") if packed else path
    kind = _KINDS.get(inner.suffix, Kind.CSV if packed else None)
    if kind is None:
        raise refused(
            shown,
            "is neither Parquet nor CSV nor JSON lines: name the files *.csv or *.jsonl, packed *.csv.gz or *.jsonl.zst",
        )
    return File(name, kind, data)


def of_one_kind(files: Iterable[File], shown: str) -> tuple[File, ...]:
    """Return `files` in the order of their names; `InputError` HF201 if there is none, or several kinds."""
    found = tuple(sorted(files, key=lambda file: file.name))
    kinds = sorted({file.kind for file in found})
    if not found:
        raise refused(shown, "holds no file of rows")
    if len(kinds) > 1:
        examples = [next(file.name for file in found if file.kind is kind) for kind in kinds]
        listed = ", ".join(f"{kind} ({name})" for kind, name in zip(kinds, examples, strict=True))
        raise refused(
            shown,
            f"holds files of several kinds: {listed}",
            next_command="load each kind as a batch of its own",
        )
    return found


def all_finished(names: Iterable[str], shown: str) -> tuple[str, ...]:
    """Return the names of the files of rows, in order; `InputError` HF201 if one of them is still being written."""
    data = tuple(sorted(name for name in names if is_data(name)))
    unfinished = [name for name in data if is_unfinished(name)]
    if unfinished:
        raise refused(
            shown,
            f"is still being written: {unfinished[0]} is there",
            next_command="the same command when the delivery is complete",
        )
    return data


def unpacked_head(data: bytes, size_bytes: int) -> bytes:
    """Return the first `size_bytes` of `data`, unpacked as `unpacked` does; no more than these are unpacked."""
    codec = next((codec for magic, codec in _MAGIC.items() if data.startswith(magic)), None)
    if codec is None:
        return data[:size_bytes]
    with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
        return bytes(stream.read(size_bytes))


def unpacked(data: bytes, limit_bytes: int, memory: Memory | None = None) -> bytes:
    """Return `data`, unpacked if it begins as a packed file does, whatever its name.

    Raises `TooLargeError` beyond `limit_bytes` or the memory, and `OSError` if a packed file is damaged or truncated.
    """
    memory = memory or Memory(limit_bytes)
    codec = next((codec for magic, codec in _MAGIC.items() if data.startswith(magic)), None)
    if codec is None:
        return data
    chunks: list[bytes] = []
    size = 0
    with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > limit_bytes:
                raise TooLargeError
            memory.require(2 * size)  # the pieces, and what they become together
            chunks.append(chunk)
    memory.hold(size)
    return b"".join(chunks)
