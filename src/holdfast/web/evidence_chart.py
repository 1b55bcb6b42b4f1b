"""The chart of a rollout's evidence: each metric against the bound at which harm is declared."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from holdfast.records import MINUTE_US
from holdfast.web.charts import COLOURS, Spec, layered_chart
from holdfast.web.rollout_section import Curve

_DASHES: Final = ([1, 0], [6, 3], [2, 3], [8, 3, 2, 3])


def evidence_chart(curves: Sequence[Curve], *, width: int, height: int) -> Spec | None:
    """Return a chart of the evidence of harm by metric over time, in percent of its bound; None before two points.

    Lines differ in dash and in colour, for readers that do not see colours.
    """
    drawn = [curve for curve in curves if len(curve.points) > 1]
    if not drawn:
        return None
    rows = [
        {"at": _iso(at_us), "metric": curve.metric, "part": round(min(part, 1.25), 4)}
        for curve in drawn
        for at_us, part in curve.points
    ]
    timestamps = [at_us for curve in drawn for at_us, _ in curve.points]
    short = max(timestamps) - min(timestamps) < 20 * MINUTE_US
    named = [curve.metric for curve in drawn]
    x: Spec = {
        "field": "at",
        "type": "temporal",
        "scale": {"type": "utc"},
        "title": "Time (UTC)",
        "axis": {
            "format": "%H:%M:%S" if short else "%d %b %H:%M",
            "tickCount": max(2, width // 150),
            "grid": False,
        },
    }
    scale: Spec = {"domain": [0, max(1.05, *(float(row["part"]) for row in rows))]}  # type: ignore[arg-type]  # a number
    y: Spec = {
        "field": "part",
        "type": "quantitative",
        "scale": scale,
        "title": "Evidence, of its bound",
        "axis": {"format": "%", "tickCount": 5},
    }
    legend: Spec = {
        "orient": "top",
        "title": None,
        "columns": max(1, width // 200),
        "symbolType": "stroke",
        "symbolStrokeWidth": 2.5,
        "symbolSize": 400,
    }
    lines: Spec = {
        "data": {"values": rows},
        "mark": {"type": "line", "strokeWidth": 2.5, "interpolate": "step-after", "clip": True},
        "encoding": {
            "x": x,
            "y": y,
            "color": {
                "field": "metric",
                "type": "nominal",
                "scale": {
                    "domain": named,
                    "range": [COLOURS[number % len(COLOURS)] for number in range(len(named))],
                },
                "legend": legend,
            },
            "strokeDash": {
                "field": "metric",
                "type": "nominal",
                "scale": {
                    "domain": named,
                    "range": [_DASHES[number % len(_DASHES)] for number in range(len(named))],
                },
                "legend": legend,
            },
        },
    }
    bound: Spec = {
        "data": {"values": [{"part": 1, "what": "bound: harm is declared"}]},
        "layer": [
            {
                "mark": {"type": "rule", "color": "#d64545", "strokeDash": [5, 4], "strokeWidth": 1.5},
                "encoding": {"y": {"field": "part", "type": "quantitative"}},
            },
            {
                "mark": {
                    "type": "text",
                    "color": "#d64545",
                    "align": "left",
                    "baseline": "top",
                    "dx": 4,
                    "dy": 4,
                },
                "encoding": {
                    "x": {"value": 0},
                    "y": {"field": "part", "type": "quantitative"},
                    "text": {"field": "what"},
                },
            },
        ],
    }
    title = "Evidence of harm over time, by metric, against its bound"
    chart = layered_chart([lines, bound], width, height, title)
    # Dash and colour encode the same field: Vega-Lite makes one legend of scales that are resolved alike.
    chart["resolve"]["scale"]["strokeDash"] = "independent"
    return chart


def _iso(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}"
