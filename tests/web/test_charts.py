"""Labels on charts do not cover one another, nor the points, nor leave the chart; positions are those of the drawing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.monitor.quality import Quality, QualityDay
from holdfast.monitor.usage import Minute
from holdfast.records import DAY_US, HOUR_US, MINUTE_US
from holdfast.stats import Interval
from holdfast.web.charts import Drawings, Mark, Spec, evidence_chart, quality_chart, traffic_chart
from holdfast.web.rollout_section import Curve
from holdfast.web.time_axis import GAP_PIXELS, MARGIN_PIXELS, TimeAxis, choose_period_ticks, choose_ticks

QUALITY = Quality(100, 50, Interval(0.7, 0.6, 0.8), None, None, None)


def labels(marks: list[Mark], *, days: int, width: int) -> list[dict[str, Any]]:
    drawn = [QualityDay("v1", number * DAY_US, 1, False, QUALITY) for number in range(days)]
    chart = quality_chart(drawn, marks, ["v1"], width=width, height=300)
    assert chart is not None
    found: list[dict[str, Any]] = chart["layer"][0]["data"]["values"]
    return found


def test_decisions_of_one_day_share_a_label_in_the_colour_of_the_worst() -> None:
    marks = [Mark(DAY_US + 5, "rollout", "v2-a"), Mark(DAY_US + 9, "rolled back", "v2-a")]
    (label,) = labels(marks, days=9, width=1000)
    assert (label["what"], label["kind"]) == ("v2 rollout, v2 rolled back", "rolled back")


def test_labels_that_would_touch_are_left_out_and_their_lines_stay() -> None:
    marks = [Mark(number * DAY_US, "promoted", f"v{number}-a") for number in range(60)]
    wide, narrow = labels(marks, days=60, width=1040), labels(marks, days=60, width=350)
    assert len(wide) == len(narrow) == 60
    assert sum(bool(each["what"]) for each in wide) == 60
    assert 10 <= sum(bool(each["what"]) for each in narrow) <= 20


WIDTHS = (320, 760, 1600)
START_US = 1_780_000_123_456_789
_PLACE = re.compile(r"translate\(([-\d.]+)[, ]([-\d.]+)\)")
_SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Text:
    """A drawn text and its bounds in pixels, of the widths of a wide font."""

    text: str
    left: float
    right: float
    top: float
    bottom: float

    def touches(self, other: Text) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def width_of(text: str) -> float:
    """The width in DejaVu Sans of 11 pixels, one of the widest fonts of a desktop."""
    wide = {" ": 3.5, ":": 3.7, ",": 3.5, ".": 3.5}
    return sum(wide.get(each, 8.6 if each.isupper() else 7.0) for each in text)


def drawn(chart: Spec | None) -> tuple[list[Text], list[Text], list[Text], float]:
    """The labels of the time axis, the texts of decisions, the points, and the width of the drawing."""
    assert chart is not None
    root = ElementTree.fromstring(Drawings().draw(chart))
    axis: list[Text] = []
    decisions: list[Text] = []
    points: list[Text] = []

    def walk(node: ElementTree.Element, x: float, y: float, inside: str) -> None:
        place = _PLACE.search(node.get("transform", ""))
        if place:
            x, y = x + float(place[1]), y + float(place[2])
        inside = f"{inside} {node.get('class', '')}"
        if node.tag == f"{_SVG}text" and node.text:
            width = width_of(node.text)
            if "role-axis-label" in inside and node.get("text-anchor") == "middle":
                axis.append(Text(node.text, x - width / 2, x + width / 2, y - 9, y + 2))
            elif "role-mark" in inside and "bound" not in node.text:
                turned = re.search(r"rotate.*translate\(0, ?([-\d.]+)\)", node.get("transform", ""))
                base = x + float(turned[1]) if turned else 0.0
                bounds = (base - 9, base + 2, y, y + width) if turned else (x, x + width, y - 9, y + 2)
                decisions.append(Text(node.text, *bounds))
        if node.tag == f"{_SVG}path" and "mark-symbol" in inside and "role-mark" in inside:
            points.append(Text("point", x - 4.5, x + 4.5, y - 4.5, y + 4.5))
        for child in node:
            walk(child, x, y, inside)

    walk(root, 0.0, 0.0, "")
    return axis, decisions, points, float(root.get("width", "0"))


def apart(labels: list[Text], right: float) -> None:
    ordered = sorted(labels, key=lambda label: label.left)
    assert ordered, "an axis has a label"
    assert all(one.right < other.left for one, other in pairwise(ordered)), ordered
    assert ordered[-1].right <= right + 1
    assert ordered[0].left >= -1


def evidence(points: int, width: int, step_us: int) -> Spec | None:
    curve = Curve("errors", tuple((START_US + at * step_us, at / points) for at in range(points)))
    return evidence_chart([curve], width=width, height=220)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("points", "step_us"), [(2, 7_000_000), (5, 97 * 10**6), (14, HOUR_US), (200, 11 * MINUTE_US)]
)
def test_times_on_the_evidence_chart_do_not_touch(points: int, step_us: int, width: int) -> None:
    """The first two and the last two lay over each other."""
    axis, _, _, right = drawn(evidence(points, width, step_us))
    apart(axis, right)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("minutes", [1, 2, 60])
def test_times_on_the_traffic_chart_do_not_touch(minutes: int, width: int) -> None:
    start_us = START_US - START_US % MINUTE_US
    rows = [Minute("v1-a", start_us + at * MINUTE_US, 5) for at in range(minutes)]
    axis, _, _, right = drawn(traffic_chart(rows, width=width, height=190))
    apart(axis, right)
    assert len({each.text for each in axis}) == len(axis)


def quality(days: int, versions: int, width: int, *, period: int = 1) -> Spec | None:
    rows = [
        QualityDay(f"v{number}-a", day * period * DAY_US, period, False, QUALITY)
        for day in range(days)
        for number in range(1, versions + 1)
    ]
    marks = [Mark(number, "rollout", f"v{number}-a") for number in range(2, versions + 1)]
    marks += [Mark(number + 9, "rolled back", f"v{number}-a") for number in range(2, versions + 1)]
    names = [f"v{number}-a" for number in range(1, versions + 1)]
    return quality_chart(rows, marks, names, width=width, height=300)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("versions", [1, 3, 8])
def test_a_chart_of_one_day_prints_nothing_over_anything(versions: int, width: int) -> None:
    axis, decisions, points, right = drawn(quality(1, versions, width))
    apart(axis, right)
    assert len(points) == versions
    every = [*decisions, *points]
    assert [(one, other) for at, one in enumerate(every) for other in every[:at] if one.touches(other)] == []
    assert max(each.right for each in every) <= right
    assert max(each.bottom for each in every) < axis[0].top


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("days", "period"), [(2, 1), (9, 1), (60, 1), (20, 7)])
def test_days_on_the_quality_chart_do_not_touch_and_have_one_label_each(
    days: int, period: int, width: int
) -> None:
    axis, decisions, points, right = drawn(quality(days, 3, width, period=period))
    apart(axis, right)
    assert len({each.text for each in axis}) == len(axis)
    first = min(each.left for each in points)
    assert all(each.right <= first + 1 for each in decisions), "the decisions are of the first day"
    assert all(each.bottom < axis[0].top for each in decisions)


def positions(axis: TimeAxis, width: int) -> list[float]:
    pixel_us = (axis.high_us - axis.low_us) / (width - MARGIN_PIXELS)
    return [(tick - axis.low_us) / pixel_us for tick in axis.ticks_us]


def are_apart(found: list[float], pixels: float) -> bool:
    """Return True if so much is between the positions; they are sums of floats, so a millionth of a pixel is none."""
    return all(right - left >= pixels - 1e-6 for left, right in pairwise(found))


@given(st.integers(1, 200), st.integers(1, 2 * DAY_US), st.integers(320, 1600), st.integers(0, 2 * DAY_US))
def test_any_number_of_points_on_any_width(points: int, step_us: int, width: int, start_us: int) -> None:
    axis = choose_ticks(start_us, start_us + (points - 1) * step_us, width)
    found = positions(axis, width)
    label = 7.0 * len(
        {"%H:%M:%S": "00:00:00", "%H:%M": "00:00", "%d %b": "01 Jan"}.get(axis.format, "01 Jan 00:00")
    )
    assert found
    assert are_apart(found, label + GAP_PIXELS)
    if len(found) > 1:
        assert found[-1] + label / 2 <= width - MARGIN_PIXELS


@given(st.integers(2, 200), st.sampled_from([1, 7]), st.integers(320, 1600))
def test_periods_have_their_labels_at_their_begin(periods: int, days: int, width: int) -> None:
    period_us = days * DAY_US
    last_us = (periods - 1) * period_us
    axis = choose_period_ticks(-DAY_US // 2, last_us + DAY_US // 2, width, first_us=0, period_us=period_us)
    assert axis.ticks_us
    assert {tick % period_us for tick in axis.ticks_us} == {0}
    assert are_apart(positions(axis, width), 42 + GAP_PIXELS)
