"""The section "Data" of the page: the volume of each feed's batches, and the shares of its slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median_high
from typing import Final

from holdfast.contract.profile.profile import Profile
from holdfast.monitor.slice_charts import SliceChart, make_charts
from holdfast.stats.chart_baseline import FEWEST
from holdfast.store import Store
from holdfast.store.feeds import batch_profiles
from holdfast.web.charts import Spec, layered_chart

SHOWN_BATCHES: Final = 60
MOST_VALUES: Final = 12
"""The most values of a column that charts show as slices."""

_MOST_SLICES: Final = 4
_BAND: Final = 3.0
_TITLE_CHARACTERS: Final = 24
_LEVEL: Final = "#8a94a6"
_SHARE: Final = "#2f7dd1"
_ALARM: Final = "#d64545"


@dataclass(frozen=True, slots=True)
class FeedData:
    """One feed: its newest batches with their row counts, and charts of its slices, alarms first.

    `band` is the usual range of rows per batch; None with too few batches.
    """

    feed: str
    volume: tuple[tuple[str, int], ...]
    band: tuple[float, float] | None
    slices: tuple[SliceChart, ...]

    @property
    def unusual(self) -> tuple[str, ...]:
        """The batches with a row count outside the band."""
        if self.band is None:
            return ()
        return tuple(batch for batch, rows in self.volume if not self.band[0] <= rows <= self.band[1])


def read(store: Store, feeds: Sequence[str]) -> tuple[FeedData, ...]:
    """Read the newest batches of each of `feeds` from their profiles; skip feeds without any."""
    with store.ledger.read() as connection:
        found = {feed: batch_profiles.newest(connection, feed, SHOWN_BATCHES) for feed in feeds}
    return tuple(of_feed(feed, batches) for feed, batches in found.items() if batches)


def of_feed(feed: str, batches: Sequence[tuple[str, Profile | None]]) -> FeedData:
    """Return the data of one feed from its newest `batches`, oldest first."""
    known = [(batch, profile) for batch, profile in batches if profile is not None]
    volume = tuple((batch, profile.rows) for batch, profile in known)
    drawn = [chart for column in _columns(known) for chart in make_charts(column, known, most=_MOST_SLICES)]
    drawn.sort(key=lambda chart: not chart.alarm)
    return FeedData(feed, volume, _band([rows for _, rows in volume]), tuple(drawn[:_MOST_SLICES]))


def volume_chart(data: FeedData, *, width: int, height: int) -> Spec | None:
    """Return a chart of the rows of each batch over the usual band; None without a batch."""
    if not data.volume:
        return None
    rows = [{"batch": batch, "rows": count, "unusual": batch in data.unusual} for batch, count in data.volume]
    bars: Spec = {
        "data": {"values": rows},
        "mark": {"type": "bar"},
        "encoding": {
            "x": _batches([batch for batch, _ in data.volume], width),
            "y": {"field": "rows", "type": "quantitative", "title": "Rows of the batch"},
            "color": {"condition": {"test": "datum.unusual", "value": _ALARM}, "value": _SHARE},
        },
    }
    layers = [bars]
    if data.band is not None:
        low, high = data.band
        band: Spec = {
            "data": {"values": [{"low": low, "high": high}]},
            "mark": {"type": "rect", "opacity": 0.18, "color": _LEVEL},
            "encoding": {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}},
        }
        layers = [band, bars]
    return layered_chart(layers, width, height, f"Rows of each batch of {data.feed}")


def slice_chart(chart: SliceChart, *, width: int, height: int) -> Spec:
    """Return a chart of one slice's share by batch, its weighted mean, and the limits of the mean."""
    x = _batches([point.batch for point in chart.points], width)
    y: Spec = {
        "type": "quantitative",
        "title": [_short(f"{chart.column} ="), _short(chart.value or "(missing)")],
        "axis": {"format": ".1%"},
        "scale": {"zero": False, "padding": 6},
    }
    judged: Spec = {"filter": "datum.low < datum.high"}
    layers: list[Spec] = [
        {
            "transform": [judged],
            "mark": {"type": "area", "opacity": 0.2, "color": _LEVEL},
            "encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "point", "size": 14, "filled": True, "opacity": 0.5, "color": _LEVEL},
            "encoding": {"x": x, "y": y | {"field": "share"}},
        },
        {
            "transform": [judged],
            "mark": {"type": "line", "strokeWidth": 2, "color": _SHARE},
            "encoding": {"x": x, "y": y | {"field": "smoothed"}},
        },
        {
            "transform": [{"filter": "datum.alarm"}],
            "mark": {"type": "point", "size": 46, "filled": True, "color": _ALARM},
            "encoding": {"x": x, "y": y | {"field": "smoothed"}},
        },
    ]
    rows = [asdict(point) for point in chart.points]
    shown = [{"data": {"values": rows}, **layer} for layer in layers]
    return layered_chart(shown, width, height, chart.explanation)


def _short(text: str) -> str:
    """Return as much of `text` as fits along the axis of a chart.

    >>> _short("phase_of_flight ="), _short("repaid_loan_on_previous_car =")
    ('phase_of_flight =', 'repaid_loan_on_previous…')
    """
    return text if len(text) <= _TITLE_CHARACTERS else f"{text[: _TITLE_CHARACTERS - 1]}…"


def _columns(known: Sequence[tuple[str, Profile]]) -> list[str]:
    """Return the columns of the newest batch with few values, which may be slices."""
    if not known:
        return []
    newest = known[-1][1]
    counted = {name: newest.slices(name) for name in (*newest.columns, *newest.values)}
    return [name for name, found in counted.items() if found and 2 <= len(found) <= MOST_VALUES]


def _band(rows: Sequence[int]) -> tuple[float, float] | None:
    """Return three robust deviations around the median of the batches before the newest."""
    before = rows[:-1]
    if len(before) < FEWEST:
        return None
    middle = median_high(before)
    spread = median_high(abs(count - middle) for count in before)
    half = _BAND * max(1.4826 * spread, 0.01 * middle)
    return max(0.0, middle - half), middle + half


def _batches(batches: Sequence[str], width: int) -> Spec:
    every = max(1, round(len(batches) * 110 / width))
    return {
        "field": "batch",
        "type": "ordinal",
        "sort": list(batches),
        "title": "Batch, in the order of its events",
        "axis": {"values": list(batches[::-1][::every]), "labelAngle": 0, "grid": False, "labelLimit": 100},
    }
