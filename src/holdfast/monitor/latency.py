"""Latency as a histogram: one row per minute, additive over minutes, arms and servers."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

PER_DECADE: Final = 10
LATENCY_EDGES_SECONDS: Final[tuple[float, ...]] = tuple(
    round(10.0 ** (-4 + step / PER_DECADE), 9) for step in range(5 * PER_DECADE + 1)
)
"""Upper edges of the buckets, 0.1 ms to 10 s, ten in each decade. A last bucket holds slower requests."""

RESOLUTION: Final = 10.0 ** (0.5 / PER_DECADE) - 1.0
"""The maximum relative error of a quantile inside the edges: 12.2 %."""

_EDGES_US: Final = tuple(edge * 1e6 for edge in LATENCY_EDGES_SECONDS)

Histogram = Mapping[int, int]
"""Counts by bucket; a bucket without a count is absent."""


def bucket_of(latency_us: float) -> int:
    """Return the bucket of a latency in microseconds: the first whose upper edge it does not exceed.

    >>> bucket_of(100), bucket_of(101), bucket_of(60_000_000)
    (0, 1, 51)
    """
    return bisect_left(_EDGES_US, latency_us)


def merge(histograms: Iterable[Histogram]) -> dict[int, int]:
    """Return the sum of histograms; the order does not matter.

    >>> merge([{3: 1}, {3: 2, 4: 1}])
    {3: 3, 4: 1}
    """
    total = Counter[int]()
    for histogram in histograms:
        total.update(histogram)
    return dict(total)


def quantile_seconds(histogram: Histogram, share: float) -> float | None:
    """Return the latency that `share` (0 to 1) of the requests did not exceed, in seconds; None without a request.

    Guarantee: within `RESOLUTION` of the empirical quantile when that lies between the first and the last
    edge. Below the first edge the first edge is returned, above the last edge the last.

    >>> round(quantile_seconds({bucket_of(1000): 99, bucket_of(2_000_000): 1}, 0.5), 4)
    0.0009
    """
    total = sum(histogram.values())
    if total == 0:
        return None
    seen = 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= share * total:
            return _middle(bucket)
    raise AssertionError("a share of the requests is never more than all of them")


def _middle(bucket: int) -> float:
    # The geometric middle halves the relative error that either edge would have.
    if bucket == 0:
        return LATENCY_EDGES_SECONDS[0]
    if bucket >= len(LATENCY_EDGES_SECONDS):
        return LATENCY_EDGES_SECONDS[-1]
    return float((LATENCY_EDGES_SECONDS[bucket - 1] * LATENCY_EDGES_SECONDS[bucket]) ** 0.5)
