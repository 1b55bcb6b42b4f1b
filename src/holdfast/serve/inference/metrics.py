"""What Prometheus scrapes: the text exposition format 0.0.4, base units.

Labels are made only from facts that this process decided: its model, the versions of its plans, the arms, and the closed
set `RESULTS`. Nothing that a client sends becomes a label, so the number of series is bounded (R136 to R142).
"""

from __future__ import annotations

import os
import resource
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from holdfast.monitor.traffic_comparison import Asked

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

RESULTS: Final = ("ok", "champion_failed", "malformed", "contract", "unavailable")
"""What can become of a request: answered; answered by another version because the champion failed; not understood (HF501);
against the contract (HF502); nobody could answer (HF503)."""

EDGES_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Histogram:
    """Counts by upper edge; the last is beyond every edge."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(EDGES_SECONDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(EDGES_SECONDS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Counters:
    """What the request path counts. It belongs to one thread."""

    requests: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By version, arm and result."""
    predictions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Answered rows by version and arm."""
    challenger_failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests that the champion answered for the challenger, by challenger and kind."""
    violations: Counter[str] = field(default_factory=Counter)
    """Rows against the contract, and requests that were refused as a whole for their columns, by reason; reasons come from
    the contract, "<column>|<rule>"."""
    seconds: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    probes: int = 0
    feedback: int = 0

    def count(self, version: str, arm: str, result: str, rows: int, seconds: float) -> None:
        """Count one request."""
        self.requests[version, arm, result] += 1
        histogram = self.seconds.get((version, arm))
        if histogram is None:
            histogram = self.seconds[version, arm] = Histogram()
        histogram.observe(seconds)
        if rows > 0:
            self.predictions[version, arm] += rows


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What is known of a version that is warm."""

    version: str
    role: str
    """champion, challenger, previous or fallback"""
    trained_seconds: float
    """When it was trained, seconds since 1970."""
    deployed_seconds: float
    """When this server first gave it traffic, seconds since 1970; 0 when never."""
    labels: Mapping[str, str]
    """Facts of the registry that join the metrics with its record: contract and feature hash, snapshot, learner."""


@dataclass(frozen=True, slots=True)
class ShadowFacts:
    """What became of the copies of requests."""

    results: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Copies that were answered, by version and result."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Copies that no shadow was given, by version."""
    waiting: int = 0
    off: bool = False
    """Whether the shadow hung and gets no copies any more."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server knows of itself at the moment of a scrape."""

    model: str
    now_seconds: float
    plan: int
    share_ppm: int
    ready: bool
    versions: tuple[VersionFacts, ...]
    last_rollback_seconds: float
    ledger_read_seconds: float
    """When the ledger was last read, seconds since 1970; 0 when never."""
    following: bool
    """Whether the thread that follows the plan runs."""
    plans_refused: int
    versions_left_out: int
    unusable_values: int
    log_dropped: int
    log_failed_syncs: int
    connections: int
    refused_connections: int
    started_seconds: float
    asked: Asked | None = None
    """The last comparison of what callers ask the champion with what it learnt from, as the control loop made it."""
    shadow: ShadowFacts = field(default_factory=ShadowFacts)
    build: Mapping[str, str] = field(default_factory=dict)
    """The binary's id and its facts."""


