"""How often the drift checks call an ordinary batch suspect, and which planted faults they find beside.

    python -m benchmarks.drift_rates [--seeds 200] [--batches 40] [--seed 11]

Feeds are simulated whose laws never change: columns that are mostly zero, rounded, constant, rare or heavy-tailed, in
batches of 20 to 2,000 rows. Each batch is profiled and compared with the batches before it by the functions that
`holdfast ingest` uses. So every finding of level error is a false suspect. Into the last batch of each feed one fault
of each sort is planted. The last line is one JSON object.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.command import Command
from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Timestamp
from holdfast.contract.batch.compiler import dtypes
from holdfast.contract.profile.profile import Profile, profile_batch
from holdfast.monitor.chance import FEWEST_BATCHES
from holdfast.monitor.drift import check_profile
from holdfast.records import Level

STATED: Final = 0.001
"""The stated rate of false suspects: per compared batch of one column."""

STATED_WARNINGS: Final = 0.01
"""The stated rate of shifts that are a warning without a cause: per compared batch of one numeric column."""

SIZES: Final = {"20 to 40": (20, 40), "39 to 168": (39, 168), "300 to 600": (300, 600), "2,000": (2000, 2000)}
"""Rows of a batch, drawn anew for each batch. Feed number n has the sizes of place n modulo 4."""

Draw = Callable[[np.random.Generator, int, float], NDArray[np.generic]]


def _sparse(share: float) -> Draw:
    return lambda draw, rows, _: np.where(
        draw.random(rows) < share, np.round(draw.lognormal(6, 1.5, rows), 2), 0
    )


KINDS: Final[dict[str, tuple[Column, Draw]]] = {
    "normal": (Number("normal", unit="kg"), lambda draw, rows, _: draw.normal(70, 12, rows)),
    "long_tail": (Number("long_tail", unit="USD"), lambda draw, rows, _: draw.lognormal(3, 1, rows)),
    "heavy_tail": (Number("heavy_tail", unit="USD"), lambda draw, rows, _: draw.pareto(1.2, rows)),
    "mostly_zero": (Number("mostly_zero", unit="USD"), _sparse(0.03)),
    "nearly_all_zero": (Number("nearly_all_zero", unit="USD"), _sparse(0.005)),
    "half_zero": (Number("half_zero", unit="USD"), _sparse(0.5)),
    "rounded": (
        Number("rounded", unit="ft"),
        lambda draw, rows, _: np.round(draw.gamma(1.2, 900, rows) / 100) * 100,
    ),
    "wide_bounds": (
        Number("wide_bounds", unit="kg", low=0, high=1e6),
        lambda draw, rows, _: np.round(draw.normal(40, 9, rows).clip(0), 1),
    ),
    "constant": (Number("constant", unit="1"), lambda draw, rows, _: np.full(rows, 1.5)),
    "nearly_constant": (
        Number("nearly_constant", unit="1"),
        lambda draw, rows, _: np.where(draw.random(rows) < 0.02, draw.integers(2, 9, rows), 1),
    ),
    "counts": (Integer("counts"), lambda draw, rows, _: draw.poisson(0.3, rows)),
    "stars": (
        Integer("stars", low=1, high=5),
        lambda draw, rows, _: draw.choice(5, rows, p=(0.04, 0.06, 0.1, 0.3, 0.5)) + 1,
    ),
    "rare_boolean": (Boolean("rare_boolean"), lambda draw, rows, _: draw.random(rows) < 0.01),
    "boolean": (Boolean("boolean"), lambda draw, rows, level: draw.random(rows) < 0.3 + 0.05 * level),
    "varying_level": (
        Number("varying_level", unit="degC"),
        lambda draw, rows, level: draw.normal(15 + 4 * level, 5, rows),
    ),
    "words": (
        Category("words"),
        lambda draw, rows, _: np.minimum(draw.zipf(1.6, rows), 225).astype(str).astype(object),
    ),
    "models": (
        Category("models"),
        lambda draw, rows, _: np.char.add("model ", draw.integers(1, 225, rows).astype(str)).astype(object),
    ),
    "names": (
        Category("names"),
        lambda draw, rows, _: np.char.add("name ", draw.integers(1, 10**6, rows).astype(str)).astype(object),
    ),
    "rain": (
        Number("rain", unit="in", low=0, high=10),
        lambda draw, rows, level: np.where(
            draw.random(rows) < max(0.0, 0.2 * level), np.round(draw.exponential(0.1, rows), 2), 0.0
        ),
    ),
    "mostly_missing": (
        Number("mostly_missing", unit="kt", missing="keep"),
        lambda draw, rows, _: np.where(draw.random(rows) < 0.28, np.nan, np.round(draw.gamma(6, 23, rows))),
    ),
    "label": (
        Label("label", delay="1d", missing="keep"),
        lambda draw, rows, level: draw.random(rows) < 0.25 + 0.04 * level,
    ),
}
"""Kinds of columns: the declaration, and how a batch is drawn, by generator, rows, and the level of the batch."""

NUMBERS: Final = 1 + sum(isinstance(column, (Number, Integer)) for column, _ in KINDS.values())
"""The numeric columns, with the number that correlates with the label."""

OTHERS: Final = 2
"""Two more columns: the event time, by a pattern of the day, and a number that correlates with the label."""

CONTRACT: Final = Contract(
    Integer("id"),
    Timestamp("at", tz="UTC"),
    *(column for column, _ in KINDS.values() if not isinstance(column, Label)),
    Number("risk", unit="1"),
    key="id",
    event_time="at",
    label=next(column for column, _ in KINDS.values() if isinstance(column, Label)),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: its name, the column, how it changes the column's values, and the check that should find it."""

    name: str
    column: str
    broken: pl.Expr
    check: str


