"""Status of one model: what `holdfast status --json` prints and the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, Final

from holdfast.control.ingest import feed_status
from holdfast.control.reports import live_objective
from holdfast.control.reports.progress import RolloutProgress, progress
from holdfast.control.reports.rollout_status import RolloutStatus, rollout_status
from holdfast.feeds import Feed
from holdfast.monitor.health import FeedFacts, Health, HealthFacts, judge_health
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
from holdfast.monitor.traffic_comparison import TrafficComparison
from holdfast.monitor.usage import Usage, silent_after_us, summarise_usage
from holdfast.monitor.version_check import Presence, worst
from holdfast.qualify import GateResult
from holdfast.records import DAY_US, HOUR_US, TrafficPlan, Verdict
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
from holdfast.store.rollout import drills, rollouts, traffic_plans, webhooks
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.serving import servers
from holdfast.store.serving.servers import Probe, Server
from holdfast.store.telemetry import collected_log, outcomes, request_counts, traffic_comparison

USE_WINDOW_US: Final = HOUR_US
"""Window of requests on the page, microseconds: one hour."""

PAUSES_OF_US: Final = 7 * DAY_US
"""How far back the usual pause between requests is measured, microseconds."""

QUALITY_DAYS: Final = 60
"""How many UTC days of predictions, up to today by our own clock, the quality and the coverage are of.

The label's delay is added to them, because younger predictions have no label.
"""

_UNKNOWN: Final = Quality(0, 0, None, None, None, None)

__all__ = ["RolloutProgress", "RolloutStatus", "Status", "StatusReader", "status"]

NEWEST_EVENTS: Final = 30
NEWEST_VIOLATIONS: Final = 30
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
class ServerStatus:
    """One server and its last probe; `probed_at_us` is None if it was never probed."""

    server: str
    address: str
    plan_id: int | None
    planned_version: str | None
    observed_version: str | None
    verdict: Verdict
    explanation: str
    probed_at_us: int | None


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
    """Counts of labels of the model: received, waiting for their predictions, and rejected by its servers' logs."""

    taken: int
    waiting: int
    rejected_labels: int