def exposition(facts: ServerFacts, counters: Counters) -> bytes:
    """The whole page."""
    page = _Page()
    model = {"model": facts.model}
    _versions(page, facts)
    page.family("holdfast_requests_total", "counter", "Inference requests by what became of them.")
    for (version, arm, result), number in counters.requests.items():
        page.sample(
            "holdfast_requests_total", {**model, "version": version, "arm": arm, "result": result}, number
        )
    page.family("holdfast_predictions_total", "counter", "Rows answered.")
    for (version, arm), number in counters.predictions.items():
        page.sample("holdfast_predictions_total", {**model, "version": version, "arm": arm}, number)
    page.family(
        "holdfast_challenger_failures_total",
        "counter",
        "Requests that the champion answered for the challenger.",
    )
    for (version, kind), number in counters.challenger_failures.items():
        page.sample("holdfast_challenger_failures_total", {**model, "version": version, "kind": kind}, number)
    page.family(
        "holdfast_contract_violations_total",
        "counter",
        "Rows of requests that broke the contract, and requests refused whole for their columns, by reason.",
    )
    for reason, number in counters.violations.items():
        page.sample("holdfast_contract_violations_total", {**model, "reason": reason}, number)
    _histogram(page, model, counters.seconds)
    for name, kind, value, text in (
        ("holdfast_probes_total", "counter", counters.probes, "Probe requests answered."),
        ("holdfast_feedback_total", "counter", counters.feedback, "Labels and ratings taken durably."),
        ("holdfast_ready", "gauge", int(facts.ready), "1 when the server takes requests."),
        ("holdfast_plan", "gauge", facts.plan, "The traffic plan that the server follows."),
        ("holdfast_challenger_share_ratio", "gauge", facts.share_ppm / 1e6, "The challenger's share of the units."),
        ("holdfast_plans_refused_total", "counter", facts.plans_refused, "Plans whose versions could not be verified or run."),
        ("holdfast_versions_left_out", "gauge", facts.versions_left_out, "Versions of the plan that could not be made warm."),
        ("holdfast_online_values_left_out_total", "counter", facts.unusable_values, "Online values that are no finite number."),
        ("holdfast_follower_alive", "gauge", int(facts.following), "1 while the thread that follows the plan runs."),
        ("holdfast_last_rollback_timestamp_seconds", "gauge", facts.last_rollback_seconds, "When traffic last returned."),
        ("holdfast_ledger_read_timestamp_seconds", "gauge", facts.ledger_read_seconds, "When the ledger was last read."),
        ("holdfast_log_dropped_records_total", "counter", facts.log_dropped, "Log records that could not be written."),
        ("holdfast_log_failed_syncs_total", "counter", facts.log_failed_syncs, "fdatasync calls on the log that failed."),
        ("holdfast_connections", "gauge", facts.connections, "Open connections."),
        ("holdfast_refused_connections_total", "counter", facts.refused_connections, "Connections beyond the limit."),
    ):  # fmt: skip
        page.family(name, kind, text)
        page.sample(name, model, value)
    _shadow(page, model, facts.shadow)
    _asked(page, facts.model, facts.asked)
    page.family(
        "holdfast_build_info", "gauge", "1, with the binary that this server is, and the releases in it."
    )
    page.sample("holdfast_build_info", {**model, **facts.build}, 1)
    _process(page, facts.started_seconds)
    return page.encoded()


def _versions(page: _Page, facts: ServerFacts) -> None:
    page.family(
        "holdfast_model_info", "gauge", "1 for each version that is warm, with what the registry knows of it."
    )
    for each in facts.versions:
        page.sample(
            "holdfast_model_info",
            {"model": facts.model, "version": each.version, "arm": each.role, **each.labels},
            1,
        )
    page.family(
        "holdfast_deployed_timestamp_seconds", "gauge", "When this server first gave the version traffic."
    )
    for each in facts.versions:
        if each.deployed_seconds:
            labels = {"model": facts.model, "version": each.version, "arm": each.role}
            page.sample("holdfast_deployed_timestamp_seconds", labels, each.deployed_seconds)
    page.family("holdfast_model_age_seconds", "gauge", "Time since the version was trained.")
    for each in facts.versions:
        labels = {"model": facts.model, "version": each.version, "arm": each.role}
        page.sample("holdfast_model_age_seconds", labels, facts.now_seconds - each.trained_seconds)


def _shadow(page: _Page, model: dict[str, str], shadow: ShadowFacts) -> None:
    name = "holdfast_shadow_copies_total"
    page.family(
        name, "counter", "Copies of requests that a shadow answered or failed, by what became of them."
    )
    for (version, result), number in shadow.results.items():
        page.sample(name, {**model, "version": version, "result": result}, number)
    name = "holdfast_shadow_dropped_total"
    page.family(
        name, "counter", "Copies that did not fit into the queue, or came when the shadow was switched off."
    )
    for version, number in shadow.dropped.items():
        page.sample(name, {**model, "version": version}, number)
    page.family("holdfast_shadow_waiting", "gauge", "Copies that wait for the shadow.")
    page.sample("holdfast_shadow_waiting", model, shadow.waiting)
    page.family(
        "holdfast_shadow_off", "gauge", "1 when the shadow did not come back and gets no copies any more."
    )
    page.sample("holdfast_shadow_off", model, int(shadow.off))


