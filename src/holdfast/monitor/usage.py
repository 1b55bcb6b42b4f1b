"""Usage of a model: requests, latency and errors (R140, R141)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.monitor.latency import Histogram, merge, quantile_seconds
from holdfast.records import MINUTE_US, Verdict

OK: Final = "ok"
"""The result of a successful request; every other result is an error kind."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Requests of one version in one minute with the same result."""

    version: str
    arm: str
    result: str
    minute_start_us: int
    requests: int
    rows: int
    latency_sum_us: int
    latency: Histogram


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """The number of requests of a version with one kind of error."""

    kind: str
    requests: int


@dataclass(frozen=True, slots=True)
class VersionUsage:
    """The usage of one version in a window of time. Latencies are in seconds; None without a request."""

    version: str
    requests: int
    rows: int
    share: float
    failed: int
    errors: tuple[ErrorKind, ...]
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    last_minute_us: int

    @property
    def error_rate(self) -> float:
        """Return the share of this version's requests that ended in an error."""
        return self.failed / self.requests


@dataclass(frozen=True, slots=True)
class Minute:
    """Requests of one version in one minute, for the chart of the traffic."""

    version: str
    minute_start_us: int
    requests: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of a model in the window that ended at `until_us`."""

    since_us: int
    until_us: int
    requests: int
    failed: int
    rate_per_second: float
    verdict: Verdict
    explanation: str
    versions: tuple[VersionUsage, ...]
    minutes: tuple[Minute, ...]


def summarise_usage(
    rows: Sequence[UsageRow],
    *,
    since_us: int,
    until_us: int,
    silent_after_us: int,
    last_minute_us: int | None = None,
) -> Usage:
    """Return the usage of a model in a window of time, by version.

    Parameters
    ----------
    rows
        Usage per minute, in any order; rows outside the window are ignored.
    since_us, until_us
        The window, microseconds since 1970, UTC.
    silent_after_us
        Without a request for longer than this, the verdict is fail.
    last_minute_us
        The newest minute with a request, if it may be before those of `rows`; None takes it from `rows`.

    The rate counts from the first request in the window, so that a recently started model is not diluted.
    """
    inside = [row for row in rows if since_us - MINUTE_US < row.minute_start_us <= until_us]
    total = sum(row.requests for row in inside)
    failed = sum(row.requests for row in inside if row.result != OK)
    last = max((row.minute_start_us for row in rows), default=last_minute_us)
    verdict, explanation = _check_silence(last, until_us, silent_after_us)
    by_version: dict[str, list[UsageRow]] = defaultdict(list)
    for row in inside:
        by_version[row.version].append(row)
    return Usage(
        since_us=since_us,
        until_us=until_us,
        requests=total,
        failed=failed,
        rate_per_second=_rate(inside, total, until_us),
        verdict=verdict,
        explanation=explanation,
        versions=tuple(
            _version_usage(version, found, total) for version, found in sorted(by_version.items())
        ),
        minutes=_by_minute(inside),
    )


def _check_silence(last_minute_us: int | None, until_us: int, silent_after_us: int) -> tuple[Verdict, str]:
    if last_minute_us is None:
        return Verdict.INCONCLUSIVE, "No request has been counted yet."
    silent_us = until_us - (last_minute_us + MINUTE_US)
    if silent_us > silent_after_us:
        explanation = (
            f"No request for {silent_us // MINUTE_US} min, and more than"
            f" {max(1, silent_after_us // MINUTE_US)} min of silence means that the model is not used."
        )
        return Verdict.FAIL, explanation
    return Verdict.PASS, "Requests arrive."


def _rate(inside: Sequence[UsageRow], total: int, until_us: int) -> float:
    if not inside:
        return 0.0
    first_us = min(row.minute_start_us for row in inside)
    return total / (max(until_us - first_us, MINUTE_US) / 1e6)


def _version_usage(version: str, rows: Sequence[UsageRow], total: int) -> VersionUsage:
    latency = merge(row.latency for row in rows)
    kinds = Counter[str]()
    for row in rows:
        if row.result != OK:
            kinds[row.result] += row.requests
    requests = sum(row.requests for row in rows)
    return VersionUsage(
        version=version,
        requests=requests,
        rows=sum(row.rows for row in rows),
        share=requests / total,
        failed=kinds.total(),
        errors=tuple(ErrorKind(kind, count) for kind, count in sorted(kinds.items())),
        p50_seconds=quantile_seconds(latency, 0.50),
        p95_seconds=quantile_seconds(latency, 0.95),
        p99_seconds=quantile_seconds(latency, 0.99),
        last_minute_us=max(row.minute_start_us for row in rows),
    )


def _by_minute(rows: Iterable[UsageRow]) -> tuple[Minute, ...]:
    counts = Counter[tuple[str, int]]()
    for row in rows:
        counts[row.version, row.minute_start_us] += row.requests
    return tuple(
        Minute(version, minute_start_us, count)
        for (version, minute_start_us), count in sorted(counts.items())
    )
