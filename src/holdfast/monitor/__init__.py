"""Monitoring of a serving model: is it there, is it used, is it right.

Pure functions over collected data; the page, `holdfast status` and the metrics show their results.
"""

from holdfast.monitor.latency import LATENCY_EDGES_SECONDS, RESOLUTION, bucket_of, merge, quantile_seconds
from holdfast.monitor.quality import (
    Outcomes,
    Quality,
    QualityDay,
    QualityVersion,
    compute_quality,
    quality_by_day,
    quality_by_version,
)
from holdfast.monitor.usage import ErrorKind, Minute, Usage, UsageRow, VersionUsage, summarise_usage
from holdfast.monitor.version_check import (
    Observation,
    Presence,
    ServerVerdict,
    check_server,
    summarise_probes,
)

__all__ = [
    "LATENCY_EDGES_SECONDS",
    "RESOLUTION",
    "ErrorKind",
    "Minute",
    "Observation",
    "Outcomes",
    "Presence",
    "Quality",
    "QualityDay",
    "QualityVersion",
    "ServerVerdict",
    "Usage",
    "UsageRow",
    "VersionUsage",
    "bucket_of",
    "check_server",
    "compute_quality",
    "merge",
    "quality_by_day",
    "quality_by_version",
    "quantile_seconds",
    "summarise_probes",
    "summarise_usage",
]
