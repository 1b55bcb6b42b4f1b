"""Usage of a model: requests, latency and errors (R140, R141)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Final

from holdfast.formatting import span
from holdfast.monitor.latency import Histogram, merge, quantile_seconds
from holdfast.records import MINUTE_US, Verdict

OK: Final = "ok"
"""The result of a successful request; every other result is an error kind."""
CALLERS_FAULT: Final = frozenset({"malformed", "contract"})
"""Error kinds of requests that were refused because of what their callers sent."""
SILENT_AFTER_US: Final = 300_000_000
"""After this long without a request a model with steady traffic counts as not used, microseconds: five minutes."""
MOST_REASONS: Final = 20
"""So many reasons of refused requests are counted, as many as a minute of the ledger has."""
PAUSES: Final = 10
"""With rare requests, silence begins after so many times the usual pause between two of them."""
FEWEST_PAUSES: Final = 20
"""The usual pause is the median of so many at least: a test of a few requests shows no habit."""
MEASURED_OVER_US: Final = 1_800_000_000
"""The pauses span so much time at least, microseconds: half an hour."""
UNMEASURED_US: Final = 604_800_000_000
"""A model whose usual pause is not known counts as not used after so long without a request, microseconds: a week."""


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
    """Processor time of the requests, which rollouts compare."""
    response: Histogram = field(default_factory=dict)
    """Time from the last byte of each request to its response."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Refused requests by the rule of the contract that they broke, "<column>|<rule>"; one request may have several."""


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """The number of requests of a version with one kind of error."""

    kind: str
    requests: int

    @property
    def is_callers_fault(self) -> bool:
        """Return True if such requests were refused because of what their callers sent."""
        return self.kind in CALLERS_FAULT


@dataclass(frozen=True, slots=True)
class VersionUsage:
    """The usage of one version in a window of time. Latencies are in seconds; None where none was measured.

    `failed`, `refused` and `errors` are as in `Usage`. `p50_seconds` to `p99_seconds` are of the time to the response,
    `processor_*` of the processor time.
    """

    version: str
    requests: int
    rows: int
    share: float
    failed: int
    refused: int
    errors: tuple[ErrorKind, ...]
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    processor_p50_seconds: float | None
    processor_p99_seconds: float | None
    last_minute_us: int

    @property
    def error_rate(self) -> float:
        """Return the share of this version's requests that failed or were refused."""
        return (self.failed + self.refused) / self.requests


