"""The judgement rules of two canary controllers, rebuilt from what they say they do, on series of one value a minute.

Kayenta's judge: the Mann-Whitney test of the minutes' values; an increase (or decrease) is found when the 98 % interval of the
shift lies beyond a quarter of the Hodges-Lehmann estimate. Argo Rollouts: a threshold, which more minutes than the failure
limit may not break.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

TOLERANCE = 0.25
CONFIDENCE = 0.98
FIRST_LOOK = 10
FAILURE_LIMIT = 3

WORSE_IS_LESS = frozenset({"quality"})
Series = dict[str, tuple[np.ndarray, np.ndarray]]


def kayenta(series: Series, looks: range) -> np.ndarray:
    """The first look, as a minute, at which any metric is found worse in each run; 0 where none is."""
    runs = len(next(iter(series.values()))[0])
    found = np.zeros(runs, np.int64)
    for minute in looks:
        waiting = np.flatnonzero(found == 0)
        worse = np.zeros(waiting.size, bool)
        for metric, (champion, challenger) in series.items():
            upto = min(minute, champion.shape[1])
            if upto >= 2:
                pair = champion[waiting, :upto], challenger[waiting, :upto]
                worse |= _shifted(*(pair if metric not in WORSE_IS_LESS else pair[::-1]))
        found[waiting[worse]] = minute
    return found


def _shifted(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether `high` lies above `low` beyond the tolerance, run by run, by the ordered differences of all pairs."""
    n = low.shape[1]
    pairs = n * n
    spread = np.sqrt(pairs * (2 * n + 1) / 12.0)
    lowest = max(0, int(np.floor(pairs / 2.0 - NormalDist().inv_cdf(0.5 + CONFIDENCE / 2.0) * spread)))
    differences = (high[:, :, None] - low[:, None, :]).reshape(len(low), pairs)
    middle = sorted({(pairs - 1) // 2, pairs // 2})
    differences.partition(sorted({lowest, *middle}), axis=1)
    estimate = differences[:, middle].mean(axis=1)
    return differences[:, lowest] > TOLERANCE * np.abs(estimate)


def threshold_of(calm: Series, chance: float) -> dict[str, float]:
    """For each metric the tightest threshold that breaks its limit with `chance` in calm traffic, known beforehand."""
    found = {}
    for metric, (_, challenger) in calm.items():
        ordered = np.sort(challenger, axis=1)
        if metric in WORSE_IS_LESS:
            found[metric] = float(np.quantile(ordered[:, FAILURE_LIMIT], chance, method="lower"))
        else:
            found[metric] = float(np.quantile(ordered[:, -1 - FAILURE_LIMIT], 1.0 - chance, method="higher"))
    return found


def argo(series: Series, thresholds: dict[str, float]) -> np.ndarray:
    """The minute in which any metric has broken its threshold more often than the limit in each run; 0 where none has."""
    runs = len(next(iter(series.values()))[0])
    found = np.full(runs, 10**6)
    for metric, (_, challenger) in series.items():
        broken = (
            challenger < thresholds[metric] if metric in WORSE_IS_LESS else challenger > thresholds[metric]
        )
        over = np.cumsum(broken, axis=1) > FAILURE_LIMIT
        found = np.where(over.any(axis=1), np.minimum(found, over.argmax(axis=1) + 1), found)
    return np.where(found == 10**6, 0, found)
