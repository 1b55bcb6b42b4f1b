"""Time axes of charts: which ticks have a label, so that no label covers another or leaves the chart.

The drawing library thins labels by the widths of its own fonts and moves the outer ones inwards, so in a browser with
another font they met. Here the ticks are chosen by a width that no usual font exceeds, and the scale is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from holdfast.records import DAY_US, HOUR_US, MINUTE_US

CHARACTER_PIXELS: Final = 7.0
"""The mean width of a character of a label of 11 pixels, in a wide font."""
GAP_PIXELS: Final = 10
MARGIN_PIXELS: Final = 75
"""The widest axis next to a chart."""
_LEFT_PIXELS: Final = 30
"""How far a label may reach below the axis next to the chart."""

_SECOND_US: Final = 1_000_000
_STEPS_US: Final = (
    *(seconds * _SECOND_US for seconds in (1, 2, 5, 10, 15, 30)),
    *(minutes * MINUTE_US for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * HOUR_US for hours in (1, 2, 3, 6, 12)),
)


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """A scale from `low_us` to `high_us`, the ticks with a label, and their format; times are microseconds, UTC."""

    low_us: int
    high_us: int
    ticks_us: tuple[int, ...]
    format: str

    def encoding(self, field: str, title: str) -> dict[str, Any]:
        """Return the Vega-Lite encoding of `field` on this axis."""
        return {
            "field": field,
            "type": "temporal",
            "scale": {"type": "utc", "domain": [self.low_us // 1000, self.high_us // 1000], "nice": False},
            "title": title,
            "axis": {
                "format": self.format,
                "values": [tick // 1000 for tick in self.ticks_us],
                "labelFlush": False,
                "labelOverlap": False,
                "grid": False,
            },
        }


def choose_ticks(low_us: int, high_us: int, width: int, *, least_us: int = _SECOND_US) -> TimeAxis:
    """Return the axis of times from `low_us` to `high_us` on a chart of `width` pixels; ticks are at least `least_us` apart.

    >>> choose_ticks(0, 3600 * 10**6, 330).ticks_us, choose_ticks(0, 3600 * 10**6, 330).format
    ((0, 900000000, 1800000000, 2700000000), '%H:%M')
    """
    if low_us == high_us:
        low_us, high_us = low_us - MINUTE_US // 2, high_us + MINUTE_US // 2
    for step_us in _steps(least_us, high_us - low_us):
        form = _format(step_us, low_us, high_us)
        if is_apart(step_us, form, low_us, high_us, width):
            break
    ticks = tuple(range(-(-low_us // step_us) * step_us, high_us + 1, step_us))
    return TimeAxis(low_us, high_us, fitting(ticks, form, low_us, high_us, width), form)


def choose_period_ticks(low_us: int, high_us: int, width: int, *, first_us: int, period_us: int) -> TimeAxis:
    """Return the axis of periods of whole days, the first of which begins at `first_us`: their begins alone have ticks."""
    form = _format(period_us, low_us, high_us)
    every = 1
    while not is_apart(every * period_us, form, low_us, high_us, width):
        every += 1
    ticks = tuple(range(first_us, high_us + 1, every * period_us))
    return TimeAxis(low_us, high_us, fitting(ticks, form, low_us, high_us, width), form)


def is_apart(step_us: int, form: str, low_us: int, high_us: int, width: int) -> bool:
    """Return True if labels of format `form` with `step_us` between them do not touch, or only one fits."""
    return step_us >= high_us - low_us or step_us / _pixel_us(low_us, high_us, width) >= (
        label_pixels(form) + GAP_PIXELS
    )


def fitting(ticks: tuple[int, ...], form: str, low_us: int, high_us: int, width: int) -> tuple[int, ...]:
    """Return those of `ticks` whose labels stay on the chart; the one nearest to the middle if none does."""
    pixel_us, half = _pixel_us(low_us, high_us, width), label_pixels(form) / 2
    last_us = high_us - half * pixel_us
    inside = tuple(tick for tick in ticks if low_us - (_LEFT_PIXELS - half) * pixel_us <= tick <= last_us)
    middle_us = (low_us + high_us) // 2
    return inside or (min(ticks, key=lambda tick: abs(tick - middle_us), default=middle_us),)


def label_pixels(form: str) -> float:
    """Return the width of a label of format `form`.

    >>> label_pixels("%H:%M")
    35.0
    """
    return CHARACTER_PIXELS * len(f"{datetime(2000, 1, 1, tzinfo=UTC):{form}}")


def _pixel_us(low_us: int, high_us: int, width: int) -> float:
    return (high_us - low_us) / max(1, width - MARGIN_PIXELS)


def _steps(least_us: int, span_us: int) -> Iterator[int]:
    """Yield distances between ticks from `least_us` on, rising, to the first that leaves one tick."""
    yield from (step for step in _STEPS_US if step >= least_us)
    days = 1
    while True:
        yield days * DAY_US
        if days * DAY_US > span_us:
            return
        days *= 2


def _format(step_us: int, low_us: int, high_us: int) -> str:
    if step_us >= DAY_US:
        return "%d %b" if high_us - low_us < 300 * DAY_US else "%d %b %Y"
    if low_us // DAY_US != high_us // DAY_US:
        return "%d %b %H:%M"
    return "%H:%M" if step_us >= MINUTE_US else "%H:%M:%S"
