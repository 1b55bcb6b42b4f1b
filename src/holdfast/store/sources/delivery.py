"""One delivery as it was received, before any value of it is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import pyarrow as pa

from holdfast.errors import InputError, UnavailableError

LIMIT_BYTES: Final = 8 << 30
"""The largest delivery, unpacked, unless HOLDFAST_SOURCE_BYTES sets another limit."""

DEADLINE_SECONDS: Final = 300.0
"""Deadline for reading a source, unless HOLDFAST_SOURCE_SECONDS sets another."""


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


def refused(name: str, reason: str, *, next_command: str = "") -> InputError:
    """Return the error of a source that can never be read: HF201."""
    return InputError(
        "HF201", f"the source {name} {reason}", state="nothing was loaded", next_command=next_command
    )


def unanswered(name: str, reason: str) -> UnavailableError:
    """Return the error of a system that may respond another time: HF209."""
    return UnavailableError(
        "HF209",
        f"the source {name} {reason}",
        state="nothing was loaded",
        next_command="the same command again",
    )


def too_large(name: str, limit_bytes: int) -> InputError:
    """Return the error of a delivery beyond the limit: HF201."""
    return refused(
        name,
        f"holds more than {limit_bytes:,} bytes when it is unpacked",
        next_command="deliver it as several batches, or raise HOLDFAST_SOURCE_BYTES",
    )


def first_line(error: Exception) -> str:
    """Return the first line of the message of an error, or its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]
