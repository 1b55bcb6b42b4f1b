"""No delivery ends the process that loads it, or takes more than twice its limit, whatever its bytes are (P14, B3).

    python -m tests.soak.hostile_files --count 100000 --seed 1

Files are Parquet, CSV and JSON lines, packed by gzip or Zstandard or not. Each is made of a good one, by what knows its
form: bits in pages, page headers and footers, numbers of a footer, sizes, dictionaries of long words, shared prefixes, nulls
without end, wide headers, quotes, nested JSON, bombs; or by any change of bytes. A child that is forked for every few
hundred files loads them with a limit of 100 MB. After three good files, an RLIMIT_AS leaves it 1.5 GB of addresses more.
Every file must be loaded, or refused with a code. Prints the seed, and keeps the bytes of each file that is a fault;
exits with 1 if there is any.
"""

from __future__ import annotations

import gc
import gzip
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.command import ROOT, Command
from holdfast.control.ingest.dry_run import check
from holdfast.control.ingest.ingest import ingest
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.errors import HoldfastError
from holdfast.store import Store
from holdfast.store.sources import Bounded
from tests.support.peak_memory import FEED, resident

LIMIT_BYTES: Final = 100_000_000
ADDRESS_BYTES: Final = 1_500_000_000
"""Beyond what a child has after its first files: then the libraries have reserved their arenas and the stacks of their threads,
which is more than 2 GB of addresses, of which little is memory."""
SLACK_BYTES: Final = 20_000_000
"""What allocators keep in reserve."""
FILES_PER_CHILD: Final = 300
LOADED_EVERY: Final = 10
"""Of so many files one is loaded, the others are checked without being written."""
NAMES: Final = ("id", "at", "town", "note", *(f"n{number}" for number in range(6)), "k")
AT: Final = "2026-01-01T00:00:00Z"

Make = Callable[[random.Random, "Corpus"], tuple[str, bytes]]
"""Returns the name of a file, which names its kind, and its bytes."""


@dataclass(frozen=True)
class Corpus:
    """Good files, by kind, and bombs."""

    parquet: list[bytes]
    csv: bytes
    json_lines: bytes
    bombs: list[tuple[str, bytes]]


@dataclass
class Outcome:
    """How the files ended."""

    files: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    peak_bytes: int = 0
    deaths: list[str] = field(default_factory=list)
    escaped: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """Everything that must not be."""
        return [*self.deaths, *self.escaped, *self.too_large]


# --- good files -------------------------------------------------------------------------------------------------------


def _table(rows: int, words: int) -> pa.Table:
    at = pa.array([1_767_225_600_000_000 + row for row in range(rows)], pa.timestamp("us", "UTC"))
    columns: dict[str, Any] = {
        "id": [f"row {row}" for row in range(rows)],
        "at": at,
        "town": [f"town {row % words}" for row in range(rows)],
        "note": [None if row % 7 == 0 else "n" * (row % 40) for row in range(rows)],
        **{f"n{number}": [row * 0.5 + number for row in range(rows)] for number in range(5)},
        "n5": pa.array(range(rows)).cast(pa.decimal128(21, 2)),
        "k": list(range(rows)),
    }
    return pa.table(columns)


