"""The batch and the row give the same verdict of the same row, with the same reasons in the same order (R45, R47).

    python -m tests.soak.contract_parity --rows 100000 --seed 1

Half of the rows come as JSON objects, where any value may stand anywhere: words for numbers, lone surrogates, 2**63, keys that
are missing or too many. The other half come typed, as from a Parquet file. What is expected of keys, of what is unique and of
aliases is counted here, row by row. Prints the seed, and how often each reason was given; exits with 1 on any difference.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from benchmarks.command import Command
from holdfast.contract import (
    Boolean,
    Category,
    Constant,
    Contract,
    Integer,
    Label,
    Number,
    Rule,
    Text,
    Timestamp,
    col,
)
from holdfast.contract.batch.compiler import compile_batch, dtypes
from holdfast.contract.batch.json_input import from_objects
from holdfast.contract.batch.reasons import REASONS
from holdfast.contract.batch.typed_input import from_frame
from holdfast.contract.row.aliases import map_row
from holdfast.contract.row.compiler import EXTRA, compile_row
from holdfast.contract.schema.timestamps import read_timestamp
from holdfast.records import microseconds

NEW_YORK = "America/New_York"
BATCH = 5_000
EVENT, WALL = Timestamp("at", tz=NEW_YORK), Timestamp("wall", tz=NEW_YORK, naive="local", missing="keep")
RULES = (
    Rule("short", col("distance") <= col("planned") * 2 + 4500),
    Rule("speed", col("distance") / (col("minutes") / 60) < 90_000),
    Rule("third", (col("free") / 3 * 3 == col("free")) | (col("free").abs() < 9)),
    Rule(
        "finite",
        ~(col("free") * col("free") - col("free") * col("free")).is_missing() | col("free").is_missing(),
    ),
    Rule("elsewhere", col("carrier") != col("city")),
    Rule("order", (col("tail") < col("city")) | (col("tail") > "AX") | col("tail").is_missing()),
    Rule("tail_form", col("tail").matches(r"(?!X)[A-Z🛫]\w*$").implies(col("tail").length() <= 3)),
    Rule("few", ~col("count").is_in([3, -4.0, 5])),
    Rule("cities", ~col("city").is_in([f"C{number}" for number in range(20, 34)])),
    Rule("after", col("wall") - col("at") < "900d"),
    Rule(
        "soon",
        (col("wall") + timedelta(minutes=1) > col("at")) | (col("minutes") * timedelta(minutes=1) < "2h"),
    ),
    Rule("before", col("at") < datetime(2090, 1, 1, tzinfo=UTC)),
    Rule("day", col("night").implies(~col("holiday"))),
    Rule("known_late", (col("late") == col("night")) | (col("minutes") > 20)),
    Rule("there", ~(col("wall").is_missing() & col("tail").is_missing())),
)
CONTRACT = Contract(
    Text("id", max_length=8),
    EVENT,
    Number("distance", unit="mi", low=0, high=6000),
    Number("planned", unit="mi", missing="median"),
    Number("free", unit="1", missing="keep"),
    Integer("minutes", unit="min", low=-5, missing="keep"),
    Integer("count", missing=Constant(0)),
    Category(
        "carrier",
        values=("UA", "Ω", "a\0b", "🛫"),
        unseen="reject",
        aliases={"ua": "UA", "UAL\0": "UA", "plane": "🛫"},
    ),
    Category("city", aliases={"C0": "C23", "C1": "C23", "c\0": "UA", "Ω": "a\0b"}),
    Text("tail", max_length=4, missing="keep"),
    Text("code", pattern=r"[A-Z]\d\Z", missing="keep"),
    Boolean("night", missing="keep"),
    Boolean("holiday"),
    WALL,
    key=("id", "city"),
    event_time="at",
    label=Label("late", delay="12h", missing="keep"),
    rules=RULES,
    unique=(("tail", "count"), "wall"),
)
HOSTILE: list[Any] = [
    None, "", "\0", "a\0", "\ud83d", "x\udfff", "🛫", "🛫🛫🛫🛫🛫", "A\n", "NaN", "1", 1, 0, -1, True, False, 0.0, -0.0, 1.5,
    float("nan"), float("inf"), -float("inf"), 5e-324, 1.7976931348623157e308, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63,
    -(2**63) - 1, 2**64, 10**308, 10**400, [], {}, [1], "2013-03-10T02:30:00", "2013-11-03 01:30:00",
    "2013-11-03T01:30:00-05:00", "2013-02-30T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z",
    "2013-01-01", "a" * 300, "\ufeffUA", "e\u0301",
]  # fmt: skip
CLOCKS = [
    "2013-03-10 02:30:00", "2013-03-10T01:59:59.999999", "2013-03-10T03:00:00", "2013-11-03 01:30:00", "2013-11-03 00:59:59",
    "2013-11-03T02:00:00", "2013-03-10T02:30:00-05:00", "1883-11-18T12:00:00Z", "1899-12-31 23:59:59", "2099-12-31 23:59:59",
    "2100-01-01 00:00:00", "2013-06-30T23:59:60Z", "2013-01-01T05:00:00.123456789+05:45", "2013-01-01T05:00:00.Z",
]  # fmt: skip


@dataclass(slots=True)
class Outcome:
    """What was compared. `differences` holds the first few: where, the row, what the batch reported and what it should."""

    rows: int = 0
    valid: int = 0
    extra: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    differences: list[tuple[str, dict[str, Any], list[str], list[str]]] = field(default_factory=list)


class Draw:
    """Values for whole columns: mostly plain, and a share of them hostile."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def of(self, pool: list[Any], rows: int) -> list[Any]:
        return [pool[place] for place in self.rng.integers(0, len(pool), rows).tolist()]

    def mixed(self, rows: int, *pools: tuple[float, list[Any]]) -> list[Any]:
        """For each row a value of one of the pools, by their weights."""
        weights = np.array([weight for weight, _ in pools])
        chosen = self.rng.choice(len(pools), rows, p=weights / weights.sum()).tolist()
        drawn = [self.of(pool, rows) for _, pool in pools]
        return [drawn[which][row] for row, which in enumerate(chosen)]

    def floats(self, rows: int) -> list[float]:
        """Any bit pattern of a double."""
        return list(self.rng.integers(0, 2**64, rows, dtype=np.uint64).view(np.float64).tolist())

    def texts(self, rows: int) -> list[str]:
        """One to five characters from all of Unicode, without surrogates."""
        points = self.rng.integers(0, 0x110000 - 0x800, (rows, 5))
        points += np.where(points >= 0xD800, 0x800, 0)
        sizes = self.rng.integers(1, 6, rows).tolist()
        return ["".join(map(chr, line[:size])) for line, size in zip(points.tolist(), sizes, strict=True)]

    def clocks(self, rows: int) -> list[str]:
        """Times of 2012 to 2014, half of them in the nights when New York changes its clocks, in several offsets or none."""
        minutes = self.rng.integers(0, 3 * 365 * 24 * 60, rows).tolist()
        near = self.rng.integers(-180, 180, rows).tolist()
        first = datetime.fromisoformat("2012-01-01T00:00")
        changes = [
            datetime.fromisoformat(day)
            for day in ("2013-03-10T02:00", "2013-11-03T01:00", "2012-11-04T01:00")
        ]
        walls = [
            first + timedelta(minutes=minute) if which else changes[minute % 3] + timedelta(minutes=close)
            for minute, close, which in zip(
                minutes, near, self.rng.integers(0, 2, rows).tolist(), strict=True
            )
        ]
        offsets = self.of(["", "", "Z", "-05:00", "-04:00", "+05:45"], rows)
        return [wall.isoformat() + offset for wall, offset in zip(walls, offsets, strict=True)]