def _fault(name: str, column: str, broken: pl.Expr, check: str) -> Fault:
    return Fault(f"{column} {name}", column, broken, check)


FAULTS: Final = (
    _fault("times 2.2", "normal", pl.col("normal") / 0.45359237, "shift"),
    _fault("negative", "normal", -pl.col("normal"), "shift"),
    _fault("all 70", "normal", pl.lit(70.0), "constant"),
    _fault("times 1,000", "long_tail", pl.col("long_tail") * 1000, "shift"),
    _fault("times 1,000", "half_zero", pl.col("half_zero") * 1000, "shift"),
    _fault("never zero", "mostly_zero", pl.col("mostly_zero") + 500.0, "shift"),
    _fault("all 0", "half_zero", pl.lit(0.0), "zeros"),
    _fault("in metres", "rounded", pl.col("rounded") * 0.3048, "shift"),
    _fault("times 2.2", "wide_bounds", pl.col("wide_bounds") / 0.45359237, "shift"),
    _fault("another value", "constant", pl.lit(15.0), "constant"),
    _fault("times 10", "nearly_constant", pl.col("nearly_constant") * 10, "shift"),
    _fault("all 5", "stars", pl.lit(5, pl.Int64), "constant"),
    _fault("all true", "rare_boolean", pl.lit(value=True), "constant"),
    _fault("all true", "boolean", pl.lit(value=True), "constant"),
    _fault("all false", "boolean", pl.lit(value=False), "constant"),
    _fault("inverted", "rare_boolean", ~pl.col("rare_boolean"), "mix"),
    _fault("all false", "label", pl.lit(value=False), "constant"),
    _fault("all true", "label", pl.lit(value=True), "constant"),
    _fault("inverted", "label", ~pl.col("label"), "label"),
    _fault("upper case", "models", pl.col("models").str.to_uppercase(), "new_slice"),
    _fault("six hours later", "at", pl.col("at") + pl.duration(hours=6), "zone"),
    _fault("gone", "mostly_missing", pl.lit(None, pl.Float64), "missing"),
    _fault("0 for missing", "mostly_missing", pl.col("mostly_missing").fill_null(0.0), "zeros"),
)