def _parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def corpus() -> Corpus:
    """Make the good files."""
    small, large = _table(60, 5), _table(3_000, 700)
    plain = {"use_dictionary": False}
    parquet = [
        _parquet(small),
        _parquet(small, compression="none"),
        _parquet(small, compression="gzip", data_page_version="2.0"),
        _parquet(small, compression="zstd", write_page_checksum=True),
        _parquet(small, row_group_size=7, compression="lz4"),
        _parquet(small, store_schema=False, use_deprecated_int96_timestamps=True),
        _parquet(
            small, **plain, column_encoding={"note": "DELTA_BYTE_ARRAY", "id": "DELTA_LENGTH_BYTE_ARRAY"}
        ),
        _parquet(small, **plain, column_encoding={"n0": "BYTE_STREAM_SPLIT", "k": "DELTA_BINARY_PACKED"}),
        _parquet(small.set_column(2, "town", small["town"].dictionary_encode())),
        _parquet(large, data_page_size=2_000, dictionary_pagesize_limit=3_000),
        _parquet(large, compression="brotli", row_group_size=1_000),
        _parquet(
            small.append_column("deep", pa.nulls(60, pa.list_(pa.struct([("a", pa.list_(pa.int32()))]))))
        ),
    ]
    rows = "".join(f'{row},{AT},"to,wn",note {row},1.5,2,3e1,-4,.5,6.,{row}\n' for row in range(200))
    objects = "".join(
        json.dumps(dict.fromkeys(NAMES, 1) | {"id": str(row), "at": AT, "town": "ü", "note": None}) + "\n"
        for row in range(200)
    )
    head = (",".join(NAMES) + "\n").encode()
    bombs = [
        (name, pack(data))
        for name, data in (
            ("bomb.csv", head + b"y" * 150_000_000),
            ("bomb.csv", head + b"," * 150_000_000),
            ("bomb.csv", head + b"\n" * 99_000_000),
            ("bomb.csv", head + (b"," * 10 + b"\n") * 8_000_000),
            ("bomb.csv", head + b'"' * 60_000_000),
            ("bomb.jsonl", b"[" * 90_000_000),
            ("bomb.jsonl", b'{"id":[' + b"[]," * 20_000_000 + b"[]]}\n"),
            ("bomb.jsonl", b"{}\n" * 25_000_000),
        )
        for pack in (
            lambda data: gzip.compress(data, 1),
            lambda data: pa.compress(data, "zstd", asbytes=True),
        )
    ]
    packed = [(f"{name}.{'gz' if data[:1] == bytes([0x1F]) else 'zst'}", data) for name, data in bombs]
    return Corpus(parquet, head + rows.encode(), objects.encode(), packed)


# --- hostile ones -----------------------------------------------------------------------------------------------------


