"""Simulates the run lengths of control charts next to what they compute.

    python -m tests.soak.control_charts --count 20000 --seed 1

prints design, shift, computed and simulated run length; and for proportions of batches that resemble each other and vary
more than their rows explain, how long the chart of `monitor.representation` runs until a false alarm.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import Command
from holdfast.stats.chart_baseline import ProportionBaseline, proportion_baseline
from holdfast.stats.control_charts import Chart, Cusum, Ewma, Shewhart

CHUNK = 4_000


def first_alarm(design: Chart, values: NDArray[np.float64]) -> NDArray[np.int64]:
    """At which value (from 1 on) each row of `values` alarms first; one more than there are when none does."""
    match design:
        case Shewhart(limit=limit):
            beyond = np.abs(values) > limit
        case Ewma(weight=weight):
            state = np.zeros(len(values))
            beyond = np.zeros(values.shape, bool)
            for place in range(values.shape[1]):
                state = weight * values[:, place] + (1 - weight) * state
                beyond[:, place] = np.abs(state) > design.bound
        case Cusum(slack=slack, limit=limit):
            above = below = np.zeros(len(values))
            beyond = np.zeros(values.shape, bool)
            for place in range(values.shape[1]):
                above = np.maximum(0.0, above + values[:, place] - slack)
                below = np.maximum(0.0, below - values[:, place] - slack)
                beyond[:, place] = np.maximum(above, below) > limit
    return np.where(beyond.any(axis=1), beyond.argmax(axis=1) + 1, values.shape[1] + 1)


def run_length(design: Chart, *, runs: int, seed: int, shift: float = 0.0) -> float:
    """The mean number of independent normal values until an alarm."""
    draw = np.random.default_rng(seed)
    length = 8 * int(design.run_length(shift)) + 20
    found = [
        first_alarm(design, draw.standard_normal((min(CHUNK // 4, runs - done), length)) + shift)
        for done in range(0, runs, CHUNK // 4)
    ]
    return float(np.concatenate(found).mean())


def proportion_run_length(
    *, carry: float, over: float, runs: int, seed: int, baseline: int | None, length: int = 4_000
) -> dict[str, float]:
    """Run lengths of the default EWMA chart on standardised shares of batches of 2,000 rows.

    The true deviations follow an autoregression with `carry` and are `over` times those of independent rows; the level
    and the spread are estimated from `baseline` batches before, or known.
    """
    draw = np.random.default_rng(seed)
    before = baseline or 0
    noise = draw.standard_normal((runs, before + length)) * np.sqrt(1 - carry**2)
    noise[:, 0] /= np.sqrt(1 - carry**2)
    for place in range(1, noise.shape[1]):
        noise[:, place] += carry * noise[:, place - 1]
    deviation = over * np.sqrt(0.2 * 0.8 / 2_000)
    counts = np.rint((0.2 + deviation * noise).clip(0, 1) * 2_000).astype(int)
    chart = Ewma()
    residuals = []
    for row in counts:
        known = (
            ProportionBaseline(0.2, over, carry, 10_000)
            if baseline is None
            else proportion_baseline(row[:before].tolist(), [2_000] * before)
        )
        plain = (row[before:] / 2_000 - known.share) / known.deviation(2_000)
        residual = plain.copy()
        if known.carry:
            residual[1:] = (plain[1:] - known.carry * plain[:-1]) / np.sqrt(1 - known.carry**2)
        residuals.append(residual)
    found = first_alarm(chart, np.array(residuals))
    return {"mean": float(np.mean(found)), "median": float(np.median(found))}


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.soak.control_charts", __doc__)
    command.size("--count", 20_000, 40, help="runs of each chart")
    command.option("--seed", type=int, default=1)
    options = command.parse(arguments)
    print(f"{options.count} runs, seed {options.seed}")
    charts: dict[str, dict[str, str]] = {}
    proportions: dict[str, dict[str, str]] = {}
    for design in (
        Shewhart(3.0),
        Ewma(0.1, 2.814),
        Ewma(0.1, 2.7),
        Ewma(0.2, 2.86),
        Cusum(0.5, 5.0),
        Cusum(0.5, 4.0),
    ):
        for shift in (0.0, 0.5, 1.0, 2.0):
            reported = design.run_length(shift)
            seen = run_length(design, runs=options.count, seed=options.seed, shift=shift)
            found = f"computed {reported:.1f}, simulated {seen:.1f} ({seen / reported - 1:+.1%})"
            print(f"{design} shift {shift}: {found}")
            charts.setdefault(str(design), {})[f"shift {shift}"] = found
    for carry in (0.0, 0.5):
        for over in (1.0, 2.0, 3.0):
            for baseline in (None, 30, 100, 400):
                seen = proportion_run_length(
                    carry=carry, over=over, runs=options.count // 20, seed=options.seed, baseline=baseline
                )
                found = f"mean {seen['mean']:.0f}, median {seen['median']:.0f}"
                print(f"carry {carry}, over {over}, baseline {baseline}: {found}")
                of = proportions.setdefault(f"carry {carry}, over {over}", {})
                of["known baseline" if baseline is None else f"baseline {baseline}"] = found
    return command.finish(
        {"count": options.count, "seed": options.seed, "charts": charts, "proportions": proportions}
    )


if __name__ == "__main__":
    sys.exit(main())
