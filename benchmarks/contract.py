"""How fast a whole delivery is checked, with every reason kept, beside what others use for it.

    python -m benchmarks.contract [--rows 3367760] [--rounds 5]

A year of flights ten times over: 12 rules, one of them across two columns, presence, and the uniqueness of the key; one row in
a thousand has a planted fault, and every validator must find the same ones. Each run is a process of its own, in turns,
with the frame in memory and the library warm (a thousand rows were checked before). The figures are medians.

What each hands back differs, and so does its work:

    holdfast      the valid frame, the bad rows with the list of their reasons, counts; it also checks NUL, NaN, 2**53
    dataframely   `filter`: the valid frame, the bad rows with a mask for each rule, counts
    pandera       `validate(lazy=True)`: a frame of failure cases; no valid frame
    gx            Great Expectations on pandas, result format SUMMARY: counts and twenty examples; no frame at all

More than half of Holdfast's processor time is the kernel's: it makes the pages of the valid frame, 430 MB, which a fresh
process has not had before. Its own work is a pass over the columns. Fifteen times the speed of gx was the goal; gx makes no
frame, and only without ours would it be reached (larger pages take the kernel longer, and slices between the bad rows, which
need no copy, would be one chunk for each bad row, which every later step pays for).

Of two rows with one key dataframely, pandera and gx count both, Holdfast the later one, because the first is kept. The
peers are in the dependency group `bench`; one that is not installed is named, and its figure is null. The last line is
one JSON object.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.command import ROOT, Command
from holdfast.contract import Category, Contract, Integer, Number, Rule, Text, Timestamp, col
from holdfast.contract.batch.compiler import compile_batch
from holdfast.contract.row.compiler import compile_row

ROWS = 3_367_760
CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")
ORIGINS = ("EWR", "JFK", "LGA")
SEED = 2013
CONTRACT = Contract(
    Integer("id", low=0),
    Timestamp("scheduled", tz="UTC"),
    Integer("year", low=2013, high=2013),
    Integer("month", low=1, high=12),
    Integer("day", low=1, high=31),
    Integer("hour", low=0, high=23),
    Integer("minute", low=0, high=59),
    Category("carrier", values=CARRIERS, unseen="reject"),
    Category("origin", values=ORIGINS, unseen="reject"),
    Text("dest", max_length=3),
    Number("distance", unit="mi", low=1, high=6000),
    Number("departure_delay", unit="min", low=-60, high=1500, missing="keep"),
    Number("air_time", unit="min", missing="keep"),
    Number("elapsed", unit="min", missing="keep"),
    key="id",
    event_time="scheduled",
    rules=[Rule("flown_within_elapsed", col("air_time") <= col("elapsed"))],
)
FAULTS: dict[str, tuple[str, object]] = {
    "month": ("month", 13),
    "carrier": ("carrier", "ZZ"),
    "dest": ("dest", "NOWHERE"),
    "distance": ("distance", 9000.0),
    "elapsed": ("elapsed", 1.0),
}
"""By the name of the fault, the column that it is planted in and the value; a repeated key comes besides."""
PEERS = {"dataframely": "dataframely", "pandera": "pandera", "gx": "great_expectations"}


def flights(rows: int) -> pl.DataFrame:
    """Rows in event order, with the columns and cardinalities of a year of flights, none of them at fault."""
    draw = np.random.default_rng(SEED)
    minutes = np.sort(draw.integers(0, 365 * 24 * 60, rows))
    air_time = np.round(draw.normal(150, 60, rows)).clip(20, 700)
    cancelled = draw.random(rows) < 0.025
    frame = pl.DataFrame(
        {
            "id": np.arange(rows, dtype=np.int64),
            "at": minutes,
            "carrier": draw.choice(CARRIERS, rows),
            "origin": draw.choice(ORIGINS, rows),
            "dest": draw.choice([f"D{number:02d}" for number in range(100)], rows),
            "distance": draw.integers(80, 4983, rows).astype(float),
            "departure_delay": np.round(draw.exponential(25.0, rows) - 12).clip(-60, 1500),
            "air_time": air_time,
            "elapsed": air_time + np.round(draw.exponential(25.0, rows)),
        }
    )
    scheduled = pl.lit(datetime(2013, 1, 1, tzinfo=UTC)) + pl.duration(minutes="at")
    measured = ("departure_delay", "air_time", "elapsed")
    parts = ("year", "month", "day", "hour", "minute")
    flown = pl.lit(pl.Series(~cancelled))
    return (
        frame.with_columns(scheduled=scheduled.cast(pl.Datetime("us", "UTC")))
        .with_columns(
            *(getattr(pl.col("scheduled").dt, part)().cast(pl.Int64).alias(part) for part in parts),
            *(pl.when(flown).then(pl.col(name)).alias(name) for name in measured),
        )
        .select(CONTRACT.names)
    )  # fmt: skip


def plant(frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """`frame` with a fault in one row of a thousand, each in a row of its own, and how many of each."""
    draw = np.random.default_rng(SEED + 1)
    flown = np.flatnonzero(frame["air_time"].is_not_null().to_numpy())
    each = max(frame.height // 1000 // (len(FAULTS) + 1), 1)
    chosen = draw.choice(flown, each * (len(FAULTS) + 2), replace=False).reshape(len(FAULTS) + 2, each)
    columns = {}
    for (column, value), rows in zip(FAULTS.values(), chosen, strict=False):
        columns[column] = frame[column].clone().scatter(rows, value)
    columns["id"] = frame["id"].clone().scatter(chosen[-1], frame["id"].gather(chosen[-2]))
    planted = {**dict.fromkeys(FAULTS, each), "key": each}
    return frame.with_columns(**columns).rechunk(), planted


# --- the validators: each makes a function from a frame to the number of rows that each fault was found in ----------------


def holdfast() -> Callable[[pl.DataFrame], dict[str, int]]:
    check = compile_batch(CONTRACT)
    names = {
        "month": "month|range", "carrier": "carrier|unseen", "dest": "dest|too_long", "distance": "distance|range",
        "elapsed": "flown_within_elapsed|rule", "key": "id|duplicate",
    }  # fmt: skip

    def run(frame: pl.DataFrame) -> dict[str, int]:
        verdict = check(frame)
        assert verdict.valid.height + verdict.quarantined.height == frame.height
        assert verdict.quarantined["_reasons"].list.len().min() != 0
        return {fault: verdict.counts.get(reason, 0) for fault, reason in names.items()}

    return run


def dataframely() -> Callable[[pl.DataFrame], dict[str, int]]:
    import dataframely as dy

    class Flights(dy.Schema):
        id = dy.Int64(primary_key=True, min=0)
        scheduled = dy.Datetime(time_zone="UTC", time_unit="us")
        year = dy.Int64(min=2013, max=2013)
        month = dy.Int64(min=1, max=12)
        day = dy.Int64(min=1, max=31)
        hour = dy.Int64(min=0, max=23)
        minute = dy.Int64(min=0, max=59)
        carrier = dy.String(check=lambda column: column.is_in(CARRIERS))
        origin = dy.String(check=lambda column: column.is_in(ORIGINS))
        dest = dy.String(max_length=3)
        distance = dy.Float64(min=1, max=6000)
        departure_delay = dy.Float64(min=-60, max=1500, nullable=True)
        air_time = dy.Float64(nullable=True)
        elapsed = dy.Float64(nullable=True)

        @dy.rule()
        def flown_within_elapsed(cls) -> pl.Expr:  # noqa: N805 - a rule is a class method by its decorator
            return pl.col("air_time") <= pl.col("elapsed")

    names = {
        "month": "month|max", "carrier": "carrier|check", "dest": "dest|max_length", "distance": "distance|max",
        "elapsed": "flown_within_elapsed", "key": "primary_key",
    }  # fmt: skip

    def run(frame: pl.DataFrame) -> dict[str, int]:
        good, failures = Flights.filter(frame)
        assert good.height + failures.invalid().height == frame.height
        counts = failures.counts()
        return {fault: counts.get(rule, 0) for fault, rule in names.items()}

    return run


def pandera() -> Callable[[pl.DataFrame], dict[str, int]]:
    import pandera.errors
    import pandera.polars as pa

    def whole(low: int, high: int) -> pa.Column:
        return pa.Column(pl.Int64, pa.Check.in_range(low, high))

    schema = pa.DataFrameSchema(
        {
            "id": pa.Column(pl.Int64, pa.Check.ge(0), unique=True),
            "scheduled": pa.Column(pl.Datetime("us", "UTC")),
            "year": pa.Column(pl.Int64, pa.Check.eq(2013)),
            "month": whole(1, 12), "day": whole(1, 31), "hour": whole(0, 23), "minute": whole(0, 59),
            "carrier": pa.Column(pl.String, pa.Check.isin(CARRIERS)),
            "origin": pa.Column(pl.String, pa.Check.isin(ORIGINS)),
            "dest": pa.Column(pl.String, pa.Check.str_length(max_value=3)),
            "distance": pa.Column(pl.Float64, pa.Check.in_range(1, 6000)),
            "departure_delay": pa.Column(pl.Float64, pa.Check.in_range(-60, 1500), nullable=True),
            "air_time": pa.Column(pl.Float64, nullable=True),
            "elapsed": pa.Column(pl.Float64, nullable=True),
        },
        checks=pa.Check(
            lambda data: data.lazyframe.select(pl.col("air_time") <= pl.col("elapsed")), name="flown_within_elapsed"
        ),
    )  # fmt: skip

    def run(frame: pl.DataFrame) -> dict[str, int]:
        try:
            schema.validate(frame, lazy=True)
        except pandera.errors.SchemaErrors as errors:
            found = errors.failure_cases.group_by("column", "check").len().rows()
        else:
            found = []
        by = {"unique" if "unique" in check else column: count for column, check, count in found if count}
        whole_frame = sum(count for column, check, count in found if "flown_within" in check)
        return {
            "month": by.get("month", 0), "carrier": by.get("carrier", 0), "dest": by.get("dest", 0),
            "distance": by.get("distance", 0), "elapsed": whole_frame, "key": by.get("unique", 0),
        }  # fmt: skip

    return run


def gx() -> Callable[[pl.DataFrame], dict[str, int]]:
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    import great_expectations
    import great_expectations.expectations as expect

    context = great_expectations.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("flights").add_dataframe_asset("flights")
    whole = asset.add_batch_definition_whole_dataframe("whole")
    suite = great_expectations.ExpectationSuite(name="flights")
    present = [column.name for column in CONTRACT.columns if column.missing == CONTRACT.column("id").missing]
    bounds = {
        "id": (0, None), "year": (2013, 2013), "month": (1, 12), "day": (1, 31), "hour": (0, 23), "minute": (0, 59),
        "distance": (1, 6000), "departure_delay": (-60, 1500),
    }  # fmt: skip
    wanted = [
        *(expect.ExpectColumnValuesToNotBeNull(column=name) for name in present),
        *(
            expect.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high)
            for name, (low, high) in bounds.items()
        ),
        expect.ExpectColumnValuesToBeUnique(column="id"),
        expect.ExpectColumnValuesToBeInSet(column="carrier", value_set=list(CARRIERS)),
        expect.ExpectColumnValuesToBeInSet(column="origin", value_set=list(ORIGINS)),
        expect.ExpectColumnValueLengthsToBeBetween(column="dest", max_value=3),
        expect.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="elapsed", column_B="air_time", or_equal=True, ignore_row_if="either_value_is_missing"
        ),
    ]
    for expectation in wanted:
        suite.add_expectation(expectation)

    def run(frame: Any) -> dict[str, int]:
        found = dict.fromkeys((*FAULTS, "key"), 0)
        batch = whole.get_batch({"dataframe": frame})
        for result in batch.validate(suite, result_format="SUMMARY").results:
            count = result.result.get("unexpected_count", 0)
            facts = result.expectation_config.kwargs
            column = facts.get("column", facts.get("column_A"))
            name = "key" if column == "id" else column
            if name in found:
                found[name] += count
        return found

    return run


VALIDATORS = {"holdfast": holdfast, "dataframely": dataframely, "pandera": pandera, "gx": gx}


# --- timing -----------------------------------------------------------------------------------------------------------


def one(name: str, path: Path) -> dict[str, Any]:
    """Seconds of one check in this process, and what it found."""
    frame: Any = pl.read_parquet(path).rechunk()
    few = frame.head(1000)
    if name == "gx":
        frame, few = frame.to_pandas(), few.to_pandas()
    run = VALIDATORS[name]()
    run(few)
    begun, cpu, kernel = time.perf_counter(), time.process_time(), os.times().system
    found = run(frame)
    return {
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - cpu,
        "kernel": os.times().system - kernel,
        "found": found,
    }


def one_row(path: Path) -> dict[str, Any]:
    """Median microseconds of `compile_row` for a valid row, over the same contract."""
    frame = pl.read_parquet(path, n_rows=3000)
    check = compile_row(CONTRACT, request=False)
    rows = [row for row in frame.to_dicts() if not check(row)][:1000]
    taken = []
    for _ in range(50):
        begun = time.perf_counter()
        for row in rows:
            check(row)
        taken.append((time.perf_counter() - begun) / len(rows) * 1e6)
    return {"us": statistics.median(taken)}


def alone(name: str, path: Path) -> dict[str, Any]:
    """`name` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.contract", "--one", name, "--frame", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("benchmarks.contract", __doc__)
    command.size("--rows", ROWS, 10_000, help="rows to check")
    command.size("--rounds", 5, 1, help="alternating rounds")
    command.option(
        "--one", help="check --frame by this validator, in this process, and print what came of it"
    )
    command.option("--frame", type=Path, help="the Parquet file for --one")
    options = command.parse(arguments)
    if options.one:
        answer = one_row(options.frame) if options.one == "one_row" else one(options.one, options.frame)
        print(json.dumps(answer))
        return 0
    missing = [name for name, module in PEERS.items() if importlib.util.find_spec(module) is None]
    for name in missing:
        print(
            f"{name} is not installed, so nothing is compared with it; it is in the dependency group 'bench'"
        )
    names = [name for name in VALIDATORS if name not in missing]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "flights.parquet"
        frame, planted = plant(flights(options.rows))
        frame.write_parquet(path)
        print(f"{frame.height:,} rows, {len(CONTRACT.columns)} columns, seed {SEED}; planted: {planted}")
        del frame
        seconds: dict[str, list[float]] = {name: [] for name in names}
        cpu: dict[str, list[float]] = {name: [] for name in names}
        kernel: dict[str, list[float]] = {name: [] for name in names}
        rows_us = []
        for turn in range(options.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                answer = alone(name, path)
                both = 1 if name == "holdfast" else 2
                wanted = {**planted, "key": planted["key"] * both}
                if answer["found"] != wanted:
                    sys.exit(f"{name} found {answer['found']}, and {wanted} were to be found")
                seconds[name].append(answer["seconds"])
                cpu[name].append(answer["cpu"])
                kernel[name].append(answer["kernel"])
            rows_us.append(alone("one_row", path)["us"])
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    for name, median in medians.items():
        spread = f"{min(seconds[name]):.3f} to {max(seconds[name]):.3f}"
        print(
            f"{name:<12} {median:8.3f} s  ({spread})  {options.rows / median:>12,.0f} rows/s"
            f"  cpu {statistics.median(cpu[name]):6.2f} s  {median / medians['holdfast']:6.2f} of holdfast's time"
        )
    print(f"every validator found the planted faults; one row: {statistics.median(rows_us):.2f} us")
    figures: dict[str, object] = {
        f"vs_{name}": round(medians[name] / medians["holdfast"], 3) if name in medians else None
        for name in PEERS
    }
    figures |= {
        "one_row_us": round(statistics.median(rows_us), 2),
        "rows": options.rows,
        "validators": {
            name: {
                "seconds": round(median, 3),
                "fastest": round(min(seconds[name]), 3),
                "slowest": round(max(seconds[name]), 3),
                "cpu seconds": round(statistics.median(cpu[name]), 3),
                "of them the kernel's": round(statistics.median(kernel[name]), 3),
                "rows a second": round(options.rows / median),
            }
            for name, median in medians.items()
        },
    }
    return command.finish(figures)


if __name__ == "__main__":
    sys.exit(main())