def _flip(draw: random.Random, data: bytes, start: int = 0, stop: int | None = None) -> bytes:
    changed = bytearray(data)
    stop = len(data) if stop is None else stop
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        if stop > start:
            changed[draw.randrange(start, stop)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _rewrite(draw: random.Random, data: bytes) -> bytes:
    """Change bytes in any way: truncate, repeat, insert, overwrite by extreme numbers."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 2, 4))):
        at = draw.randrange(len(changed) + 1)
        end = min(len(changed), at + draw.choice((1, 4, 8, 100)))
        match draw.randrange(5):
            case 0:
                del changed[at:end]
            case 1:
                changed[at:at] = changed[at:end] * draw.choice((1, 2, 50))
            case 2:
                changed[at:end] = draw.choice(
                    (b"\xff" * 8, b"\0" * 8, b"\xff\xff\xff\xff\x0f", b"\x80" * 9 + b"\x01")
                )
            case 3:
                del changed[at:]
            case _:
                changed[at:at] = draw.randbytes(draw.choice((1, 3, 40)))
        if not changed:
            break
    return bytes(changed)


def _footer_of(data: bytes) -> int:
    return max(0, len(data) - 8 - int.from_bytes(data[-8:-4], "little"))


def _damaged_parquet(draw: random.Random, files: Corpus) -> tuple[str, bytes]:
    data = draw.choice(files.parquet)
    footer = _footer_of(data)
    match draw.randrange(6):
        case 0:
            data = _flip(draw, data)
        case 1:
            data = _flip(draw, data, footer, len(data) - 8)
        case 2:
            data = _flip(draw, data, 4, min(footer, 400))  # the first page headers
        case 3:
            data = _rewrite(draw, data)
        case 4:  # a number of the footer becomes another one; the length of the footer follows
            described = bytearray(data[footer:-8])
            for _ in range(draw.choice((1, 1, 3))):
                at = draw.randrange(len(described))
                described[at : at + 1] = draw.choice(
                    (b"\x00", b"\x7f", b"\xfe\xff\xff\xff\x0f", b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f")
                )
            data = data[:footer] + bytes(described) + len(described).to_bytes(4, "little") + b"PAR1"
        case _:
            data = data[:-8] + draw.randrange(1 << 32).to_bytes(4, "little") + b"PAR1"
    return "d.parquet", data


def _large_parquet(draw: random.Random, _files: Corpus) -> tuple[str, bytes]:
    """What is small on disk only: long words, shared prefixes, nulls, constants."""
    rows = draw.choice((10, 1_000, 20_000, 200_000))
    length = draw.choice((10, 1_000, 30_000, 1 << 20))
    base: dict[str, Any] = {name: pa.nulls(rows) for name in NAMES}
    base["id"] = pa.array([str(row) for row in range(rows)]) if draw.random() < 0.5 else base["id"]
    base["at"] = pa.array([0], pa.timestamp("us", "UTC")).take(pa.array([0] * rows))
    options: dict[str, Any] = {
        "compression": draw.choice(("zstd", "snappy", "gzip")),
        "dictionary_pagesize_limit": 1 << 30,
    }
    options |= {"store_schema": draw.random() < 0.5, "data_page_version": draw.choice(("1.0", "2.0"))}
    match draw.randrange(3):
        case 0:
            base[draw.choice(NAMES)] = pa.DictionaryArray.from_arrays(
                pa.array([0] * rows, pa.int32()), pa.array(["t" * length])
            )
        case 1:
            rows_of_text = min(rows, max(1, 20_000_000 // length))
            base = {name: column[:rows_of_text] for name, column in base.items()}
            base["note"] = pa.array(["y" * length] * rows_of_text)
            coding = draw.choice(("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"))
            options |= {"use_dictionary": False, "column_encoding": {"note": coding}}
        case _:
            many = draw.choice((1_000_000, 3_000_000))
            base = {name: pa.nulls(many) for name in NAMES}
    data = _parquet(pa.table(base), **options)
    return "d.parquet", _flip(draw, data) if draw.random() < 0.2 else data


_PIECES: Final = (
    b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"\xef\xbb\xbf", b"\0", b"\xff", b"1e999", b"-", b"NaN", b"9007199254740993",
    b"9" * 400, b"\xf0\x9f\x98\x80", b"{", b"}", b"[", b"]", b":", b"\\ud800", b"\\", b"null", b"x" * 1000,
)  # fmt: skip


def _spliced(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 3, 10, 100))):
        at = draw.randrange(len(changed) + 1)
        changed[at:at] = draw.choice(_PIECES) * draw.choice((1, 1, 1, 7, 500))
    return bytes(changed)


def _damaged_text(draw: random.Random, files: Corpus) -> tuple[str, bytes]:
    name, data = draw.choice((("d.csv", files.csv), ("d.jsonl", files.json_lines)))
    data = draw.choice((_flip, _rewrite, _spliced))(draw, data)
    return _maybe_packed(draw, name, data)


def _wide_text(draw: random.Random, _files: Corpus) -> tuple[str, bytes]:
    """Wide headers and objects, many short cells or lines, long values, deep values."""
    size = draw.choice((100, 3_000, 40_000))
    head = ",".join(NAMES).encode() + b"\n"
    found = [
        ("d.csv", b",".join(b"c%d" % number for number in range(size)) + b"\n" + b"," * (size - 1) + b"\n"),
        ("d.csv", b"," * size + b"\n"),
        ("d.csv", head + (b"," * (len(NAMES) - 1) + b"\n") * size * 5),
        ("d.csv", head + b"x\n" * size * 20),
        ("d.csv", head + b"\n" * size * 50),
        ("d.csv", head + b'"' + b'""' * size * 20 + b'"\n'),
        ("d.csv", head + b"a," + AT.encode() + b"," + b"y" * size * 200 + b",,,,,,,,\n"),
        ("d.jsonl", b"{" + b",".join(b'"x%d":1' % number for number in range(size)) + b"}\n"),
        ("d.jsonl", b"{" + b'"id":1,' * size + b'"id":2}\n'),
        ("d.jsonl", b'{"id":' + b"[" * size + b"]" * size + b"}\n"),
        ("d.jsonl", b'{"id":[' + b"{}," * size + b"1]}\n"),
        ("d.jsonl", b"".join(b'{"x%d":1}\n' % number for number in range(size))),
        ("d.jsonl", b"[]\n" * size * 5),
        ("d.jsonl", b'{"id":' + b"9" * size + b"}\n"),
    ]
    return _maybe_packed(draw, *draw.choice(found))


def _maybe_packed(draw: random.Random, name: str, data: bytes) -> tuple[str, bytes]:
    match draw.randrange(5):
        case 0:
            packed = gzip.compress(data, 1) * draw.choice((1, 1, 2))
        case 1:
            packed = pa.compress(data, "zstd", asbytes=True)
        case _:
            return name, data
    suffix = ".gz" if packed[:1] == b"\x1f" else ".zst"
    if draw.random() < 0.5:
        packed = draw.choice((_flip, _rewrite))(draw, packed)
    return name + suffix, packed


def _bomb(draw: random.Random, files: Corpus) -> tuple[str, bytes]:
    name, data = draw.choice(files.bombs)
    return name, _flip(draw, data) if draw.random() < 0.3 else data


MAKES: Final[tuple[tuple[Make, float], ...]] = (
    (_damaged_parquet, 500), (_damaged_text, 480), (_wide_text, 10), (_large_parquet, 8), (_bomb, 2),
)  # fmt: skip


def _make_of(seed: int, number: int) -> tuple[Make, random.Random]:
    draw = random.Random(f"{seed}/{number}")
    return draw.choices([make for make, _ in MAKES], [weight for _, weight in MAKES])[0], draw


def hostile(seed: int, number: int, files: Corpus) -> tuple[str, bytes]:
    """Return file `number` of the run with `seed`: the same for the same numbers."""
    make, draw = _make_of(seed, number)
    return make(draw, files)


def is_large(seed: int, number: int) -> bool:
    """Return True if file `number` has a child of its own: what allocators keep of it would count for the next ones."""
    return _make_of(seed, number)[0] in {_wide_text, _large_parquet, _bomb}


def _end_of_child(first: int, stop: int, seed: int) -> int:
    """Return before which file a child that begins with file `first` ends."""
    number = first + 1
    while number < stop and not is_large(seed, first) and not is_large(seed, number):
        number += 1
    return number


# --- the children -----------------------------------------------------------------------------------------------------


def _load_all(first: int, stop: int, seed: int, files: Corpus, directory: Path, report: int) -> None:
    """Load files in this child, and write a line about each before and after."""

    def write(*facts: object) -> None:
        os.write(report, json.dumps(facts).encode() + b"\n")

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(dir=directory) as root:
        shutil.copytree(directory / "store", Path(root) / "store")
        store = Store.open(Path(root) / "store")
        for name, data in (
            ("w.csv", files.csv),
            ("w.jsonl", files.json_lines),
            ("w.parquet", files.parquet[0]),
        ):
            (Path(root) / name).write_bytes(data)
            check(store, FEED, DeliverySpec("w", Path(root) / name), now_us=1)
        gc.collect()
        base = resident("VmRSS:")
        addresses = resident("VmSize:") + ADDRESS_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
        for number in range(first, stop):
            name, data = hostile(seed, number, files)
            path = Path(root) / name
            path.write_bytes(data)
            del data
            write("begun", number, name)
            Path("/proc/self/clear_refs").write_text("5")
            write("ended", number, *_outcome(store, path, number, base))
            path.unlink()


def _outcome(store: Store, path: Path, number: int, base: int) -> tuple[str, int]:
    source = Bounded(path, 300.0, LIMIT_BYTES)
    try:
        if number % LOADED_EVERY == 0:
            code = ingest(store, FEED, f"b{number}", source, now_us=number + 1).state
        else:
            run = check(store, FEED, DeliverySpec(f"b{number}", source), now_us=number + 1)
            code = run.outcome if run.refusal is None else run.refusal.code
    except HoldfastError as error:
        code = error.code
    except BaseException:
        code = f"escaped: {traceback.format_exc(limit=-3)}"
    return code, resident("VmHWM:") - base


def soak(count: int, seed: int, files_per_child: int, kept: Path) -> Outcome:
    """Load `count` files, drawn by `seed`; keep those that are faults in `kept`."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as directory:
        good = Path(directory) / "corpus"
        _in_child(lambda: _write_corpus(good))
        _in_child(lambda: Store.open(Path(directory) / "store").ledger.close())
        files = _read_corpus(good)
        number = 0
        while number < count:
            stop = _end_of_child(number, min(number + files_per_child, count), seed)
            number = _one_child(number, stop, seed, files, Path(directory), outcome)
    for fault in outcome.faults:
        place = int(fault.split()[0])
        name, data = hostile(seed, place, files)
        kept.mkdir(parents=True, exist_ok=True)
        (kept / f"{seed}-{place}-{name}").write_bytes(data)
    return outcome


def soak_apart(count: int, seed: int, files_per_child: int, kept: Path) -> Outcome:
    """As `soak`, in an interpreter of its own: a process with threads, such as that of a test run, cannot be forked."""
    code = f"from {__name__ if __name__ != '__main__' else 'tests.soak.hostile_files'} import in_this_process as run; run()"
    request = json.dumps([count, seed, files_per_child, str(kept)])
    done = subprocess.run(
        [sys.executable, "-c", code, request], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return Outcome(**found | {"codes": Counter(found["codes"])})


def in_this_process() -> None:
    """Do what the arguments of this process ask for, and print the outcome."""
    count, seed, files_per_child, kept = json.loads(sys.argv[1])
    print(json.dumps(vars(soak(count, seed, files_per_child, Path(kept)))))


def _in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process: this one starts no thread, so that a fork copies no lock that is held."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(70)
    return os.waitpid(child, 0)[1]


def _one_child(first: int, stop: int, seed: int, files: Corpus, directory: Path, outcome: Outcome) -> int:
    """Load files from `first` to `stop` in one child; return the file after the last that it reached."""
    report = directory / "report"
    descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    status = _in_child(lambda: _load_all(first, stop, seed, files, directory, descriptor))
    os.close(descriptor)
    begun = (first, "")
    reached = first
    for line in report.read_text().splitlines():
        what, number, word, *rest = json.loads(line)
        if what == "begun":
            begun = (number, word)
            continue
        reached = number + 1
        outcome.files += 1
        outcome.codes[word.split(":")[0]] += 1
        outcome.peak_bytes = max(outcome.peak_bytes, rest[0])
        if word.startswith("escaped"):
            outcome.escaped.append(f"{number} {begun[1]} {word}")
        if rest[0] > 2 * LIMIT_BYTES + SLACK_BYTES:
            outcome.too_large.append(f"{number} {begun[1]} has a peak of {rest[0]:,} bytes ({word})")
    if status:
        outcome.files += 1
        outcome.deaths.append(
            f"{begun[0]} {begun[1]} ended the process: status {os.waitstatus_to_exitcode(status)}"
        )
        reached = begun[0] + 1
    return reached


def _write_corpus(place: Path) -> None:
    files = corpus()
    place.mkdir()
    for number, data in enumerate(files.parquet):
        (place / f"p{number:03}").write_bytes(data)
    (place / "csv").write_bytes(files.csv)
    (place / "jsonl").write_bytes(files.json_lines)
    for number, (name, data) in enumerate(files.bombs):
        (place / f"b{number:03} {name}").write_bytes(data)


def _read_corpus(place: Path) -> Corpus:
    return Corpus(
        [path.read_bytes() for path in sorted(place.glob("p*"))],
        (place / "csv").read_bytes(),
        (place / "jsonl").read_bytes(),
        [(path.name.split(" ")[1], path.read_bytes()) for path in sorted(place.glob("b*"))],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.soak.hostile_files", __doc__)
    command.size("--count", 100_000, 150, help="files to load")
    command.size("--seed", 1, 2013, help="of the generator")
    command.size("--files-per-child", FILES_PER_CHILD, 75, help="after so many files a child is replaced")
    command.option(
        "--keep", type=Path, default=Path("build/hostile-files"), help="where to keep files that are faults"
    )
    options = command.parse(arguments)
    outcome = soak_apart(options.count, options.seed, options.files_per_child, options.keep)
    for fault in outcome.faults[:10]:
        print(f"FAULT: {fault}")
    figures = {
        "files": outcome.files, "seed": options.seed, "deaths": len(outcome.deaths), "escaped": len(outcome.escaped),
        "limits_passed": len(outcome.too_large), "peak_mb": round(outcome.peak_bytes / 1e6, 1),
        "loaded": outcome.codes["loaded"] + outcome.codes["suspect"],
        "refused": sum(count for code, count in outcome.codes.items() if code.startswith("HF")),
        "codes": dict(sorted(outcome.codes.items())),
    }  # fmt: skip
    return command.finish(figures, passed=not outcome.faults)


if __name__ == "__main__":
    sys.exit(main())
