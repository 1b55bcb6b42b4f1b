"""No delivery takes more than twice its limit, whatever its file becomes (B3, B11)."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.contract.schema.columns import CATEGORY_CHARACTERS

LIMIT: Final = 30_000_000
SLACK: Final = 6_000_000
"""What allocators keep in reserve."""
NAMES: Final = ("id", "at", "town", "note", *(f"n{number}" for number in range(6)), "k")
AT: Final = "2026-01-01T00:00:00Z"
HEAD: Final = f"{','.join(NAMES)}\n"
GOOD: Final = f"good,{AT}" + "," * (len(NAMES) - 2) + "\n"


def _csv(*lines: str) -> bytes:
    return (HEAD + GOOD + "".join(lines)).encode()


def _json(line: str, times: int) -> bytes:
    good = json.dumps(dict.fromkeys(NAMES) | {"id": "good", "at": AT})
    return f"{good}\n{line * times}".encode()


def _parquet(rows: int, options: dict[str, Any] | None = None, **columns: pa.Array) -> bytes:
    whole = {
        "id": pa.array([str(number) for number in range(rows)]),
        "at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * rows, pa.timestamp("us", "UTC")),
    } | {name: pa.nulls(rows) for name in NAMES[2:]}
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(whole | columns),
        sink,
        **{"dictionary_pagesize_limit": 1 << 30, "store_schema": False} | (options or {}),
    )
    return sink.getvalue().to_pybytes()


def _words(length: int, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["t" * length]))


def _nulls(rows: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: pa.nulls(rows) for name in NAMES}), sink)
    return sink.getvalue().to_pybytes()


def _lying() -> bytes:
    """Return a file with one page of 200 MB, and a footer that calls it small."""
    data = _parquet(
        1, {"compression": "zstd", "use_dictionary": False, "write_statistics": False},
        note=pa.array(["y" * 200_000_000]),
    )  # fmt: skip
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    about = pq.read_metadata(pa.BufferReader(data)).row_group(0)
    claimed = [about.column(3).total_uncompressed_size, about.total_byte_size]
    head, tail = data[:footer], data[footer:]
    for size in claimed:
        written = _varint(size << 1)
        assert written in tail
        tail = tail.replace(written, bytes([0x82, *[0x80] * (len(written) - 2), 0]))
    lying = head + tail
    assert pq.read_metadata(pa.BufferReader(lying)).row_group(0).total_byte_size == 1
    return lying


def _varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def _nested() -> bytes:
    kind = pa.int32()
    for _ in range(40):
        kind = pa.list_(kind)
    return _parquet(1, note=pa.array([None], kind))


REFUSED: Final = "HF201.*(of memory while it is loaded|when it is unpacked)"
SHUFFLED: Final = list(range(30_000))
random.Random(1).shuffle(SHUFFLED)
CASES: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    # What was attacked.
    "dictionary.parquet": (lambda: _parquet(1500, town=_words(1 << 20, 1500)), REFUSED),
    "kept.parquet": (lambda: _parquet(1500, {"store_schema": True}, town=_words(1 << 20, 1500)), REFUSED),
    "shared.parquet": (
        lambda: _parquet(
            1500, {"use_dictionary": False, "column_encoding": {"note": "DELTA_BYTE_ARRAY"}},
            note=pa.array(["y" * 100_000] * 1500),
        ),
        REFUSED,
    ),
    "nulls.parquet": (lambda: _nulls(20_000_000), REFUSED),
    "lying.parquet": (_lying, REFUSED),
    "nested.parquet": (_nested, "HF202"),
    "bomb.csv.gz": (lambda: gzip.compress(_csv("y" * 200_000_000), 1), REFUSED),
    "bomb.jsonl.gz": (lambda: gzip.compress(_json("[", 200_000_000), 1), REFUSED),
    "cells.csv": (lambda: _csv(("," * (len(NAMES) - 1) + "\n") * 900_000), REFUSED),
    "lists.jsonl": (lambda: _json('{"id":[' + "[]," * 2_000_000 + "[]]}\n", 1), REFUSED),
    "broken.jsonl": (lambda: _json("x\n", 2_000_000), REFUSED),
    # What is just accepted.
    "rows.csv": (lambda: _csv(*[f"{each},{AT},t,note {each},1.5,2.5,3.5,,5.5,6.5,7\n" for each in SHUFFLED]), "loaded 30001"),
    "bad.csv": (lambda: _csv("x,x,x,x,x,x,x,x,x,x,x\n" * 35_000), "loaded 1"),
    "long.csv": (lambda: _csv(*[f"{each},{AT},{'y' * 500},,,,,,,,\n" for each in range(9_000)]), "loaded 9001"),
    "lines.csv": (lambda: _csv("\n" * 3_000_000), "loaded 1"),
    "quotes.csv": (lambda: _csv('x,"' + '""' * 400_000 + '"\n'), "loaded 1"),
    "rows.jsonl": (lambda: b"".join(_json("", 0).replace(b"good", b"%d" % each) for each in range(26_000)), "loaded 26000"),
    "bad.jsonl": (
        lambda: _json(json.dumps(dict.fromkeys(NAMES, "x") | {"id": [1], "town": {}}) + "\n", 27_000), "loaded 1",
    ),
    "rows.parquet": (lambda: _parquet(30_000, note=pa.array(["y" * 20] * 30_000)), "loaded 30000"),
    "words.parquet": (lambda: _parquet(7_500, town=_words(CATEGORY_CHARACTERS, 7_500)), "loaded 7500"),
    "bad.parquet": (lambda: _parquet(30_000, id=pa.nulls(30_000)), "HF204"),
}  # fmt: skip


GROUPS: Final = (
    ("dictionary.parquet",),
    ("kept.parquet",),
    ("nulls.parquet",),
    ("nested.parquet",),
    ("lying.parquet",),
    ("shared.parquet",),
    ("bomb.csv.gz", "bomb.jsonl.gz"),
    ("cells.csv", "lists.jsonl", "broken.jsonl"),
    ("lines.csv", "quotes.csv"),
    ("rows.csv",),
    ("bad.csv",),
    ("long.csv",),
    ("bad.jsonl",),
    ("rows.jsonl",),
    ("words.parquet", "rows.parquet"),
    ("bad.parquet",),
)
"""The files that one child loads, one after the other: allocators keep some of what each has used, so large ones are alone."""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is measured by /proc")
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0])
def test_no_file_takes_more_than_twice_the_limit(group: tuple[str, ...], tmp_path: Path) -> None:
    files = {"small.csv": _csv(), "small.jsonl": _json("{}\n", 1), "small.parquet": _parquet(1)}
    warm_ups = len(files)
    files |= {name: CASES[name][0]() for name in group}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in files]
    command = [sys.executable, "-m", "tests.support.peak_memory", str(LIMIT), str(warm_ups), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    found = [json.loads(line) for line in done.stdout.splitlines()][warm_ups:]
    assert len(found) == len(group), done.stderr[-2000:]
    for name, (outcome, peak) in zip(group, found, strict=True):
        assert re.match(CASES[name][1], outcome), f"{name}: {outcome}"
        assert peak <= 2 * LIMIT + SLACK, f"{name}: {peak:,} bytes; {outcome}"


def test_every_case_is_in_a_group() -> None:
    assert sorted(name for group in GROUPS for name in group) == sorted(CASES)
