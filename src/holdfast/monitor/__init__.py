"""Watching a model that serves: is it there, is it used, is it right.

Pure functions over what the store has collected; the page, `holdfast status` and the metrics show their
results.
"""

from holdfast.monitor.latency import LATENCY_EDGES_SECONDS, RESOLUTION, bucket_of, merge, quantile_seconds
from holdfast.monitor.quality import (
    Outcomes,
    Quality,
    QualityDay,
    QualityVersion,
    by_day,
    by_version,
    quality,
)
from holdfast.monitor.usage import ErrorKind, Minute, UsageRow, Use, VersionUse, use
from holdfast.monitor.version_check import Judgement, Observation, Presence, judge, presence

__all__ = [
    "LATENCY_EDGES_SECONDS",
    "RESOLUTION",
    "ErrorKind",
    "Judgement",
    "Minute",
    "Observation",
    "Outcomes",
    "Presence",
    "Quality",
    "QualityDay",
    "QualityVersion",
    "UsageRow",
    "Use",
    "VersionUse",
    "bucket_of",
    "by_day",
    "by_version",
    "judge",
    "merge",
    "presence",
    "quality",
    "quantile_seconds",
    "use",
]