def objects(draw: Draw, rows: int, wild: float) -> list[dict[str, Any]]:
    """Rows as JSON brings them; of each column the share `wild` is anything at all."""
    words = ["UA", "Ω", "a\0b", "🛫", *(f"C{number}" for number in range(24))]
    zoned = [text + "Z" for text in ("2013-03-10T07:30:00", "2013-11-03T05:30:00", "2091-01-01T00:00:00")]
    clocks, texts, floats = draw.clocks(rows), draw.texts(rows), draw.floats(rows)
    small = list(range(-5, 200))
    pools: dict[str, list[tuple[float, list[Any]]]] = {
        "id": [(8, [f"i{number}" for number in range(60)]), (1, texts)],
        "at": [(1, zoned), (8, [text + "Z" if len(text) == 19 else text for text in clocks]), (0.05, CLOCKS)],
        "distance": [
            (9, [float(value) for value in range(0, 6001, 7)]),
            (1, [6000.000000000001, -5e-324, 3, 6001]),
        ],
        "planned": [(7, [0.1 * value for value in range(20000)]), (1, [None]), (1, floats)],
        "free": [
            (5, [0.1 * value for value in range(99)]),
            (1, [None]),
            (2, floats),
            (1, [2**53, 2**54, 3**40]),
        ],
        "minutes": [(8, small), (1, [None, 0, 0]), (1, [2**53, 2**53 + 1])],
        "count": [(6, small), (1, [None]), (1, [2**53, -(2**53), 2**53 + 1, 2**62])],
        "carrier": [(9, words[:4]), (2, ["ua", "UAL\0", "plane"]), (1, words)],
        "city": [(9, words), (1, ["c\0"]), (1, texts)],
        "tail": [(3, [None, ""]), (5, [f"{a}{b}" for a in "ABX🛫" for b in range(99)]), (1, texts)],
        "code": [(9, ["A1", "B2", None]), (1, ["a1", "A1\n", "A٣"])],
        "night": [(1, [True, False, None])],
        "holiday": [(9, [False]), (1, [True])],
        "wall": [(2, [None]), (5, clocks), (1, CLOCKS)],
        "late": [(3, [True, False]), (1, [None])],
    }
    columns = {
        name: draw.mixed(
            rows, *((weight * (1 - wild), pool) for weight, pool in several), (wild * 9, HOSTILE)
        )
        for name, several in pools.items()
    }
    made = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row in draw.rng.integers(0, rows, rows // 50).tolist():  # an absent name is a missing value
        made[row].pop(list(pools)[row % len(pools)], None)
    return made


def typed(draw: Draw, rows: int) -> pl.DataFrame:
    """Rows as a Parquet file brings them: what can be of the right type is, and nothing else of it holds."""
    given = objects(draw, rows, 0.01)
    longs = [-5, 5, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]

    def timestamps(name: str, zone: str) -> pl.Series:
        found = [read_timestamp(row.get(name), ZoneInfo(NEW_YORK), local=True) for row in given]
        plain = [
            timestamp.astimezone(UTC) if isinstance(timestamp, datetime) else None for timestamp in found
        ]
        return pl.Series(plain, dtype=pl.Datetime("us", "UTC")).dt.convert_time_zone(zone)

    def plain(name: str, kind: type) -> list[Any]:
        return [value if type(value := row.get(name)) is kind else None for row in given]

    data = {name: pl.Series(plain(name, float), dtype=pl.Float64) for name in ("distance", "planned", "free")}
    data |= {
        name: pl.Series([value if value is None or abs(value) < 2**63 else longs[place % 7]
                         for place, value in enumerate(plain(name, int))], dtype=pl.Int64)
        for name in ("minutes", "count")
    }  # fmt: skip
    for name in ("id", "carrier", "city", "tail", "code"):
        texts = [
            value.encode("utf-8", "replace").decode() if value is not None else None
            for value in plain(name, str)
        ]
        data[name] = pl.Series(texts, dtype=pl.String)
    data |= {name: pl.Series(plain(name, bool), dtype=pl.Boolean) for name in ("night", "holiday", "late")}
    data |= {"at": timestamps("at", NEW_YORK), "wall": timestamps("wall", NEW_YORK)}
    return pl.DataFrame({name: data[name] for name in CONTRACT.names}, schema=dtypes(CONTRACT))


def expected(rows: list[dict[str, Any]], by_row: list[tuple[str, ...]]) -> list[list[str]]:
    """The row reasons, and what the batch adds: the key, then each of what is unique, among the rows kept until then."""
    wanted = [list(reasons) for reasons in by_row]
    reports = [
        ("id+city|duplicate", ("id", "city")),
        ("tail+count|unique", ("tail", "count")),
        ("wall|unique", ("wall",)),
    ]
    for word, names in reports:
        seen: set[tuple[object, ...]] = set()
        for row, reasons in zip(rows, wanted, strict=True):
            if reasons:
                continue
            parts = tuple(_same(name, row.get(name)) for name in names)
            if None in parts:
                continue
            if parts in seen:
                reasons.append(word)
            seen.add(parts)
    return wanted


def _same(name: str, value: object) -> object:
    value = CONTRACT.word(name, value)
    if name != "wall" or value is None:
        return value or None if isinstance(value, str) else value
    timestamp = read_timestamp(value, ZoneInfo(NEW_YORK), local=True)
    assert isinstance(timestamp, datetime)
    return microseconds(timestamp)


def compare(outcome: Outcome, where: str, rows: list[dict[str, Any]], delivered: Any) -> None:
    """Hold the batch check of `delivered` against the row check of the same `rows`."""
    by_row = [check_row(row) for row in rows]
    wanted = expected(rows, by_row)
    verdict = check_batch(delivered)
    quarantined = iter(verdict.quarantined[REASONS].to_list())
    height = verdict.valid.height + verdict.quarantined.height
    outcome.rows += len(rows)
    outcome.valid += verdict.valid.height
    for row, reasons in zip(rows, wanted, strict=True):
        reported = next(quarantined, []) if reasons else []
        outcome.reasons.update(reasons)
        if reported != reasons:
            outcome.differences.append((where, row, reported, reasons))
            return  # what follows is out of step
    counted = Counter(reason for reasons in wanted for reason in reasons)
    if height != len(rows) or verdict.valid.height != wanted.count([]) or verdict.counts != dict(counted):
        outcome.differences.append((where, {}, [str(verdict.counts)], [str(dict(counted))]))
    counts, words = aliases_of(rows, wanted)
    if verdict.aliases != counts or verdict.valid.select(list(CONTRACT.aliases)).rows() != words:
        outcome.differences.append((where, {}, [str(verdict.aliases)], [str(counts)]))
    kept = (row for row, reasons in zip(rows, wanted, strict=True) if not reasons)
    again = [check_row(row) for row in verdict.valid.iter_rows(named=True)]
    if any(again):
        outcome.differences.append((where, next(kept), [str(reasons) for reasons in again if reasons], []))


def aliases_of(
    rows: list[dict[str, Any]], wanted: list[list[str]]
) -> tuple[dict[str, dict[str, int]], list[tuple[object, ...]]]:
    """How often each alias was delivered, and the words of the valid rows in the columns that have aliases."""
    counts: dict[str, Counter[str]] = {}
    for name in CONTRACT.aliases:
        aliases = CONTRACT.aliases[name]
        found = Counter(value for row in rows if isinstance(value := row.get(name), str) and value in aliases)
        if found:
            counts[name] = found
    mapped = (map_row(CONTRACT, row) for row, reasons in zip(rows, wanted, strict=True) if not reasons)
    words = [tuple(row.get(name) for name in CONTRACT.aliases) for row in mapped]
    return {name: dict(found) for name, found in counts.items()}, words


def too_many(outcome: Outcome, draw: Draw, rows: list[dict[str, Any]]) -> None:
    """A name too many is one more reason of a row, whatever else is wrong; a batch with one is refused whole."""
    for row in draw.of(rows, 20):
        outcome.extra += 1
        if check_row({**row, "speed": 1}) != (*check_row(row), EXTRA):
            outcome.differences.append(("extra", row, [], [EXTRA]))


check_batch, check_row = compile_batch(CONTRACT), compile_row(CONTRACT, request=False)


def soak(rows: int, seed: int) -> Outcome:
    """Compare `rows` rows, drawn by `seed`."""
    outcome, draw = Outcome(), Draw(seed)
    for size, number in _sizes(rows):
        if number % 2:
            frame = typed(draw, size)
            compare(outcome, f"typed {number}", frame.to_dicts(), from_frame(CONTRACT, frame))
        else:
            given = objects(draw, size, (0.002, 0.02)[number // 2 % 2])
            compare(outcome, f"objects {number}", given, from_objects(CONTRACT, given))
            too_many(outcome, draw, given)
    return outcome


def _sizes(rows: int) -> Iterator[tuple[int, int]]:
    size = min(BATCH, -(-rows // 4))
    for number, start in enumerate(range(0, rows, size)):
        yield min(size, rows - start), number


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.soak.contract_parity", __doc__)
    command.size("--rows", 100_000, 4_000, help="rows to compare")
    command.size("--seed", 1, 2013, help="of the generator")
    options = command.parse(arguments)
    outcome = soak(options.rows, options.seed)
    for reason, count in sorted(outcome.reasons.items()):
        print(f"{count:>8,}  {reason}")
    for where, row, reported, wanted in outcome.differences[:5]:
        print(f"DIFFERENT in {where}: the batch reports {reported}, not {wanted}, of {row!a}")
    figures = {
        "rows": outcome.rows, "seed": options.seed, "valid": outcome.valid, "reasons": len(outcome.reasons),
        "with_a_name_too_many": outcome.extra, "differences": len(outcome.differences),
        "rows_with_reason": dict(Counter(outcome.reasons).most_common()),
    }  # fmt: skip
    return command.finish(figures, passed=not outcome.differences)


if __name__ == "__main__":
    sys.exit(main())