def _asked(page: _Page, model: str, asked: Asked | None) -> None:
    """Values of slices are what callers sent, so columns become labels and values do not."""
    labels = {"model": model, "version": "" if asked is None else asked.version}
    missing = () if asked is None else asked.uncovered
    columns = () if asked is None else sorted({each.column for each in asked.slices})
    name = "holdfast_uncovered_slices"
    page.family(name, "gauge", "Values of a slice that callers ask about and no training row had.")
    for column in columns:
        page.sample(name, {**labels, "column": column}, sum(each.column == column for each in missing))
    name = "holdfast_uncovered_share_ratio"
    page.family(name, "gauge", "The share of the newest answers that those values have.")
    for column in columns:
        share = sum((each.share for each in missing if each.column == column), 0.0)
        page.sample(name, {**labels, "column": column}, share)
    name = "holdfast_label_share_ratio"
    page.family(
        name, "gauge", "Share of positive labels: trained, and of the newest answers estimated and seen."
    )
    if asked is not None and asked.label is not None:
        found = asked.label
        shares = {"trained": found.trained, "estimated": found.estimate.estimate}
        shares |= {} if found.seen is None else {"seen": found.seen.estimate}
        for kind, share in shares.items():
            page.sample(name, {**labels, "of": kind}, share)
    name = "holdfast_compared_timestamp_seconds"
    page.family(name, "gauge", "When the newest answers were last compared with what taught.")
    if asked is not None:
        page.sample(name, labels, asked.computed_us / 1e6)


def _histogram(page: _Page, model: dict[str, str], seconds: Mapping[tuple[str, str], Histogram]) -> None:
    name = "holdfast_request_seconds"
    page.family(name, "histogram", "From the last byte of an inference request to its reply.")
    for (version, arm), histogram in seconds.items():
        labels = {**model, "version": version, "arm": arm}
        running = 0
        for edge, count in zip((*map(repr, EDGES_SECONDS), "+Inf"), histogram.counts, strict=True):
            running += count
            page.sample(f"{name}_bucket", {**labels, "le": edge}, running)
        page.sample(f"{name}_sum", labels, histogram.total)
        page.sample(f"{name}_count", labels, running)


def _process(page: _Page, started_seconds: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    rows: list[tuple[str, str, float, str]] = [
        ("process_cpu_seconds_total", "counter", used.ru_utime + used.ru_stime, "User and system time."),
        (
            "process_start_time_seconds",
            "gauge",
            started_seconds,
            "When the process began, seconds since 1970.",
        ),
        (
            "process_max_fds",
            "gauge",
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "How many descriptors it may open.",
        ),
    ]
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  (a scrape is no place for path objects)
            virtual, resident = (int(pages) * _PAGE_BYTES for pages in file.read().split()[:2])
        rows += [
            ("process_resident_memory_bytes", "gauge", resident, "Memory in use."),
            ("process_virtual_memory_bytes", "gauge", virtual, "Address space."),
            ("process_open_fds", "gauge", len(os.listdir("/proc/self/fd")), "Open descriptors."),  # noqa: PTH208
        ]
    except OSError:
        rows.append(
            ("process_resident_memory_bytes", "gauge", used.ru_maxrss * 1024, "Most memory used so far.")
        )
    for name, kind, value, text in rows:
        page.family(name, kind, text)
        page.sample(name, {}, value)


class _Page:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, text: str) -> None:
        self._lines += (f"# HELP {name} {text}", f"# TYPE {name} {kind}")

    def sample(self, name: str, labels: Mapping[str, str], value: float) -> None:
        number = repr(value)
        self._lines.append(f"{name}{{{_labels(labels.items())}}} {number}" if labels else f"{name} {number}")

    def encoded(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode()


def _labels(labels: Iterable[tuple[str, str]]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
