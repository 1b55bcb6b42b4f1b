"""Read JSON lines (https://jsonlines.org): one object a line, each by the strict rules of RFC 8259.

A line that is no such object is returned as broken, as in CSV. An object with a duplicate name has a fault.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from holdfast.contract.batch.json_input import REPEATED
from holdfast.store.sources.delivery import UnreadableError
from holdfast.store.sources.memory import Memory

_VALUE_TIMES: Final = 40
"""How many bytes of memory a byte of JSON can become: an empty list is two bytes of text."""


@dataclass(frozen=True, slots=True)
class Lines:
    """A part of a file: the objects, and the lines that are none, as they were delivered."""

    rows: list[dict[str, object]]
    broken: tuple[str, ...]


def read(text: bytes, memory: Memory) -> Iterator[Lines]:
    """Yield the objects in `text`, which is UTF-8 with line feeds between, some at a time; empty lines are skipped.

    NaN, Infinity, a lone value or array, a value of more digits than Python reads (4,300) and bytes that are no UTF-8 make
    a line broken. Raises `UnreadableError` if the file ends within a line: rows would be missing without a sign; and
    `TooLargeError` when the values of a line would take more memory than is left.
    """
    start = len(codecs.BOM_UTF8) if text.startswith(codecs.BOM_UTF8) else 0
    last = text[text.rfind(b"\n", start) + 1 :] if b"\n" in text else text[start:]
    if last.strip() and _object(last, memory) is None:
        raise UnreadableError("ends within a line: it was truncated in transit")
    found = lines = 0
    while start < len(text):
        stop = (
            text.rfind(b"\n", start, start + memory.piece_bytes) + 1
            or text.find(b"\n", start) + 1
            or len(text)
        )
        piece = text[start:stop]
        read = _read(piece, memory)
        found += len(read.rows) + len(read.broken)
        # Counted by another pass, so that no line is lost in silence.
        lines += len(re.findall(rb"(?m)^[^\S\n]*+\S", piece))
        if found != lines:
            raise UnreadableError(f"has {lines:,} lines, of which {found:,} were read")
        yield read
        start = stop


def _read(piece: bytes, memory: Memory) -> Lines:
    rows: list[dict[str, object]] = []
    broken: list[str] = []
    for line in piece.split(b"\n"):
        if not line.strip():
            continue
        row = _object(line, memory)
        if row is None:
            as_text = line.decode("utf-8", "backslashreplace").removesuffix("\r")
            memory.hold_rows(1, 0, len(as_text.encode()))
            broken.append(as_text)
        else:
            rows.append(row)
    return Lines(rows, tuple(broken))


def _object(line: bytes, memory: Memory) -> dict[str, object] | None:
    memory.require(_VALUE_TIMES * len(line))
    try:
        found = _DECODER.decode(line.decode())
    except (ValueError, RecursionError):  # no JSON, no UTF-8, too many digits, too deep
        return None
    return found if isinstance(found, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, object]:
    found: dict[str, object] = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        found |= {name: REPEATED for name, count in counts.items() if count > 1}
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
