"""Prometheus metrics of a server: counters of the request path, and what one scrape returns.

Labels come only from facts of this process: its model, versions of its plans, arms, and the closed set `RESULTS`. No text of
a client becomes a label, so the number of series is bounded (R136 to R142).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from prometheus_client import PROCESS_COLLECTOR
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from holdfast.contract.row.compiler import list_reasons
from holdfast.monitor.traffic_record import TrafficComparison
from holdfast.rollout.evidence.shadow import HUNG, OK
from holdfast.serve.inference.loaded_model import LoadedVersion
from holdfast.serve.inference.request_errors import STEPS

RESULTS: Final = ("ok", "champion_failed", "malformed", "contract", "unavailable")
"""Results of a request: answered; answered by another version because the champion failed; not understood (HF508); against
the contract (HF502); no version could answer (HF503)."""

EDGES_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
SHED_REASONS: Final = ("small_queue", "medium_queue", "large_queue", "label_queue", "bodies")
"""Why a request was shed: the expected wait for its turn, by its kind; or the memory of the bodies that are being received."""
FAILURES: Final = ("exception", "contract", "wrong_shape", "not_a_probability", "not_finite")
"""Kinds of failures of a version for which another one answers."""
_OPENMETRICS: Final = "application/openmetrics-text"


@dataclass(slots=True)
class Histogram:
    """Counts by upper edge; the last is beyond every edge."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(EDGES_SECONDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(EDGES_SECONDS, seconds)] += 1
        self.total += seconds

    def copy(self) -> Histogram:
        """Return a copy that no longer counts."""
        return Histogram(list(self.counts), self.total)

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative counts by upper edge."""
        return list(zip((*map(repr, EDGES_SECONDS), "+Inf"), accumulate(self.counts), strict=True))


@dataclass(slots=True)
class Counters:
    """Counters of the request path. They belong to one thread."""

    requests: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Requests by version, arm and result."""
    predictions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Predicted rows by version and arm."""
    challenger_failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests that the champion answered for the challenger, by challenger and kind of failure."""
    violations: Counter[str] = field(default_factory=Counter)
    """Rows that broke the contract, and requests refused whole for their columns, by reason. A reason is
    "<column>|<rule>" of the contract."""
    unseen_words: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows with a word that the version has no code for, by version and column."""
    seconds: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    """Durations by version and arm."""
    shed: Counter[str] = field(default_factory=Counter)
    """Requests that were shed, by reason."""
    probes: int = 0
    labels: int = 0
    distant_events: int = 0
    """Requests whose event is more than a day from their arrival."""

    def begin(self, versions: Iterable[VersionFacts]) -> None:
        """Begin a series at 0 for every known label value, so that the increase of a first failure is seen.

        A copy of the counters is begun at each scrape: nothing on the request path knows of it.
        """
        for each in versions:
            name = each.loaded.name
            if each.role == "shadow":
                continue
            arm = each.role if each.role in ("champion", "challenger") else "fallback"
            for result in RESULTS:
                self.requests[name, arm, result] += 0
            self.predictions[name, arm] += 0
            for column in each.loaded.words:
                self.unseen_words[name, column] += 0
            self.seconds.setdefault((name, arm), Histogram())
            if each.role == "challenger":
                for kind in FAILURES:
                    self.challenger_failures[name, kind] += 0
            if each.role == "champion":
                for reason in list_reasons(each.loaded.contract):
                    self.violations[reason] += 0

    def count(self, version: str, arm: str, result: str, rows: int, seconds: float) -> None:
        """Count one request.

        Parameters
        ----------
        version, arm
            The version that is charged, and its arm.
        result
            One of `RESULTS`.
        rows
            Number of predicted rows; 0 if there is no prediction.
        seconds
            From the last byte of the request to its response.
        """
        self.requests[version, arm, result] += 1
        histogram = self.seconds.get((version, arm))
        if histogram is None:
            histogram = self.seconds[version, arm] = Histogram()
        histogram.observe(seconds)
        if rows > 0:
            self.predictions[version, arm] += rows

    def copy(self) -> Counters:
        """Return a copy that no longer counts, for another thread."""
        return Counters(
            self.requests.copy(),
            self.predictions.copy(),
            self.challenger_failures.copy(),
            self.violations.copy(),
            self.unseen_words.copy(),
            {arm: histogram.copy() for arm, histogram in self.seconds.items()},
            self.shed.copy(),
            self.probes,
            self.labels,
            self.distant_events,
        )


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """A loaded version, its role in the plan, and when this server first routed traffic to it (0: never)."""

    loaded: LoadedVersion
    role: str
    """champion, challenger, previous, fallback or shadow"""
    deployed_seconds: float

    @property
    def labels(self) -> tuple[str, str]:
        """Return the labels of each of its metrics."""
        return self.loaded.name, self.role


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Facts of the server at the time of a scrape. `*_seconds` are seconds since 1970."""

    model: str
    now_seconds: float
    values: Mapping[str, float]
    """By the names in `_SERVER`; 0 if absent."""
    versions: tuple[VersionFacts, ...] = ()
    comparison: TrafficComparison | None = None
    """The control loop's last comparison of traffic with training data."""
    shadow_results: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Finished copies by version and result."""
    shadow_dropped: Mapping[str, int] = field(default_factory=dict)
    """Copies that did not reach the shadow, by version."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """Errors of the server's own, by the step of the request that failed."""
    build: Mapping[str, str] = field(default_factory=dict)
    """The runtime's id and its facts."""


