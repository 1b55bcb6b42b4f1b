"""Status of one model: what `holdfast status --json` prints and the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from holdfast.control.health.facts import FactsReader
from holdfast.control.health.servers import ServerStatus, server_statuses
from holdfast.control.reports.rollout_status import RolloutStatus, rollout_status
from holdfast.control.rollout.progress import RolloutProgress, progress
from holdfast.control.rollout.start import last_dropped
from holdfast.feeds import Feed
from holdfast.monitor.chance import FEWEST_BATCHES, FEWEST_ROWS
from holdfast.monitor.drift import JUDGED, why_not_judged
from holdfast.monitor.health import FailedGates, Health, judge_health
from holdfast.monitor.quality import (
    Coverage,
    DistantEvents,
    Quality,
    QualityDay,
    coverage,
    distant_events,
    quality_by_version,
    quality_over_time,
    share_labelled,
)
from holdfast.monitor.slice_quality import SliceQuality, quality_by_slice
from holdfast.monitor.traffic_record import TrafficComparison
from holdfast.monitor.usage import Usage
from holdfast.monitor.version_check import Presence, worst
from holdfast.qualify import GateResult, Objective, ObjectiveComparison
from holdfast.records import DAY_US, TrafficPlan
from holdfast.rollout import State
from holdfast.rollout.model.drills import DrillKind, Standing, ready
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.catalog import batches
from holdfast.store.catalog.batches import FeedTotals
from holdfast.store.db import events
from holdfast.store.db.events import EventRow
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import admissions, violations
from holdfast.store.feeds.admissions import FeedRow
from holdfast.store.feeds.violations import ViolationRow
from holdfast.store.models import gate_results as gates
from holdfast.store.models import versions
from holdfast.store.models.versions import VersionRow
from holdfast.store.rollout import drills, queue, rollouts, traffic_plans, webhooks
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.serving import members
from holdfast.store.telemetry import (
    collected_log,
    labels,
    outcome_slices,
    outcomes,
    quarantined_labels,
    request_counts,
    traffic_comparison,
)
from holdfast.store.telemetry.quarantined_labels import QuarantinedLabel
from holdfast.tables.data_incident import DataIncident

QUALITY_DAYS: Final = 60
"""How many UTC days of predictions, up to today by our own clock, the quality and the coverage are of.

