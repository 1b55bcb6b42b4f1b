"""Read JSON lines (https://jsonlines.org): one object a line, each by the strict rules of RFC 8259.

A line that is no such object is returned as broken, as in CSV. An object with a duplicate name has a fault.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from holdfast.contract.batch.json_input import REPEATED
from holdfast.store.sources.delivery import UnreadableError


@dataclass(frozen=True, slots=True)
class Lines:
    """A file taken apart: the objects, and the lines that are none, as they were delivered."""

    rows: list[dict[str, object]]
    broken: tuple[str, ...]


def read(text: bytes) -> Lines:
    """Read the objects in `text`, which is UTF-8 with line feeds between; empty lines are skipped.

    NaN, Infinity, a lone value or array, a value of more digits than Python reads (4,300) and bytes that are no UTF-8 make
    a line broken. Raises `UnreadableError` if the file ends within a line: rows would be missing without a sign.
    """
    rows: list[dict[str, object]] = []
    broken: list[str] = []
    text = text.removeprefix(codecs.BOM_UTF8)
    for line in text.split(b"\n"):
        if not line.strip():
            continue
        row = _object(line)
        if row is None:
            broken.append(line.decode("utf-8", "backslashreplace").removesuffix("\r"))
        else:
            rows.append(row)
    last = text[text.rfind(b"\n") + 1 :]
    if last.strip() and _object(last) is None:
        raise UnreadableError("ends within a line: it was truncated in transit")
    # Counted by another pass, so that no line is lost in silence.
    lines = len(re.findall(rb"(?m)^[^\S\n]*+\S", text))
    if len(rows) + len(broken) != lines:
        raise UnreadableError(f"has {lines:,} lines, of which {len(rows) + len(broken):,} were read")
    return Lines(rows, tuple(broken))


def _object(line: bytes) -> dict[str, object] | None:
    try:
        found = _DECODER.decode(line.decode())
    except (ValueError, RecursionError):  # no JSON, no UTF-8, too many digits, too deep
        return None
    return found if isinstance(found, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, object]:
    found: dict[str, object] = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        found |= {name: REPEATED for name in found if names.count(name) > 1}
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
