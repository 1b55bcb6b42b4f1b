"""Labels on charts do not cover one another."""

from __future__ import annotations

from typing import Any

from holdfast.monitor.quality import Quality, QualityDay
from holdfast.records import DAY_US
from holdfast.stats import Interval
from holdfast.web.charts import Mark, quality_chart

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