def batch(draw: np.random.Generator, rows: int, number: int) -> pl.DataFrame:
    """One batch of all kinds: the same laws in each; the level differs from batch to batch."""
    level = float(draw.normal())
    hours = np.sort(draw.normal(14, 3.5, rows).clip(0, 23.9))
    at = datetime(2026, 1, 1, tzinfo=UTC).timestamp() + number * 86_400 + np.round(hours * 60) * 60
    columns: dict[str, object] = {
        "id": np.arange(rows) + number * 10_000,
        "at": (at * 1e6).astype(np.int64),
    }
    for name, (_, values) in KINDS.items():
        columns[name] = values(draw, rows, level)
    columns["risk"] = draw.normal(1.5 * np.asarray(columns["label"]), 1.0)
    frame = pl.DataFrame(columns, strict=False, nan_to_null=True).with_columns(
        pl.col("at").cast(pl.Datetime("us", "UTC"))
    )
    return frame.select(pl.col(name).cast(kind) for name, kind in dtypes(CONTRACT).items())


SHIFTS: Final = (
    _fault("times 0.9", "wide_bounds", pl.col("wide_bounds") * 0.9, "shift"),
    _fault("times 0.75", "wide_bounds", pl.col("wide_bounds") * 0.75, "shift"),
    _fault("times 0.3", "wide_bounds", pl.col("wide_bounds") * 0.3, "shift"),
    _fault("times 0.75", "long_tail", pl.col("long_tail") * 0.75, "shift"),
    _fault("times 0.5", "long_tail", pl.col("long_tail") * 0.5, "shift"),
    _fault("times 0.6", "normal", pl.col("normal") * 0.6, "shift"),
)
"""Shifts without a unit that explains them: most are a warning, because they can be real."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation: its level, column, check and words."""

    level: Level
    subject: str
    check: str
    words: str


def findings(profile: Profile, past: list[Profile]) -> tuple[list[Finding], list[Finding]]:
    """What would make the feed suspect, and what would be a warning about other columns."""
    found = [
        Finding(each.level, each.subject.split("=")[0], each.check, each.explanation)
        for each in check_profile(CONTRACT, profile, past)
    ]
    suspect = [each for each in found if each.level is not Level.WARNING]
    subjects = {each.subject for each in suspect}
    return suspect, [each for each in found if each.subject not in subjects]


@dataclass(frozen=True, slots=True)
class Counts:
    """What all feeds together gave."""

    compared: Counter[str]
    false: Counter[tuple[str, str]]
    warned: Counter[tuple[str, str, str]]
    """By rows of a batch, column and check."""
    found: Counter[tuple[str, str]]
    planted: Counter[tuple[str, str]]