The label's delay is added to them, because younger predictions have no label.
"""

_UNKNOWN: Final = Quality(0, 0, None, None, None, None)

__all__ = ["RolloutProgress", "RolloutStatus", "Status", "StatusReader", "status"]

NEWEST_EVENTS: Final = 30
NEWEST_VIOLATIONS: Final = 30
NEWEST_QUARANTINED: Final = 10
NEWEST_ROLLOUTS: Final = 8


@dataclass(frozen=True, slots=True)
class PlanStatus:
    """The traffic plan that servers must follow. `share_ppm` is the challenger's share, parts per million."""

    plan_id: int
    champion: str
    challenger: str | None
    share_ppm: int
    previous: str | None
    fallback: str | None
    rollout_id: int | None
    committed_at_us: int


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version: its place in the plan, its gates, and its quality.

    `quality` is that of the `labelled` among the `predictions`, rows that it predicted in the last `QUALITY_DAYS`;
    `coverage` is the share of these that have a label, None without one. `requests` are all since the ledger began.
    `auc` is None without labels; `taint` names the backed-out batch that it was trained on, empty for a clean version.
    """

    version: str
    number: int
    role: str
    state: str
    place: str
    learner: str
    created_at_us: int
    bytes: int
    gates: tuple[GateResult, ...]
    auc: float | None
    labelled: int
    predictions: int
    coverage: float | None
    requests: int
    quality: Quality
    taint: str = ""


@dataclass(frozen=True, slots=True)
class LabelStatus:
    """Counts of labels of the model: received, waiting for their predictions, rejected or quarantined so far, in quarantine."""

    taken: int
    waiting: int
    rejected_labels: int
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """The status of one model at `now_us`. `waiting_webhooks` are the webhooks that the running rollout waits for.

    `slices` is the quality by slice of the contract and version, over the days of `coverage`.
    `overdue_us` is how long the next batch of a feed is overdue, for each whose batch is. `drift` has each feed that expects
    its drift to be judged: "judged" if its next batch will be, else why not, such as "not judged, 2 of 8 batches".
    `failed_gates` are those of the
    newest candidate, None without one. `objective` is how the champion compares with the declared objective, None without
    an objective or enough labels.
    """

    model: str
    now_us: int
    plan: PlanStatus | None
    presence: Presence
    servers: tuple[ServerStatus, ...]
    use: Usage
    versions: tuple[VersionStatus, ...]
    rollouts: tuple[RolloutStatus, ...]
    progress: RolloutProgress | None
    quality: tuple[QualityDay, ...]
    coverage: Coverage
    distant_events: DistantEvents
    slices: tuple[SliceQuality, ...]
    labels: LabelStatus
    feeds: tuple[FeedTotals, ...]
    feed_states: tuple[FeedRow, ...]
    violations: tuple[ViolationRow, ...]
    traffic_comparison: TrafficComparison | None
    drills: tuple[Standing, ...]
    events: tuple[EventRow, ...]
    health: Health
    overdue_us: dict[str, int]
    drift: dict[str, str]
    waiting_webhooks: tuple[str, ...] = ()
    failed_gates: FailedGates | None = None
    objective: ObjectiveComparison | None = None
    data_incidents: tuple[DataIncident, ...] = ()
    quarantined_labels: tuple[QuarantinedLabel, ...] = ()
    members: dict[str, int] = field(default_factory=dict)
    """How many servers are in each state of a member, with those of earlier releases as `unknown`."""
    queued: str | None = None
    """The version that is rolled out when the rollout under way ends; None without one."""
    dropped: str = ""
    """The queued version that was dropped last, and why; empty if a rollout was requested since."""
    name_conflicts: int = 0
    """How many processes state the name of another server."""

    @property
    def last_resort(self) -> VersionStatus | None:
        """Return the champion if it is tainted: it serves because no clean version can."""
        return next((each for each in self.versions if each.place == "champion" and each.taint), None)

    @property
    def running(self) -> RolloutStatus | None:
        """Return the rollout that is under way; None without one."""
        return next((each for each in self.rollouts if each.running), None)


def status(
    store: Store,
    model: str,
    *,
    feeds: Sequence[Feed] = (),
    label_delay: timedelta = timedelta(0),
    objective: Objective | None = None,
    recover_within: timedelta | None = None,
    silent_after: timedelta | None = None,
    now_us: int,
) -> dict[str, Any]:
    """Return the status of `model` at `now_us` as a JSON document. Parameters are those of `StatusReader`."""
    return asdict(
        StatusReader(store, model, feeds, label_delay, objective, recover_within, silent_after).read(
            now_us=now_us
        )
    )


class StatusReader:
    """Reads the status repeatedly; quality is computed only when there are new labels.

    Parameters
    ----------
    store, model
        The store, and the model.
    feeds
        The declared feeds: what they expect states when the next batch is overdue.
    label_delay
        The duration from an event until its label is known.
    objective
        The declared objective; None if none is declared.
    recover_within
        The declared bound of a data incident; None for none.
    silent_after
        The declared silence after which a model counts as not used; None derives it from its requests.
    """

    def __init__(
        self,
        store: Store,
        model: str,
        feeds: Sequence[Feed] = (),
        label_delay: timedelta = timedelta(0),
        objective: Objective | None = None,
        recover_within: timedelta | None = None,
        silent_after: timedelta | None = None,
    ) -> None:
        self._store = store
        self._model = model
        self._feeds = feeds
        self._facts = FactsReader(store, model, feeds, label_delay, objective, recover_within, silent_after)
        self._label_delay_us = label_delay // timedelta(microseconds=1)
        self._computed: tuple[int, int, int] | None = None
        self._days: tuple[QualityDay, ...] = ()
        self._versions: dict[str, Quality] = {}
        self._distant = DistantEvents(0, _UNKNOWN)
        self._slices: tuple[SliceQuality, ...] = ()

    def read(self, *, now_us: int) -> Status:
        """Return the status at `now_us`."""
        found = self._read(now_us)
        facts = self._facts.read(now_us=now_us)
        champion = next((row for row in found.versions if row.place == "champion"), None)
        return replace(
            found,
            health=judge_health(replace(facts, quality=_quality_text(champion))),
            overdue_us={each.feed: each.overdue_us for each in facts.feeds if each.overdue_us is not None},
            failed_gates=facts.failed_gates,
            objective=self._facts.comparison,
            data_incidents=tuple(self._facts.incidents),
        )

    def _read(self, now_us: int) -> Status:
        model = self._model
        with self._store.ledger.read() as connection:
            newest = traffic_plans.newest_committed(connection, model)
            plan = None if newest is None else newest.plan
            probed = server_statuses(connection, model, plan)
            known = versions.of_model(connection, model)
            drilled = drills.of_model(connection, model)
            runs = rollouts.of_model(connection, model)
            requests = request_counts.requests_by_version(connection, model)
            since_us = ((now_us - self._label_delay_us) // DAY_US - QUALITY_DAYS + 1) * DAY_US
            self._judge_quality(connection, since_us)
            predicted = request_counts.predicted_rows(connection, model, since_us=since_us)
            spoilt = {
                version: taints.why(connection, "version", version)
                for version in taints.versions_of(connection, model)
            }
            queued = queue.find(connection, model)
            return Status(
                model=model,
                now_us=now_us,
                plan=None if newest is None else _plan(newest.plan, newest.committed_at_us),
                presence=_presence(plan, probed, runs, known, now_us),
                servers=probed,
                use=self._facts.read_usage(connection, now_us),
                versions=tuple(
                    _version(
                        row,
                        plan,
                        gates.newest(connection, row.version),
                        self._versions.get(row.version, _UNKNOWN),
                        predicted.get(row.version, 0),
                        requests,
                        spoilt,
                    )
                    for row in known
                ),
                rollouts=tuple(rollout_status(connection, row) for row in runs[:NEWEST_ROLLOUTS]),
                progress=progress(connection, model, now_us),
                queued=None if queued is None else queued.version,
                dropped=last_dropped(connection, model),
                quality=self._days,
                coverage=coverage(
                    sum(each.rows for each in self._versions.values()),
                    sum(predicted.values()),
                    since_us=since_us,
                ),
                distant_events=self._distant,
                slices=self._slices,
                labels=LabelStatus(
                    *labels.count(connection, model),
                    collected_log.totals(connection, model).rejected_labels,
                    quarantined_labels.count(connection, model),
                ),
                quarantined_labels=tuple(
                    quarantined_labels.newest(connection, model, limit=NEWEST_QUARANTINED)
                ),
                feeds=batches.totals(connection),
                feed_states=tuple(admissions.feed_rows(connection)),
                violations=tuple(violations.open_ones(connection, limit=NEWEST_VIOLATIONS)),
                traffic_comparison=traffic_comparison.last(connection, model),
                drills=tuple(ready(drilled, kind, now_us) for kind in DrillKind),
                events=tuple(events.newest(connection, limit=NEWEST_EVENTS)),
                health=Health(False, "", ()),
                overdue_us={},
                members=members.count(connection, model),
                name_conflicts=len(members.conflicts(connection, model)),
                drift=_drift(connection, self._feeds),
                waiting_webhooks=tuple(
                    f"{each.webhook}, called before {each.event}: {each.explanation}"
                    for each in webhooks.open_questions(connection, model)
                ),
            )

    def _judge_quality(self, connection: Transaction, since_us: int) -> None:
        # Computed again when a label is joined, corrected or withdrawn, and when the window moves: once a day.
        current = *outcomes.newest_change(connection, self._model), since_us
        if current == self._computed:
            return
        found = outcomes.of_model(connection, self._model, since_us=since_us)
        self._days = quality_over_time(found)
        self._versions = quality_by_version(found)
        self._distant = distant_events(found)
        sliced = outcome_slices.of_model(connection, self._model, since_us=since_us)
        trained = outcome_slices.trained_values(connection, self._model)
        self._slices = quality_by_slice(sliced.outcomes, sliced.values, trained)
        self._computed = current


def _drift(connection: Transaction, feeds: Sequence[Feed]) -> dict[str, str]:
    """Return, by feed that expects its drift to be judged, whether that of the next batch of enough rows will be."""
    found = {
        feed.name: why_not_judged(
            FEWEST_ROWS, admissions.count_profiles(connection, feed.name, FEWEST_BATCHES)
        )
        for feed in feeds
        if feed.expects.drift
    }
    return {feed: f"not judged, {why}" if why else JUDGED for feed, why in found.items()}


def _quality_text(champion: VersionStatus | None) -> str:
    if champion is None or not champion.predictions:
        return ""
    if (
        champion.quality.auc is None
    ):  # others may have labels: those that take weeks come when a version has been replaced
        return f"{champion.labelled:,} of its {champion.predictions:,} predictions are labelled so far"
    auc = champion.quality.auc
    return f"AUC {auc.estimate:.3f} ({auc.low:.3f} to {auc.high:.3f}) of {champion.labelled:,} labelled predictions"


def _plan(plan: TrafficPlan, committed_at_us: int) -> PlanStatus:
    return PlanStatus(
        plan_id=plan.plan_id,
        champion=plan.champion,
        challenger=plan.challenger,
        share_ppm=plan.share_ppm,
        previous=plan.previous,
        fallback=plan.fallback,
        rollout_id=plan.rollout_id,
        committed_at_us=committed_at_us,
    )


def _presence(
    plan: TrafficPlan | None,
    probed: Sequence[ServerStatus],
    runs: Sequence[RolloutRow],
    known: Sequence[VersionRow],
    now_us: int,
) -> Presence:
    created = {row.version: row.created_at_us for row in known}
    promoted = [
        run.changed_at_us
        for run in runs
        if run.state == State.PROMOTED and plan is not None and run.challenger == plan.champion
    ]
    returned = [run.changed_at_us for run in runs if run.state in (State.ROLLING_BACK, State.ROLLED_BACK)]
    trained_us = None if plan is None else created.get(plan.champion)
    verdict, explanation = worst([server.verdict for server in probed])
    return Presence(
        planned_version=None if plan is None else plan.intended,
        deployed_us=max(promoted, default=None),
        rolled_back_us=max(returned, default=None),
        age_seconds=None if trained_us is None else max(0, now_us - trained_us) / 1e6,
        verdict=verdict,
        explanation=explanation,
    )


def _version(
    row: VersionRow,
    plan: TrafficPlan | None,
    judged: Sequence[GateResult],
    quality: Quality,
    predictions: int,
    requests: dict[str, int],
    spoilt: dict[str, str],
) -> VersionStatus:
    return VersionStatus(
        version=row.version,
        number=row.number,
        role=row.role,
        state=row.state,
        place=_place(row.version, plan),
        learner=row.learner,
        created_at_us=row.created_at_us,
        bytes=row.bytes,
        gates=tuple(judged),
        auc=None if quality.auc is None else quality.auc.estimate,
        labelled=quality.rows,
        predictions=predictions,
        coverage=share_labelled(quality.rows, predictions),
        requests=requests.get(row.version, 0),
        quality=quality,
        taint=spoilt.get(row.version, ""),
    )


def _place(version: str, plan: TrafficPlan | None) -> str:
    if plan is None:
        return ""
    places = {
        plan.fallback: "fallback",
        plan.previous: "previous",
        plan.challenger: "challenger",
        plan.champion: "champion",
    }
    return places.get(version, "")
