"""Charts as Vega-Lite dictionaries, drawn to SVG in this process: no script in the browser, no request.

Text and axes use the page's own colour, so that one drawing fits light and dark.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from itertools import cycle, islice
from typing import Any, Final

from holdfast.control.reports.status import RolloutStatus
from holdfast.errors import missing_extra
from holdfast.monitor.quality import QualityDay
from holdfast.monitor.usage import Minute
from holdfast.records import DAY_US, MINUTE_US, canonical_json, sha256_hex
from holdfast.rollout import State
from holdfast.web.rollout_section import Curve
from holdfast.web.time_axis import MARGIN_PIXELS, TimeAxis, choose_period_ticks, choose_ticks

COLOURS: Final = ("#2f7dd1", "#e07b22", "#1f9d78", "#c2449b", "#8467d7", "#b8931f", "#4aa3b8", "#d1495b")
"""Distinguishable on light and on dark; a version keeps its own."""

MARK_COLOURS: Final = {"rollout": "#8a94a6", "promoted": "#1f9d78", "rolled back": "#d64545"}

_LABEL_PIXELS: Final = 14
"""The width of the turned text of a decision."""
_EDGE_PIXELS: Final = 24
"""From the first and the last point to the edge: room for the text of a decision."""
_AROUND_PIXELS: Final = 110
"""The height of the legend and the axis."""
_TEXT_PIXELS: Final = 6
"""The mean width of a character of a decision."""
_LIST_PIXELS: Final = 104
_LIST_LINES: Final = 6
_LINE_PIXELS: Final = 13
_DODGE_PIXELS: Final = 14
"""The distance of versions on a chart of one day, where their points would lie on one another."""

_DASHES: Final = ([1, 0], [6, 3], [2, 3], [8, 3, 2, 3])

Spec = dict[str, Any]

_SCHEMA: Final = "https://vega.github.io/schema/vega-lite/v5.json"
_FONT: Final = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"


@dataclass(frozen=True, slots=True)
class Mark:
    """A decision about a version on the time axis."""

    at_us: int
    kind: str
    version: str


@dataclass(slots=True)
class Drawings:
    """A cache of the newest drawings, by the hash of their specification. Thread-safe."""

    keep: int = 32
    _drawn: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def draw(self, spec: Spec) -> str:
        """Return `spec` as SVG text, from the cache if it is there.

        Raises `InputError` HF112 without the extra `charts`.
        """
        key = sha256_hex(canonical_json(spec))
        with self._lock:
            drawing = self._drawn.get(key)
            if drawing is None:
                drawing = _svg(spec)
                self._drawn[key] = drawing
                while len(self._drawn) > self.keep:
                    self._drawn.popitem(last=False)
            self._drawn.move_to_end(key)
            return drawing


def _svg(spec: Spec) -> str:
    try:
        converter = import_module("vl_convert")  # 84 MB, for the page alone
    except ModuleNotFoundError as error:
        raise missing_extra("charts", "a chart", state="all figures are shown without it") from error
    return str(converter.vegalite_to_svg(spec, allowed_base_urls=[]))


def marks(rollouts: Sequence[RolloutStatus]) -> tuple[Mark, ...]:
    """Return when each rollout started, and when a version was promoted or rolled back."""
    found = []
    for each in rollouts:
        match State(each.state):
            case State.ROLLED_BACK | State.ROLLING_BACK:
                found.append(Mark(each.started_at_us, "rollout", each.challenger))
                found.append(Mark(each.changed_at_us, "rolled back", each.challenger))
            case State.PROMOTED:
                found.append(Mark(each.changed_at_us, "promoted", each.challenger))
            case State.CANARY | State.PAUSED | State.VERIFYING:
                found.append(Mark(each.started_at_us, "rollout", each.challenger))
            case State.PENDING | State.SHADOWING | State.CANCELLED:
                pass
    return tuple(sorted(found, key=lambda mark: (mark.at_us, mark.version, mark.kind)))


def quality_chart(
    days: Sequence[QualityDay], shown: Sequence[Mark], versions: Sequence[str], *, width: int, height: int
) -> Spec | None:
    """Return a chart of AUC by version over time with 95 % intervals; None if no point has enough labels.

    A filled point has all its labels, a hollow one may still change. Rollouts and rollbacks are marked.

    Parameters
    ----------
    days
        The quality of each version by day, or by a longer period.
    shown
        Decisions to mark on the time axis.
    versions
        The order of the legend.
    width, height
        The size, in pixels.
    """
    drawn = [(day, auc) for day in days if (auc := day.quality.auc) is not None]
    if not drawn:
        return None
    rows = [
        {
            "day": _iso(day.day_us),
            "version": day.version,
            "auc": auc.estimate,
            "low": auc.low,
            "high": auc.high,
            "labels": "still coming" if day.filling else "in",
        }
        for day, auc in drawn
    ]
    dates, period_us = [day.day_us for day, _ in drawn], drawn[0][0].days * DAY_US
    first_us, last_us = min(dates), max(dates) + period_us - DAY_US
    decided = [mark for mark in shown if first_us <= mark.at_us - mark.at_us % DAY_US <= last_us]
    named = [version for version in versions if any(day.version == version for day, _ in drawn)]
    plot = width - MARGIN_PIXELS
    if len(set(dates)) == 1:
        pixel_us = DAY_US / plot
        middle = (plot + (_LIST_PIXELS if decided else 0)) / 2
        dodge = min(_DODGE_PIXELS, 2 * (plot - middle - _EDGE_PIXELS) / max(1, len(named) - 1))
        for row in rows:
            place = named.index(str(row["version"])) - (len(named) - 1) / 2
            row["day"] = _iso_precise(first_us + round(place * dodge * pixel_us))
        low_us = first_us - round(middle * pixel_us)
        axis = TimeAxis(low_us, low_us + DAY_US, (first_us,), "%d %b")
        marked = _listed_decisions(decided)
    else:
        edge_us = round((last_us - first_us) * _EDGE_PIXELS / (plot - 2 * _EDGE_PIXELS))
        bounds = (first_us - edge_us, last_us + edge_us)
        axis = choose_period_ticks(*bounds, width, first_us=first_us, period_us=period_us)
        by_day = _by_day(decided, (height - _AROUND_PIXELS) // _TEXT_PIXELS)
        _thin_labels(by_day, (bounds[1] - bounds[0]) / plot)
        marked = _decisions(by_day, axis)
    title = {1: "Day of the prediction (UTC)", 7: "Week of the prediction, from Monday (UTC)"}.get(
        drawn[0][0].days, f"{drawn[0][0].days} days of predictions, from Monday (UTC)"
    )
    x = axis.encoding("day", title)
    y: Spec = {
        "type": "quantitative",
        "scale": {"zero": False, "padding": 12},
        "title": "AUC (0.5 is chance)",
    }
    colours = [COLOURS[colour(version)] for version in named]
    legend = _legend(width // 130, symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=3)
    filled = _nominal("version", named, colours) | {"test": "datum.labels === 'in'"}
    lines: Spec = {
        "data": {"values": rows},
        "encoding": {"x": x, "color": _nominal("version", named, colours, legend)},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 5, "opacity": 0.22, "strokeCap": "round"},
                "encoding": {"y": y | {"field": "low"}, "y2": {"field": "high"}},
            },
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"y": y | {"field": "auc"}}},
            {
                "mark": {"type": "point", "size": 42, "strokeWidth": 1.6, "fillOpacity": 1},
                "encoding": {
                    "y": y | {"field": "auc"},
                    "fill": {"condition": filled, "value": "transparent"},
                },
            },
        ],
    }
    return layered_chart([marked, lines], width, height, "Quality by version over time")


def traffic_chart(minutes: Sequence[Minute], *, width: int, height: int) -> Spec | None:
    """Return a stacked chart of requests per minute by version; None without a request."""
    if not minutes:
        return None
    rows = [
        {
            "minute": _iso(each.minute_start_us),
            "version": each.version or "no version",
            "requests": each.requests,
        }
        for each in minutes
    ]
    named = sorted({str(row["version"]) for row in rows})
    colours = [COLOURS[colour(version)] for version in named]
    times = [each.minute_start_us for each in minutes]
    axis = choose_ticks(min(times), max(times) + MINUTE_US, width, least_us=MINUTE_US)
    x = axis.encoding("minute", "Minute (UTC)")
    bars: Spec = {
        "data": {"values": rows},
        "mark": {"type": "bar", "width": {"band": 0.9}},
        "encoding": {
            "x": x | {"timeUnit": "utcyearmonthdatehoursminutes"},
            "y": {"field": "requests", "type": "quantitative", "title": "Requests per minute"},
            "color": _nominal("version", named, colours, _legend(width // 130)),
        },
    }
    return layered_chart([bars], width, height, "Requests per minute by version")


def evidence_chart(curves: Sequence[Curve], *, width: int, height: int) -> Spec | None:
    """Return a chart of the evidence of harm by metric over time, in percent of its bound; None before two points.

    Lines differ in dash and in colour, for readers that do not see colours.
    """
    drawn = [curve for curve in curves if len(curve.points) > 1]
    if not drawn:
        return None
    points = [(curve.metric, at_us, min(part, 1.25)) for curve in drawn for at_us, part in curve.points]
    rows = [{"at": _iso(at_us), "metric": metric, "part": round(part, 4)} for metric, at_us, part in points]
    times = [at_us for _, at_us, _ in points]
    axis = choose_ticks(min(times), max(times), width)
    day = "" if "%d" in axis.format else f", {datetime.fromtimestamp(axis.low_us / 1e6, UTC):%d %b %Y}"
    named = [curve.metric for curve in drawn]
    legend = _legend(width // 200, symbolType="stroke", symbolStrokeWidth=2.5, symbolSize=400)
    part: Spec = {"field": "part", "type": "quantitative"}
    lines: Spec = {
        "data": {"values": rows},
        "mark": {"type": "line", "strokeWidth": 2.5, "interpolate": "step-after", "clip": True},
        "encoding": {
            "x": axis.encoding("at", f"Time (UTC){day}"),
            "y": part
            | {
                "scale": {"domain": [0, max(1.05, *(round(part, 4) for _, _, part in points))]},
                "title": "Evidence, of its bound",
                "axis": {"format": "%", "tickCount": 5},
            },
            "color": _nominal("metric", named, _cycled(COLOURS, named), legend),
            "strokeDash": _nominal("metric", named, _cycled(_DASHES, named), legend),
        },
    }
    red = MARK_COLOURS["rolled back"]
    text = {"type": "text", "color": red, "align": "left", "baseline": "top", "dx": 4, "dy": 4}
    bound: Spec = {
        "data": {"values": [{"part": 1, "what": "bound: harm is declared"}]},
        "encoding": {"y": part},
        "layer": [
            {"mark": {"type": "rule", "color": red, "strokeDash": [5, 4], "strokeWidth": 1.5}},
            {"mark": text, "encoding": {"x": {"value": 0}, "text": {"field": "what"}}},
        ],
    }
    title = "Evidence of harm over time, by metric, against its bound"
    chart = layered_chart([lines, bound], width, height, title)
    # Dash and colour encode the same field: Vega-Lite makes one legend of scales that are resolved alike.
    chart["resolve"]["scale"]["strokeDash"] = "independent"
    return chart


def colour(version: str) -> int:
    """Return the index of a version's colour, the same in tables and charts.

    >>> colour("v1-0a1b2c3d"), colour("v9-0a1b2c3d"), colour("")
    (0, 0, 7)
    """
    number = version.removeprefix("v").split("-")[0]
    return (int(number) - 1) % len(COLOURS) if number.isdigit() else len(COLOURS) - 1


def _by_day(shown: Sequence[Mark], longest: int) -> list[Spec]:
    """Return one mark for each day, in order: marks of the same day would be written over each other.

    Its text has at most `longest` characters: it names all decisions of the day, else the worst and the number of the others.
    """
    by_day: dict[int, list[Mark]] = {}
    for mark in shown:
        by_day.setdefault(mark.at_us - mark.at_us % DAY_US, []).append(mark)
    order = list(MARK_COLOURS)
    decided = []
    for day_us, found in sorted(by_day.items()):
        worst = max(found, key=lambda mark: order.index(mark.kind))
        what = ", ".join(map(_named, found))
        if len(what) > longest:
            what = _named(worst) if len(found) == 1 else f"{_named(worst)}, {len(found) - 1} more"
        decided.append({"at": _iso(day_us), "at_us": day_us, "what": what, "kind": worst.kind})
    return decided


def _named(mark: Mark) -> str:
    return f"{mark.version.split('-')[0]} {mark.kind}"


def _listed_decisions(decided: Sequence[Mark]) -> Spec:
    """Return the decisions of the only day as lines of text next to its points, the first ones if there are many."""
    lines: list[Spec] = [{"what": _named(mark), "kind": mark.kind} for mark in decided]
    if len(lines) > _LIST_LINES:
        more = {"what": f"{len(lines) - _LIST_LINES + 1} more", "kind": "rollout"}
        lines = [*lines[: _LIST_LINES - 1], more]
    rows = [line | {"top": _LINE_PIXELS * number + 3} for number, line in enumerate(lines)]
    return {
        "data": {"values": rows},
        "mark": {"type": "text", "align": "left", "baseline": "top"},
        "encoding": {
            "x": {"value": 6},
            "y": {"field": "top", "type": "quantitative", "scale": None},
            "text": {"field": "what"},
            "color": _nominal("kind", list(MARK_COLOURS), list(MARK_COLOURS.values())),
        },
    }


def _thin_labels(decided: list[Spec], pixel_us: float) -> None:
    """Leave the text of a mark away that would touch that of the mark before; its line stays."""
    last_us: float | None = None
    for each in decided:
        at_us = each.pop("at_us")
        if last_us is not None and at_us - last_us < _LABEL_PIXELS * pixel_us:
            each["what"] = ""
        else:
            last_us = at_us


def _decisions(decided: Sequence[Spec], axis: TimeAxis) -> Spec:
    at = axis.encoding("at", "")
    by_kind = _nominal("kind", list(MARK_COLOURS), list(MARK_COLOURS.values()))
    text = {"type": "text", "angle": 270, "align": "right", "baseline": "bottom", "dy": -6}
    return {
        "data": {"values": list(decided)},
        "encoding": {"x": at, "color": by_kind},
        "layer": [
            {"mark": {"type": "rule", "strokeDash": [4, 3], "strokeWidth": 1.5}},
            {"mark": text, "encoding": {"y": {"value": 3}, "text": {"field": "what"}}},
        ],
    }


def _nominal(field: str, domain: Sequence[str], values: Sequence[object], legend: Spec | None = None) -> Spec:
    """Return the encoding of a name: the value of `values` that stands where the name stands in `domain`."""
    scale = {"domain": list(domain), "range": list(values)}
    return {"field": field, "type": "nominal", "scale": scale, "legend": legend}


def _legend(columns: int, **symbols: object) -> Spec:
    return {
        "orient": "top",
        "title": None,
        "columns": max(1, columns),
        "labelLimit": 280,
        "columnPadding": 18,
        **symbols,
    }


def _cycled(values: Sequence[object], names: Sequence[str]) -> list[object]:
    """Return a value for each name, from the first again after the last."""
    return list(islice(cycle(values), len(names)))


def layered_chart(layers: Sequence[Spec], width: int, height: int, title: str) -> Spec:
    """Return `layers` as one chart in the page's style; `title` is its description for screen readers.

    Parameters
    ----------
    layers
        Vega-Lite layers, the lowest first.
    width, height
        The size, in pixels.
    title
        What the chart shows.
    """
    return {
        "$schema": _SCHEMA,
        "description": title,
        "width": width,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 2,
        "layer": list(layers),
        "resolve": {"scale": {"color": "independent"}},
        "config": {
            "background": None,
            "font": _FONT,
            "view": {"stroke": None},
            "axis": {
                "labelColor": "currentColor",
                "titleColor": "currentColor",
                "titleFontWeight": "normal",
                "labelFontSize": 11,
                "titleFontSize": 11,
                "domainColor": "#8886",
                "tickColor": "#8886",
                "gridColor": "#8883",
                "titlePadding": 8,
                "labelOverlap": "greedy",
                "labelSeparation": 8,
            },
            "legend": {
                "labelColor": "currentColor",
                "labelFontSize": 12,
                "symbolSize": 90,
                "columnPadding": 18,
            },
            "text": {"fontSize": 10.5},
        },
    }


def _iso_precise(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def _iso(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}"