@dataclass(frozen=True, slots=True)
class Minute:
    """Requests of one version in one minute, for the chart of the traffic."""

    version: str
    minute_start_us: int
    requests: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of a model in the window that ended at `until_us`.

    `refused` requests broke the contract or could not be read, by their callers' fault; `failed` are all other errors.
    No request counts as both. `errors` of a version has both, by kind.
    `reasons` are the rules that the refused ones broke most often, with the number of requests.
    """

    since_us: int
    until_us: int
    requests: int
    failed: int
    refused: int
    rate_per_second: float
    verdict: Verdict
    explanation: str
    versions: tuple[VersionUsage, ...]
    minutes: tuple[Minute, ...]
    reasons: tuple[tuple[str, int], ...] = ()


def summarise_usage(
    rows: Sequence[UsageRow],
    *,
    since_us: int,
    until_us: int,
    silent_after_us: int | None,
    last_minute_us: int | None = None,
    served_since_us: int | None = None,
) -> Usage:
    """Return the usage of a model in a window of time, by version.

    Parameters
    ----------
    rows
        Usage per minute, in any order; rows outside the window are ignored.
    since_us, until_us
        The window, microseconds since 1970, UTC.
    silent_after_us
        Without a request for longer than this, the verdict is fail. None if it is not known: then it is inconclusive, and
        fail after `UNMEASURED_US`.
    last_minute_us
        The newest minute with a request, if it may be before those of `rows`; None takes it from `rows`.
    served_since_us
        Since when a version serves; None if none does. A model that was never requested is silent since then.

    The rate counts from the first request in the window, so that a recently started model is not diluted.
    """
    inside = [row for row in rows if since_us - MINUTE_US < row.minute_start_us <= until_us]
    total = sum(row.requests for row in inside)
    refused = sum(row.requests for row in inside if row.result in CALLERS_FAULT)
    failed = sum(row.requests for row in inside if row.result != OK) - refused
    last = max((row.minute_start_us for row in rows), default=last_minute_us)
    verdict, explanation = _check_silence(last, since_us, until_us, silent_after_us, served_since_us)
    by_version: dict[str, list[UsageRow]] = defaultdict(list)
    for row in inside:
        by_version[row.version].append(row)
    return Usage(
        since_us=since_us,
        until_us=until_us,
        requests=total,
        failed=failed,
        refused=refused,
        rate_per_second=_rate(inside, total, until_us),
        verdict=verdict,
        explanation=explanation,
        versions=tuple(
            _version_usage(version, found, total) for version, found in sorted(by_version.items())
        ),
        minutes=_by_minute(inside),
        reasons=_commonest_reasons(inside),
    )


def _commonest_reasons(rows: Iterable[UsageRow]) -> tuple[tuple[str, int], ...]:
    reasons = Counter[str]()
    for row in rows:
        reasons.update(row.reasons)
    return tuple(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_REASONS])


def silent_after_us(minutes: Sequence[int]) -> int | None:
    """Return after how long without a request a model counts as not used, from its recent minutes with requests.

    `minutes` are their starts, microseconds since 1970 UTC, in order. Five minutes with steady traffic; ten times the
    median pause between two such minutes with less, because a model that gets a request every ten minutes is not silent.
    None with fewer than `FEWEST_PAUSES` pauses, or within less than `MEASURED_OVER_US`: they show nothing usual.

    >>> silent_after_us([MINUTE_US * number for number in range(31)]) // MINUTE_US
    5
    >>> silent_after_us([0, MINUTE_US, 2 * MINUTE_US]), silent_after_us([])
    (None, None)
    >>> silent_after_us([9 * MINUTE_US * number for number in range(100)]) // MINUTE_US
    80
    """
    pauses = [after - before - MINUTE_US for before, after in pairwise(minutes)]
    if len(pauses) < FEWEST_PAUSES or minutes[-1] + MINUTE_US - minutes[0] < MEASURED_OVER_US:
        return None
    return max(SILENT_AFTER_US, round(PAUSES * median(pauses)))


def _check_silence(
    last_minute_us: int | None,
    since_us: int,
    until_us: int,
    silent_after_us: int | None,
    served_since_us: int | None,
) -> tuple[Verdict, str]:
    bound_us = UNMEASURED_US if silent_after_us is None else silent_after_us
    if last_minute_us is None:
        if served_since_us is None:
            return Verdict.INCONCLUSIVE, "No request has been counted yet."
        waited_us = until_us - served_since_us
        since = f"since the first version began to serve {span(waited_us / 1e6)} ago"
        verdict = Verdict.FAIL if waited_us > bound_us else Verdict.INCONCLUSIVE
        return verdict, f"No request has been counted {since}."
    silent_us = until_us - (last_minute_us + MINUTE_US)
    if silent_us > bound_us:
        explanation = (
            f"No request for {span(silent_us / 1e6)}; more than {span(max(MINUTE_US, bound_us) / 1e6)} of silence "
            "is unusual."
        )
        return Verdict.FAIL, explanation
    if silent_after_us is None and silent_us > SILENT_AFTER_US:
        return (
            Verdict.INCONCLUSIVE,
            f"The last request came {span(silent_us / 1e6)} ago; too few were counted to know the usual pause.",
        )
    if last_minute_us <= since_us - MINUTE_US:
        return Verdict.PASS, f"The last request came {span(silent_us / 1e6)} ago, no longer than usual."
    return Verdict.PASS, "Requests arrive."


def _rate(inside: Sequence[UsageRow], total: int, until_us: int) -> float:
    if not inside:
        return 0.0
    first_us = min(row.minute_start_us for row in inside)
    return total / (max(until_us - first_us, MINUTE_US) / 1e6)


def _version_usage(version: str, rows: Sequence[UsageRow], total: int) -> VersionUsage:
    processor, response = merge(row.latency for row in rows), merge(row.response for row in rows)
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
        failed=sum(count for kind, count in kinds.items() if kind not in CALLERS_FAULT),
        refused=sum(count for kind, count in kinds.items() if kind in CALLERS_FAULT),
        errors=tuple(ErrorKind(kind, count) for kind, count in sorted(kinds.items())),
        p50_seconds=quantile_seconds(response, 0.50),
        p95_seconds=quantile_seconds(response, 0.95),
        p99_seconds=quantile_seconds(response, 0.99),
        processor_p50_seconds=quantile_seconds(processor, 0.50),
        processor_p99_seconds=quantile_seconds(processor, 0.99),
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