@dataclass(frozen=True, slots=True)
class Status:
    """The status of one model at `now_us`. `waiting_webhooks` are the webhooks that the running rollout waits for.

    `overdue_us` is how long the next batch of a feed is overdue, for each whose batch is.
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
    labels: LabelStatus
    feeds: tuple[FeedTotals, ...]
    feed_states: tuple[FeedRow, ...]
    violations: tuple[ViolationRow, ...]
    traffic_comparison: TrafficComparison | None
    drills: tuple[Standing, ...]
    events: tuple[EventRow, ...]
    health: Health
    overdue_us: dict[str, int]
    waiting_webhooks: tuple[str, ...] = ()
    missed_objective: str = ""

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
    now_us: int,
) -> dict[str, Any]:
    """Return the status of `model` at `now_us` as a JSON document. Parameters are those of `StatusReader`."""
    return asdict(StatusReader(store, model, feeds, label_delay).read(now_us=now_us))


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
    """

    def __init__(
        self, store: Store, model: str, feeds: Sequence[Feed] = (), label_delay: timedelta = timedelta(0)
    ) -> None:
        self._store = store
        self._model = model
        self._feeds = feeds
        self._label_delay_us = label_delay // timedelta(microseconds=1)
        self._computed: tuple[int, int, int] | None = None
        self._days: tuple[QualityDay, ...] = ()
        self._versions: dict[str, Quality] = {}
        self._distant = DistantEvents(0, _UNKNOWN)

    def read(self, *, now_us: int) -> Status:
        """Return the status at `now_us`."""
        found = self._read(now_us)
        overdue = {
            each.feed: each.overdue_us
            for each in feed_status.of_model(self._store, self._feeds, now_us=now_us)
            if each.overdue_us is not None
        }
        return replace(found, health=judge_health(_health_facts(found, overdue)), overdue_us=overdue)

    def _read(self, now_us: int) -> Status:
        model = self._model
        with self._store.ledger.read() as connection:
            newest = traffic_plans.newest_committed(connection, model)
            plan = None if newest is None else newest.plan
            seen = {each.server: each for each in servers.last_probes(connection, model)}
            here = servers.current(servers.registered(connection, model))
            probed = tuple(_server(server, seen.get(server.server), plan) for server in here)
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
            return Status(
                model=model,
                now_us=now_us,
                plan=None if newest is None else _plan(newest.plan, newest.committed_at_us),
                presence=_presence(plan, probed, runs, known, now_us),
                servers=probed,
                use=read_usage(connection, model, now_us)[0],
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
                quality=self._days,
                coverage=coverage(
                    sum(each.rows for each in self._versions.values()),
                    sum(predicted.values()),
                    since_us=since_us,
                ),
                distant_events=self._distant,
                labels=LabelStatus(
                    *outcomes.count_labels(connection, model),
                    collected_log.totals(connection, model).rejected_labels,
                ),
                feeds=batches.totals(connection),
                feed_states=tuple(admissions.feed_rows(connection)),
                violations=tuple(violations.open_ones(connection, limit=NEWEST_VIOLATIONS)),
                traffic_comparison=traffic_comparison.last(connection, model),
                drills=tuple(ready(drilled, kind, now_us) for kind in DrillKind),
                events=tuple(events.newest(connection, limit=NEWEST_EVENTS)),
                health=Health(False, "", ()),
                missed_objective=live_objective.missed(
                    connection, model, None if plan is None else plan.champion
                ),
                overdue_us={},
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
        self._computed = current


def read_usage(connection: Transaction, model: str, now_us: int) -> tuple[Usage, int | None]:
    """Return the usage of the last hour, and the newest minute with a request; None without one."""
    since_us, last_us = now_us - USE_WINDOW_US, request_counts.last_minute_us(connection, model)
    silent_us = silent_after_us(
        request_counts.minutes_with_requests(connection, model, now_us - PAUSES_OF_US)
    )
    found = summarise_usage(
        request_counts.since(connection, model, since_us),
        since_us=since_us,
        until_us=now_us,
        silent_after_us=silent_us,
        last_minute_us=last_us,
    )
    return found, last_us


def _health_facts(status: Status, overdue: dict[str, int]) -> HealthFacts:
    champion = next((row for row in status.versions if row.place == "champion"), None)
    probed = [each.probed_at_us for each in status.servers if each.probed_at_us is not None]
    candidate = max(
        (row for row in status.versions if row.role == "candidate"), key=lambda row: row.number, default=None
    )
    run, compared = status.progress, status.traffic_comparison
    shift = "" if compared is None or compared.label is None else compared.label.explanation
    return HealthFacts(
        champion=None if status.plan is None else status.plan.champion,
        next_command=first_command(status),
        taint="" if champion is None else champion.taint,
        quality=_quality_text(champion),
        servers=status.presence.verdict,
        servers_explanation=status.presence.explanation,
        probe_age_us=status.now_us - max(probed) if probed else None,
        usage=status.use.verdict,
        usage_explanation=status.use.explanation,
        requests=status.use.requests,
        failed=status.use.failed,
        refused=status.use.refused,
        feeds=[
            FeedFacts(row.feed, row.state, row.reason, overdue.get(row.feed)) for row in status.feed_states
        ],
        rollout="" if run is None else run.next,
        is_rollout_stalled=run is not None and run.is_stalled,
        failed_gates=_failed_gates(candidate),
        label_shift=shift
        if compared is not None and compared.label is not None and compared.label.shifted
        else "",
        unseen_slices=[]
        if compared is None
        else [f"{each.column} = {each.value}" for each in compared.uncovered],
        missed_objective=status.missed_objective,
        expired_drills=[each.kind for each in status.drills if not each.ready and each.until_us is not None],
    )


def _quality_text(champion: VersionStatus | None) -> str:
    if champion is None or not champion.predictions:
        return ""
    if (
        champion.quality.auc is None
    ):  # others may have labels: those that take weeks come when a version has been replaced
        return f"{champion.labelled:,} of its {champion.predictions:,} predictions are labelled so far"
    auc = champion.quality.auc
    return f"AUC {auc.estimate:.3f} ({auc.low:.3f} to {auc.high:.3f}) of {champion.labelled:,} labelled predictions"


def _failed_gates(candidate: VersionStatus | None) -> str:
    """Return the gates that the newest candidate failed, in words; empty if there are none or it serves."""
    if candidate is None or candidate.place:
        return ""
    failed = [gate.gate for gate in candidate.gates if gate.verdict is Verdict.FAIL]
    return f"the newest version, {candidate.version}, failed its gates: {', '.join(failed)}" if failed else ""


def first_command(status: Status) -> str:
    """Return the next command for a model that no version serves."""
    states = {row.state for row in status.versions if row.role == "candidate" and not row.taint}
    if status.running is not None:
        return "holdfast up"
    if "qualified" in states:
        return "holdfast rollout start"
    if "registered" in states:
        return "holdfast qualify"
    return "holdfast train" if status.feeds else "holdfast ingest FEED FILE"


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


def _server(server: Server, probe: Probe | None, plan: TrafficPlan | None) -> ServerStatus:
    if probe is None:
        words = "It announced itself and has not been probed yet."
        return ServerStatus(
            server.server, server.address, None, None, None, Verdict.INCONCLUSIVE, words, None
        )
    verdict, words = probe.verdict, probe.explanation
    if verdict is Verdict.PASS and plan is not None and probe.plan_id != plan.plan_id:
        verdict = Verdict.INCONCLUSIVE
        words = f"Plan {plan.plan_id} is newer than this probe: {probe.observed_version} served under plan {probe.plan_id}."
    return ServerStatus(
        server=server.server,
        address=server.address,
        plan_id=probe.plan_id,
        planned_version=probe.planned_version,
        observed_version=probe.observed_version,
        verdict=verdict,
        explanation=words,
        probed_at_us=probe.probed_at_us,
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
