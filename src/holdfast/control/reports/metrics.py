"""Prometheus metrics of a model's quality, feeds, rollout and drills: what the control loop and the page expose.

Every known label value has a series from the start, so that an increase to the first failure is seen. No text that a caller
brings becomes a label, and of a slice only values that training rows had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from prometheus_client import PROCESS_COLLECTOR
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.control.loop import Concern
from holdfast.control.reports.status import Status
from holdfast.errors import HoldfastError
from holdfast.feeds.state_machine import State as FeedState
from holdfast.monitor.drift import JUDGED
from holdfast.records import PROBLEMS, Verdict
from holdfast.rollout import State as RolloutState
from holdfast.store import Store
from holdfast.store.db.leases import Lease

Samples = Iterable[tuple[tuple[str, ...], float]]


@dataclass(slots=True, eq=False)
class LoopCounters:
    """What the control loop has done since it started."""

    failures: dict[str, int] = field(default_factory=dict)
    last_round_seconds: float = 0.0

    def count(self, concerns: Mapping[str, Concern]) -> dict[str, Concern]:
        """Return `concerns`, each of which counts its failures here; the last one records the round."""
        self.failures |= dict.fromkeys(concerns, 0)
        counted: dict[str, Concern] = {
            name: partial(self._call, name, each) for name, each in concerns.items()
        }
        counted["counting the round"] = self._end_round
        return counted

    def _call(
        self, name: str, concern: Concern, store: Store, model: str, lease: Lease, *, now_us: int
    ) -> None:
        try:
            concern(store, model, lease, now_us=now_us)
        except Exception:
            self.failures[name] += 1
            raise

    def _end_round(self, _store: Store, _model: str, _lease: Lease, *, now_us: int) -> None:
        self.last_round_seconds = now_us / 1e6


@dataclass(frozen=True, slots=True)
class StatusCollector(Collector):
    """The metrics of one scrape; `read` returns the status at that time. `loop` is None on the page."""

    model: str
    read: Callable[[], Status]
    loop: LoopCounters | None = None

    def collect(self) -> Iterable[Metric]:
        """Yield the families of the model, of the loop, and of the process."""
        try:
            status = self.read()
        except HoldfastError:  # a ledger that cannot be read is a metric, and no failed scrape
            status = None
        yield _family(
            self.model, "ledger_up", "1 when the ledger could be read.", (), [((), status is not None)]
        )
        if status is not None:
            yield from _of_status(status)
        if self.loop is not None:
            yield _family(
                self.model, "control_failures_total", "Failed steps of the control loop, by what it did.",
                ("concern",), [((name,), number) for name, number in self.loop.failures.items()],
            )  # fmt: skip
            yield _family(
                self.model, "control_round_timestamp_seconds", "When the control loop last ended a round with its lease.",
                (), [((), self.loop.last_round_seconds)],
            )  # fmt: skip
        yield from PROCESS_COLLECTOR.collect()


def _family(model: str, name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(f"holdfast_{name}", text, labels=("model", *labels))
    for values, number in samples:
        family.add_metric((model, *values), float(number))
    return family


def _of_status(status: Status) -> Iterable[Metric]:
    family = partial(_family, status.model)
    yield from _of_health(status, family)
    yield from _of_quality(status, family)
    yield from _of_feeds(status, family)
    yield from _of_rollout(status, family)


_Family = Callable[[str, str, tuple[str, ...], Samples], Metric]


def _of_health(status: Status, family: _Family) -> Iterable[Metric]:
    found = {problem.kind for problem in status.health.problems}
    yield family("healthy", "1 when nothing needs attention.", (), [((), status.health.is_healthy)])
    yield family(
        "problem", "1 for each kind of problem that the model has now.", ("kind",),
        [((kind,), kind in found) for kind in PROBLEMS],
    )  # fmt: skip
    yield family(
        "champion_tainted", "1 when the champion was trained on backed-out rows.", (),
        [((), status.last_resort is not None)],
    )  # fmt: skip
    yield family(
        "servers", "Servers in each state: see `holdfast servers`; those of earlier releases are unknown.", ("state",),
        [((state,), number) for state, number in status.members.items()],
    )  # fmt: skip
    yield family(
        "server_name_conflicts", "Living processes that state the name of another server (HF304).", (),
        [((), status.name_conflicts)],
    )  # fmt: skip
    last_us = max((each.minute_start_us for each in status.use.minutes), default=0)
    yield family(
        "last_request_timestamp_seconds", "The newest minute of the last hour with a request; 0 without one.", (),
        [((), last_us / 1e6)],
    )  # fmt: skip


def _of_quality(status: Status, family: _Family) -> Iterable[Metric]:
    # With labels that take longer than a version serves, only versions that have no place any more have labels.
    placed = [each for each in status.versions if each.place or each.predictions]
    yield family(
        "auc", "AUC of the labelled predictions of the last 60 days, and of the label's delay before.", ("version", "place"),
        [((each.version, each.place), each.auc) for each in placed if each.auc is not None],
    )  # fmt: skip
    yield family(
        "brier_score", "Brier score of the labelled predictions of the last 60 days, and of the label's delay before.",
        ("version", "place"),
        [((each.version, each.place), each.quality.brier.estimate) for each in placed if each.quality.brier is not None],
    )  # fmt: skip
    yield from _of_slices(status, family, {each.version: each.place for each in placed})
    yield family(
        "objective_missed", "1 when the champion surely misses its objective, by the labels of four weeks.", (),
        [((), status.objective is not None and status.objective.verdict is Verdict.FAIL)],
    )  # fmt: skip
    yield family(
        "predictions", "Rows predicted in the last 60 days, and in the label's delay before.", ("version", "place"),
        [((each.version, each.place), each.predictions) for each in placed],
    )  # fmt: skip
    yield family(
        "labelled_predictions", "Those of them that have a label.", ("version", "place"),
        [((each.version, each.place), each.labelled) for each in placed],
    )  # fmt: skip
    yield family(
        "distant_events", "Labelled predictions whose event is more than a day from its arrival.", (),
        [((), status.distant_events.labelled)],
    )  # fmt: skip
    yield family(
        "labels_quarantined", "Labels in quarantine (holdfast labels quarantined).", (),
        [((), status.labels.quarantined)],
    )  # fmt: skip
    yield family(
        "labels_rejected_total", "Labels that contradict another or name no prediction.", (),
        [((), status.labels.rejected_labels)],
    )  # fmt: skip


def _of_slices(status: Status, family: _Family, places: Mapping[str, str]) -> Iterable[Metric]:
    """Yield quality by slice: values that training rows had, at most `MOST_VALUES` a column, and the others as one."""
    labels = ("version", "place", "column", "value")
    rows = [
        ((each.version, places[each.version], each.column, each.value), each.quality)
        for each in status.slices
        if places.get(each.version)
    ]
    yield family(
        "slice_auc", "AUC of the labelled predictions of a slice; no series while it is inconclusive.", labels,
        [(key, quality.auc.estimate) for key, quality in rows if quality.auc is not None],
    )  # fmt: skip
    yield family(
        "slice_brier_score", "Brier score of the labelled predictions of a slice.", labels,
        [(key, quality.brier.estimate) for key, quality in rows if quality.brier is not None],
    )  # fmt: skip
    yield family(
        "slice_labelled_predictions", "Labelled predictions of a slice.", labels,
        [(key, quality.rows) for key, quality in rows],
    )  # fmt: skip


def _of_feeds(status: Status, family: _Family) -> Iterable[Metric]:
    states = {row.feed: row.state for row in status.feed_states}
    yield family(
        "feed_state", "1 for the state that the feed is in.", ("feed", "state"),
        [((feed, each), each is state) for feed, state in states.items() for each in FeedState],
    )  # fmt: skip
    yield family(
        "feed_overdue_seconds", "How long the next batch is overdue by what the feed expects; 0 when it is not.", ("feed",),
        [((feed,), status.overdue_us.get(feed, 0) / 1e6) for feed in sorted({*states, *status.overdue_us})],
    )  # fmt: skip
    yield family(
        "feed_drift_judged", "1 when the drift of the next batch is judged; 0 while too few batches are loaded.", ("feed",),
        [((feed,), judged == JUDGED) for feed, judged in status.drift.items()],
    )  # fmt: skip
    loaded = [each for each in status.feeds if each.newest_load_at_us is not None]
    yield family(
        "feed_newest_load_timestamp_seconds", "When the newest batch was loaded, by our own clock.", ("feed",),
        [((each.feed,), (each.newest_load_at_us or 0) / 1e6) for each in loaded],
    )  # fmt: skip
    yield family(
        "feed_newest_load_age_seconds", "How long ago that was.", ("feed",),
        [((each.feed,), (status.now_us - (each.newest_load_at_us or 0)) / 1e6) for each in loaded],
    )  # fmt: skip


def _of_rollout(status: Status, family: _Family) -> Iterable[Metric]:
    run = status.running
    yield family(
        "rollout_state", "1 for the state of the rollout that is under way; all 0 without one.", ("state",),
        [((each,), run is not None and run.state == each) for each in RolloutState],
    )  # fmt: skip
    yield family(
        "rollout_stalled", "1 when the rollout ends inconclusive as it goes on.", (),
        [((), status.progress is not None and status.progress.is_stalled)],
    )  # fmt: skip
    failed = status.failed_gates
    yield family(
        "failed_gates", "Gates that the newest candidate failed; 0 for one that has traffic.", ("version",),
        [] if failed is None else [((failed.version,), len(failed.gates))],
    )  # fmt: skip
    yield family(
        "drill_valid", "1 when the drill has passed and is still valid.", ("kind",),
        [((each.kind,), each.ready) for each in status.drills],
    )  # fmt: skip
    yield family(
        "drill_expires_timestamp_seconds", "Until when the last passed drill is valid.", ("kind",),
        [((each.kind,), each.until_us / 1e6) for each in status.drills if each.until_us is not None],
    )  # fmt: skip
