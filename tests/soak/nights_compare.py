"""Hold what status, page and metrics show against a recomputation; every difference is a line of text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from math import isclose
from typing import Any

from tests.soak.nights_recompute import (
    Figures,
    Known,
    Response,
    by_period,
    by_version,
    current_labels,
    window,
)

SUMS = 1e-13
"""A sum of thousands of squares depends on its order in its last bits. Counts, AUC and coverage are compared exactly."""


@dataclass(frozen=True)
class Shown:
    """What Holdfast shows at one time: status as JSON, the page as HTML, and metrics as text."""

    status: Mapping[str, Any]
    page_status: Mapping[str, Any]
    page: str
    metrics: Mapping[str, str]
    """By where they are from: the page, or the control loop."""


def differences(
    shown: Shown, responses: Sequence[Response], lines: Iterable[Known], *, delay_us: int
) -> list[str]:
    """Return every figure of quality and coverage that differs from responses and label files."""
    now_us = int(shown.status["now_us"])
    labels = current_labels(lines, now_us)
    since_us = window(now_us, delay_us)
    wanted = by_version(responses, labels, since_us)
    found = list(_of_status("status", shown.status, wanted, since_us))
    found += _of_status("page /api/status", shown.page_status, wanted, since_us)
    for document, name in ((shown.status, "status"), (shown.page_status, "page /api/status")):
        found += _of_periods(name, document["quality"], responses, labels, since_us)
    found += _of_page(shown.page, shown.page_status, wanted)
    for place, text in shown.metrics.items():
        found += _of_metrics(f"metrics of {place}", text, shown.status, wanted)
    return found


def status_differences(
    status: Mapping[str, Any], responses: Sequence[Response], lines: Iterable[Known], *, delay_us: int
) -> list[str]:
    """Return what in `status` alone differs: most of all, labels that were not joined yet."""
    labels = current_labels(lines, int(status["now_us"]))
    since_us = window(int(status["now_us"]), delay_us)
    return list(_of_status("status", status, by_version(responses, labels, since_us), since_us))


def _unlike(name: str, found: object, wanted: object, *, tolerance: float = 0.0) -> Iterator[str]:
    """Yield a line unless both are the same, floats to `tolerance` of their size."""
    same = found == wanted
    if isinstance(found, float) and isinstance(wanted, float):
        same = isclose(found, wanted, rel_tol=tolerance)
    if not same:
        yield f"{name}: {found!r}, recomputed {wanted!r}"


def _none() -> Figures:
    return Figures(0, 0, 0, None, None)


def _of_status(
    name: str, document: Mapping[str, Any], wanted: Mapping[str, Figures], since_us: int
) -> Iterator[str]:
    rows = {row["version"]: row for row in document["versions"]}
    for version in wanted.keys() - rows.keys():
        yield f"{name}: {version} responded and is not shown"
    for version, row in rows.items():
        its, quality = wanted.get(version, _none()), row["quality"]
        at = f"{name}, {version}"
        yield from _unlike(f"{at}, predictions", row["predictions"], its.predictions)
        yield from _unlike(
            f"{at}, labelled", (row["labelled"], quality["rows"]), (its.labelled, its.labelled)
        )
        yield from _unlike(f"{at}, positives", quality["positives"], its.positives)
        yield from _unlike(f"{at}, auc", row["auc"], its.auc)
        yield from _unlike(f"{at}, auc of quality", _estimate(quality["auc"]), its.auc)
        yield from _unlike(f"{at}, brier", _estimate(quality["brier"]), its.brier, tolerance=SUMS)
        share = its.labelled / its.predictions if its.predictions else None
        yield from _unlike(f"{at}, coverage", row["coverage"], share)
    labelled, predictions = (
        sum(getattr(each, field) for each in wanted.values()) for field in ("labelled", "predictions")
    )
    coverage = document["coverage"]
    counts = (coverage["labelled"], coverage["predictions"], coverage["since_us"])
    yield from _unlike(f"{name}, coverage", counts, (labelled, predictions, since_us))
    yield from _unlike(
        f"{name}, coverage", coverage["share"], labelled / predictions if predictions else None
    )


def _estimate(interval: Mapping[str, float] | None) -> float | None:
    return None if interval is None else interval["estimate"]


def _of_periods(
    name: str,
    points: Sequence[Mapping[str, Any]],
    responses: Sequence[Response],
    labels: Mapping[str, bool],
    since_us: int,
) -> Iterator[str]:
    days = points[0]["days"] if points else 1
    wanted = by_period(responses, labels, since_us, days)
    shown = {(point["version"], point["day_us"]): point["quality"] for point in points}
    yield from _unlike(f"{name}, points of the chart", sorted(shown), sorted(wanted))
    for cell in wanted.keys() & shown.keys():
        quality, its = shown[cell], wanted[cell]
        found = (quality["rows"], quality["positives"])
        yield from _unlike(f"{name}, {cell} rows", found, (its.labelled, its.positives))
        yield from _unlike(f"{name}, {cell} auc", _estimate(quality["auc"]), its.auc)
        yield from _unlike(f"{name}, {cell} brier", _estimate(quality["brier"]), its.brier, tolerance=SUMS)


def _text(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def _cells(page: str) -> dict[str, dict[str, str]]:
    """Return the cells of the table of versions, by version and heading."""
    section = page.partition('id="versions"')[2].partition("</section>")[0]
    found = {}
    for row in section.split("<tr class=")[1:]:
        cells = re.findall(r'<td[^>]*data-label="([^"]+)">(.*?)</td>', row, re.DOTALL)
        its = {name: _text(content) for name, content in cells}
        found[its["Version"]] = its
    return found


def _of_page(page: str, document: Mapping[str, Any], wanted: Mapping[str, Figures]) -> Iterator[str]:
    cells = _cells(page)
    yield from _unlike(
        "page, versions", sorted(cells), sorted(row["version"] for row in document["versions"])
    )
    for version, its in cells.items():
        figures = wanted.get(version, _none())
        yield from _unlike(f"page, {version} AUC", its["AUC"].split(" ")[0], _three(figures.auc))
        yield from _unlike(f"page, {version} Brier", its["Brier"], _three(figures.brier))
        counted = f"{figures.labelled:,}" + (f" of {figures.predictions:,}" if figures.predictions else "")
        yield from _unlike(f"page, {version} labelled", its["Labelled"], counted)
    labelled, predictions = (
        sum(getattr(each, field) for each in wanted.values()) for field in ("labelled", "predictions")
    )
    if predictions:
        tile = _text(page.partition("<h2>Labelled predictions</h2>")[2].partition("</div>")[0])
        expected = f"{100 * labelled / predictions:.0f} % {labelled:,} of {predictions:,} rows"
        if not tile.startswith(expected):
            yield f"page, tile of labels: {tile!r}, recomputed {expected!r}"


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _of_metrics(
    name: str, text: str, document: Mapping[str, Any], wanted: Mapping[str, Figures]
) -> Iterator[str]:
    samples = parse_metrics(text)
    for row in document["versions"]:
        if not row["place"] and not row["predictions"]:
            continue
        its, labels = wanted.get(row["version"], _none()), {"version": row["version"], "place": row["place"]}
        for metric, value, tolerance in (
            ("holdfast_auc", its.auc, 0.0),
            ("holdfast_brier_score", its.brier, SUMS),
            ("holdfast_predictions", float(its.predictions), 0.0),
            ("holdfast_labelled_predictions", float(its.labelled), 0.0),
        ):
            found = next(
                (
                    number
                    for (sample, given), number in samples.items()
                    if sample == metric and labels.items() <= dict(given).items()
                ),
                None,
            )
            yield from _unlike(f"{name}, {metric} of {row['version']}", found, value, tolerance=tolerance)


def parse_metrics(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the samples of an exposition by name and labels."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, number = line.rpartition(" ")
            sample, _, labels = name.partition("{")
            given = frozenset(re.findall(r'(\w+)="([^"]*)"', labels))
            found[sample, given] = float(number)
    return found
