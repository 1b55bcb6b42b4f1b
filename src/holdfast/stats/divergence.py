"""Distances between two counted distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence

_HALF: float = 0.5


def population_stability(before: Sequence[int], after: Sequence[int]) -> float:
    """Return the population stability index of counts over the same bins: the sum of (p - q) ln(p / q), at least 0.

    Half a row is added to each bin, so that an empty one does not make it infinite. By custom below 0.1 is little and
    above 0.25 much. With fewer than about 200 rows chance alone exceeds that, so consider the numbers of rows too.

    Source: it is Jeffreys' divergence (Proc. R. Soc. A 186, 1946), under the name that credit scoring uses.

    >>> round(population_stability([500, 500], [500, 500]), 4), round(population_stability([900, 100], [500, 500]), 2)
    (0.0, 0.88)
    """
    p, q = _shares(before), _shares(after)
    return sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))


def jensen_shannon(before: Sequence[int], after: Sequence[int]) -> float:
    """Return the Jensen-Shannon divergence of counts over the same bins, in bits: 0 (equal) to 1 (no bin in common).

    Source: J. Lin, IEEE Trans. Inf. Theory 37 (1991), doi 10.1109/18.61115.

    >>> jensen_shannon([10, 0], [0, 10])
    1.0
    """
    total_before, total_after = max(1, sum(before)), max(1, sum(after))
    found = 0.0
    for a, b in zip(before, after, strict=True):
        p, q = a / total_before, b / total_after
        middle = (p + q) / 2
        found += sum(share * math.log2(share / middle) for share in (p, q) if share > 0.0) / 2
    return min(1.0, max(0.0, found))


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) + _HALF * len(counts)
    return [(count + _HALF) / total for count in counts]