def simulate(seeds: int, batches: int, seed: int, *, verbose: bool) -> Counts:
    """Judge `batches` batches of each of `seeds` feeds, and each fault in the last one."""
    counts = Counts(Counter(), Counter(), Counter(), Counter(), Counter())
    for number in range(seeds):
        size = list(SIZES)[number % len(SIZES)]
        draw = np.random.default_rng([seed, number])
        past: list[Profile] = []
        for place in range(batches):
            rows = batch(draw, int(draw.integers(*SIZES[size], endpoint=True)), place)
            profile = profile_batch(CONTRACT, rows)
            if place >= FEWEST_BATCHES:
                counts.compared[size] += 1
                suspect, warnings = findings(profile, past)
                for subject in {each.subject for each in suspect}:
                    counts.false[size, subject] += 1
                for subject, check in {(each.subject, each.check) for each in warnings}:
                    counts.warned[size, subject, check] += 1
                if verbose:
                    for each in (*suspect, *warnings):
                        print(
                            f"{size} rows, feed {number}, batch {place}: {each.level} {each.check} {each.subject}: {each.words}"
                        )
            if place == batches - 1:
                for fault in (*FAULTS, *SHIFTS):
                    broken = profile_batch(CONTRACT, rows.with_columns(**{fault.column: fault.broken}))
                    counts.planted[size, fault.name] += 1
                    suspect, warnings = findings(broken, past)
                    counted = suspect if fault in FAULTS else [*suspect, *warnings]
                    counts.found[size, fault.name] += any(each.subject == fault.column for each in counted)
            past.append(profile)
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, and the figures as JSON; 1 if the stated rate is exceeded."""
    command = Command("benchmarks.drift_rates", __doc__)
    command.size("--seeds", 200, 4, help="feeds")
    command.size("--batches", 40, 10, help="batches of a feed")
    command.option("--seed", type=int, default=11)
    command.option("--verbose", action="store_true", help="print each false suspect")
    asked = command.parse(arguments)
    seeds, batches = asked.seeds, asked.batches
    began = time.perf_counter()
    counts = simulate(seeds, batches, asked.seed, verbose=asked.verbose)
    kinds = len(KINDS) + OTHERS
    columns = {size: compared * kinds for size, compared in counts.compared.items()}
    false = {
        size: sum(count for (of, _), count in counts.false.items() if of == size) for size in counts.compared
    }
    print(f"{seeds} feeds of {batches} batches and {kinds} kinds of columns, seed {asked.seed}\n")
    print("| rows of a batch | compared | false suspects | per column and batch | mean run of a column |")
    print("| --- | --- | --- | --- | --- |")
    for size, compared in columns.items():
        run = f"{compared / false[size]:,.0f}" if false[size] else f"over {compared:,}"
        print(f"| {size} | {compared:,} | {false[size]} | {false[size] / compared:.2%} | {run} batches |")
    worst = Counter[str]()
    for (_, subject), count in counts.false.items():
        worst[subject] += count
    print(f"\nby column: {dict(worst.most_common())}\n")
    numbers = {size: compared * NUMBERS for size, compared in counts.compared.items()}
    warned = {
        size: sum(count for (of, _, check), count in counts.warned.items() if (of, check) == (size, "shift"))
        for size in counts.compared
    }
    warned_of = Counter[str]()
    for (_, subject, check), count in counts.warned.items():
        warned_of[f"{check} {subject}"] += count
    listed = ", ".join(f"{size} rows {warned[size] / compared:.2%}" for size, compared in numbers.items())
    print(f"false warnings of a shift per numeric column and batch: {listed}")
    print(f"all warnings: {dict(warned_of.most_common())}\n")
    print("| planted fault | " + " | ".join(counts.compared) + " |")
    print("| --- |" + " --- |" * len(counts.compared))
    for fault in (*FAULTS, *SHIFTS):
        shares = [counts.found[size, fault.name] / counts.planted[size, fault.name] for size in columns]
        print(f"| {fault.name} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    rate = sum(false.values()) / sum(columns.values())
    found = statistics.mean(
        counts.found[size, fault.name] / counts.planted[size, fault.name]
        for size in columns
        for fault in FAULTS
    )
    warning_rate = sum(warned.values()) / sum(numbers.values())
    figures = {
        "seed": asked.seed,
        "compared": sum(columns.values()),
        "false_suspects": sum(false.values()),
        "rate": rate,
        "stated": STATED,
        "compared_numbers": sum(numbers.values()),
        "false_warnings": sum(warned.values()),
        "warning_rate": warning_rate,
        "warnings_stated": STATED_WARNINGS,
        "warned_by_column": dict(warned_of.most_common()),
        "found": round(found, 4),
        "seconds": round(time.perf_counter() - began, 1),
        "by_rows_of_a_batch": {
            size: {
                "compared": columns[size],
                "false suspects": false[size],
                "rate": false[size] / columns[size],
            }
            for size in columns
        },
        "false_by_column": dict(worst.most_common()),
        "share_of_planted_faults_found": {
            fault.name: {
                size: round(counts.found[size, fault.name] / counts.planted[size, fault.name], 3)
                for size in columns
            }
            for fault in (*FAULTS, *SHIFTS)
        },
    }
    return command.finish(figures, passed=rate <= STATED and warning_rate <= STATED_WARNINGS)


if __name__ == "__main__":
    sys.exit(main())
