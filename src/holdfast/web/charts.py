"""Charts as Vega-Lite dictionaries, drawn to SVG in this process: no script in the browser, no request.

Text and axes use the page's own colour, so that one drawing fits light and dark.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import vl_convert

from holdfast.control.reports.status import RolloutStatus
from holdfast.monitor import Minute, QualityDay
from holdfast.monitor.quality import DAY_US
from holdfast.records import canonical_json, sha256_hex
from holdfast.rollout import State

COLOURS: Final = ("#2f7dd1", "#e07b22", "#1f9d78", "#c2449b", "#8467d7", "#b8931f", "#4aa3b8", "#d1495b")
"""Distinguishable on light and on dark; a version keeps its own."""

MARK_COLOURS: Final = {"rollout": "#8a94a6", "promoted": "#1f9d78", "rolled back": "#d64545"}

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
        """Return `spec` as SVG text, from the cache if it is there."""
        key = sha256_hex(canonical_json(spec))
        with self._lock:
            drawing = self._drawn.get(key)
            if drawing is None:
                drawing = str(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))
                self._drawn[key] = drawing
                while len(self._drawn) > self.keep:
                    self._drawn.popitem(last=False)
            self._drawn.move_to_end(key)
            return drawing


def marks(rollouts: Sequence[RolloutStatus]) -> tuple[Mark, ...]:
    """Return when each rollout started, and when a version was promoted or rolled back."""
    found = []
    for each in rollouts:
        match State(each.state):
            case State.ROLLED_BACK | State.ROLLING_BACK:
                found.append(Mark(each.first_event_us, "rollout", each.challenger))
                found.append(Mark(each.last_event_us, "rolled back", each.challenger))
            case State.PROMOTED:
                found.append(Mark(each.last_event_us, "promoted", each.challenger))
            case State.CANARY | State.PAUSED | State.VERIFYING:
                found.append(Mark(each.first_event_us, "rollout", each.challenger))
            case State.PENDING | State.SHADOWING | State.CANCELLED:
                pass
    return tuple(sorted(found, key=lambda mark: (mark.at_us, mark.version, mark.kind)))


def quality_chart(
    days: Sequence[QualityDay], shown: Sequence[Mark], versions: Sequence[str], *, width: int, height: int
) -> Spec | None:
    """Return a chart of AUC by version and day with 95 % intervals; None if no day has enough labels.

    A filled point has all its labels, a hollow one may still change. Rollouts and rollbacks are marked.

    Parameters
    ----------
    days
        The quality of each version by day.
    shown
        Decisions to mark on the time axis.
    versions
        The order of the legend.
    width, height
        The size, in pixels.
    """
    drawn = [day for day in days if day.quality.auc is not None]
    if not drawn:
        return None
    rows = [
        {
            "day": _iso(day.day_us),
            "version": day.version,
            "auc": day.quality.auc.estimate,
            "low": day.quality.auc.low,
            "high": day.quality.auc.high,
            "labels": "still coming" if day.filling else "in",
        }
        for day in drawn
        if day.quality.auc is not None
    ]
    first_us, last_us = min(each.day_us for each in drawn), max(each.day_us for each in drawn)
    decided = [
        {"at": _iso(_day(mark.at_us)), "what": f"{mark.version.split('-')[0]} {mark.kind}", "kind": mark.kind}
        for mark in shown
        if first_us <= _day(mark.at_us) <= last_us
    ]
    named = [version for version in versions if any(row["version"] == version for row in rows)]
    x: Spec = {
        "field": "day",
        "type": "temporal",
        "scale": {"type": "utc", "padding": 14},
        "title": "Day of the event (UTC)",
        "axis": {"format": "%d %b", "tickCount": max(2, width // 110), "grid": False},
    }
    y: Spec = {
        "type": "quantitative",
        "scale": {"zero": False, "padding": 12},
        "title": "AUC (0.5 is chance)",
    }
    by_version: Spec = {
        "field": "version",
        "type": "nominal",
        "scale": {"domain": named, "range": [COLOURS[colour(version)] for version in named]},
        "legend": {
            "orient": "top",
            "title": None,
            "columns": max(1, width // 130),
            "symbolType": "stroke",
            "symbolOpacity": 1,
            "symbolStrokeWidth": 3,
        },
    }
    filled: Spec = {"field": "version", "type": "nominal", "scale": by_version["scale"], "legend": None}
    lines: Spec = {
        "data": {"values": rows},
        "encoding": {"x": x, "color": by_version},
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
                    "fill": {"condition": filled | {"test": "datum.labels === 'in'"}, "value": "transparent"},
                },
            },
        ],
    }
    layers = [_decisions(decided), lines]
    return layered_chart(layers, width, height, "Quality by version and day")


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
    layer: Spec = {
        "data": {"values": rows},
        "mark": {"type": "bar", "width": {"band": 0.9}},
        "encoding": {
            "x": {
                "field": "minute",
                "type": "temporal",
                "timeUnit": "utcyearmonthdatehoursminutes",
                "scale": {"type": "utc"},
                "title": "Minute (UTC)",
                "axis": {"format": "%H:%M", "tickCount": max(2, width // 90), "grid": False},
            },
            "y": {"field": "requests", "type": "quantitative", "title": "Requests per minute"},
            "color": {
                "field": "version",
                "type": "nominal",
                "scale": {"domain": named, "range": [COLOURS[colour(version)] for version in named]},
                "legend": {
                    "orient": "top",
                    "title": None,
                    "columns": max(1, width // 130),
                },
            },
        },
    }
    return layered_chart([layer], width, height, "Requests per minute by version")


def colour(version: str) -> int:
    """Return the index of a version's colour, the same in tables and charts.

    >>> colour("v1-0a1b2c3d"), colour("v9-0a1b2c3d"), colour("")
    (0, 0, 7)
    """
    number = version.removeprefix("v").split("-")[0]
    return (int(number) - 1) % len(COLOURS) if number.isdigit() else len(COLOURS) - 1


def _decisions(decided: Sequence[Spec]) -> Spec:
    at: Spec = {"field": "at", "type": "temporal", "scale": {"type": "utc"}}
    by_kind: Spec = {
        "field": "kind",
        "type": "nominal",
        "scale": {"domain": list(MARK_COLOURS), "range": list(MARK_COLOURS.values())},
        "legend": None,
    }
    return {
        "data": {"values": list(decided)},
        "layer": [
            {
                "mark": {"type": "rule", "strokeDash": [4, 3], "strokeWidth": 1.5},
                "encoding": {"x": at, "color": by_kind},
            },
            {
                "mark": {"type": "text", "angle": 270, "align": "right", "baseline": "bottom", "dy": -3},
                "encoding": {"x": at, "y": {"value": 3}, "text": {"field": "what"}, "color": by_kind},
            },
        ],
    }


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


def _day(at_us: int) -> int:
    return at_us - at_us % DAY_US


def _iso(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}"