@dataclass(frozen=True, slots=True)
class ServerCollector(Collector):
    """The metrics of one scrape. `counters` is a copy, so that another thread may encode them."""

    facts: ServerFacts
    counters: Counters

    def collect(self) -> Iterable[Metric]:
        """Yield the families of the server, then those of the process."""
        facts = self.facts
        self.counters.begin(facts.versions)
        yield from _versions(facts)
        yield from _requests(facts.model, self.counters)
        yield from _server(facts, self.counters)
        yield from _shadow(facts)
        yield from _comparison(facts.model, facts.comparison)
        yield from PROCESS_COLLECTOR.collect()

    def encode(self, accept: bytes) -> tuple[bytes, bytes]:
        """Return the page and its content type.

        `accept` is the request's Accept header: OpenMetrics 1.0 if it names that, else the Prometheus text format.
        """
        # The header itself is not passed on: the library would echo parts of it in the content type.
        encoder, content_type = choose_encoder(
            _OPENMETRICS if _OPENMETRICS.encode() in accept.lower() else ""
        )
        return encoder(self), content_type.encode()


def _family(
    model: str,
    name: str,
    text: str,
    labels: tuple[str, ...],
    samples: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    """Return a counter if `name` ends in "_total", else a gauge; `samples` are values of `labels` with a number."""
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(f"holdfast_{name}", text, labels=("model", *labels))
    for values, number in samples:
        family.add_metric((model, *values), number)
    return family


def _versions(facts: ServerFacts) -> Iterable[Metric]:
    model, labels = facts.model, ("version", "role")
    yield _family(
        model, "model_info", "1 for each loaded version, labelled with its facts in the registry.",
        (*labels, "contract_hash", "features_hash", "snapshot", "learner"),
        [
            ((*each.labels, each.loaded.contract.hash, about.features_hash, about.snapshot, about.learner), 1)
            for each in facts.versions
            for about in [each.loaded.facts]
        ],
    )  # fmt: skip
    yield _family(
        model, "deployed_timestamp_seconds", "When this server first routed traffic to the version.", labels,
        [(each.labels, each.deployed_seconds) for each in facts.versions if each.deployed_seconds],
    )  # fmt: skip
    yield _family(
        model, "model_age_seconds", "Time since the version was trained.", labels,
        [(each.labels, facts.now_seconds - each.loaded.created_at_us / 1e6) for each in facts.versions],
    )  # fmt: skip


def _requests(model: str, counters: Counters) -> Iterable[Metric]:
    yield _family(
        model, "requests_total", "Inference requests by result.",
        ("version", "arm", "result"), counters.requests.items(),
    )  # fmt: skip
    yield _family(
        model, "predictions_total", "Predicted rows.", ("version", "arm"), counters.predictions.items()
    )
    yield _family(
        model, "challenger_failures_total", "Requests that the champion answered for the challenger.",
        ("version", "kind"), counters.challenger_failures.items(),
    )  # fmt: skip
    yield _family(
        model, "contract_violations_total",
        "Rows of requests that broke the contract, and requests refused whole for their columns, by reason.",
        ("reason",), [((reason,), number) for reason, number in counters.violations.items()],
    )  # fmt: skip
    yield _family(
        model, "unseen_words_total", "Predicted rows with a word that the version has no code for, by column.",
        ("version", "column"), counters.unseen_words.items(),
    )  # fmt: skip
    durations = HistogramMetricFamily(
        "holdfast_request_duration_seconds",
        "From the last byte of an inference request to its response.",
        labels=("model", "version", "arm"),
    )
    for arm, histogram in counters.seconds.items():
        durations.add_metric((model, *arm), histogram.buckets(), histogram.total)
    yield durations


_SERVER: Final = (
    ("probes_total", "Answered probe requests."),
    ("labels_received_total", "Labels that are on disk."),
    (
        "distant_events_total",
        "Requests whose event is more than a day from their arrival, by their caller's clock.",
    ),
    ("ready", "1 when the server takes requests."),
    ("traffic_plan", "Number of the active traffic plan."),
    ("challenger_share_ratio", "The challenger's share of the units."),
    ("traffic_plans_rejected_total", "Plans whose champion could not be verified or run."),
    ("versions_unavailable", "Versions of the plan that could not be loaded."),
    ("online_features_invalid_total", "Online features that are not finite numbers."),
    ("plan_follower_up", "1 while the thread that follows the plan runs."),
    (
        "name_conflict",
        "1 while another process has the name of this server, so that its log is not collected.",
    ),
    ("last_rollback_timestamp_seconds", "When traffic was last rolled back."),
    ("ledger_read_timestamp_seconds", "When the ledger was last read."),
    ("prediction_log_dropped_records_total", "Log records that could not be written."),
    ("prediction_log_sync_failures_total", "Failed fdatasync calls on the log."),
    ("open_connections", "Open connections."),
    ("connections_rejected_total", "Connections beyond the limit for which there was no room."),
    (
        "connections_evicted_total",
        "Connections that were closed to make room: the one idle longest, else the slowest.",
    ),
    ("shadow_queue_length", "Copies that wait for the shadow."),
    ("shadow_disabled", "1 when the shadow hung and gets no more copies."),
)


def _server(facts: ServerFacts, counters: Counters) -> Iterable[Metric]:
    values = {"probes_total": counters.probes, "labels_received_total": counters.labels, **facts.values}
    values["distant_events_total"] = counters.distant_events
    for name, text in _SERVER:
        yield _family(facts.model, name, text, (), [((), values.get(name, 0))])
    yield _family(
        facts.model, "requests_shed_total",
        "Requests that were refused because the server is overloaded, by reason; they are in no other count.",
        ("reason",), [((reason,), counters.shed[reason]) for reason in SHED_REASONS],
    )  # fmt: skip
    yield _family(
        facts.model, "request_errors_total",
        "Errors of the server's own in one request, by the step that failed; no other request is affected.",
        ("step",), [((step,), facts.errors.get(step, 0)) for step in STEPS],
    )  # fmt: skip
    yield _family(
        facts.model, "build_info", "1, labelled with the server's runtime.",
        tuple(facts.build), [(tuple(facts.build.values()), 1)],
    )  # fmt: skip


def _shadow(facts: ServerFacts) -> Iterable[Metric]:
    shadows = [each.loaded.name for each in facts.versions if each.role == "shadow"]
    results = {(name, result): 0 for name in shadows for result in (OK, *FAILURES, HUNG)} | dict(
        facts.shadow_results
    )
    dropped = dict.fromkeys(shadows, 0) | dict(facts.shadow_dropped)
    yield _family(
        facts.model, "shadow_requests_total", "Copies of requests that a shadow finished, by result.",
        ("version", "result"), results.items(),
    )  # fmt: skip
    yield _family(
        facts.model, "shadow_dropped_total", "Copies that came when the queue was full or the shadow disabled.",
        ("version",), [((version,), number) for version, number in dropped.items()],
    )  # fmt: skip


def _comparison(model: str, comparison: TrafficComparison | None) -> Iterable[Metric]:
    # A column is a label, a value of it is not: values come from callers.
    version = "" if comparison is None else comparison.version
    shares: dict[str, list[float]] = (
        {} if comparison is None else {each.column: [] for each in comparison.slices}
    )
    positives: dict[str, float] = {}
    if comparison is not None:
        for each in comparison.uncovered:
            shares[each.column].append(each.share)
        if (label := comparison.label) is not None:
            positives = {"trained": label.trained, "estimated": label.estimate.estimate}
            positives |= {} if label.seen is None else {"seen": label.seen.estimate}
    yield _family(
        model, "unseen_slice_values", "Values of a slice that requests have and no training row had.",
        ("version", "column"), [((version, column), len(shares[column])) for column in sorted(shares)],
    )  # fmt: skip
    yield _family(
        model, "unseen_slice_share_ratio", "The share of the newest predictions that has such a value.",
        ("version", "column"), [((version, column), sum(shares[column], 0.0)) for column in sorted(shares)],
    )  # fmt: skip
    yield _family(
        model, "positive_label_ratio",
        "Share of positive labels: in the training rows, and of the newest predictions as estimated and as seen.",
        ("version", "of"), [((version, of), share) for of, share in positives.items()],
    )  # fmt: skip
    yield _family(
        model, "training_comparison_timestamp_seconds",
        "When the newest predictions were last compared with the training data.",
        ("version",), [] if comparison is None else [((version,), comparison.computed_at_us / 1e6)],
    )  # fmt: skip
