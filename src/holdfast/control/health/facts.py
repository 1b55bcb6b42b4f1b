"""Gather the facts that health is judged by, from the ledger. What follows from them is decided in `monitor.health`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from holdfast.control.health.data_incidents import find_incidents
from holdfast.control.health.live_objective import ObjectiveReader
from holdfast.control.health.servers import server_statuses
from holdfast.control.ingest import feed_status
from holdfast.control.ingest.feed_status import FeedStatus
from holdfast.control.probing.membership import describe_conflict, describe_lost
from holdfast.control.rollout.progress import progress
from holdfast.control.rollout.rollback import version_to_return_to
from holdfast.control.training import failed_trainings
from holdfast.feeds import Feed
from holdfast.monitor.health import FailedGates, FeedFacts, HealthFacts
from holdfast.monitor.usage import Usage, silent_after_us, summarise_usage
from holdfast.monitor.version_check import worst
from holdfast.qualify import Objective, ObjectiveComparison
from holdfast.records import DAY_US, HOUR_US, Level, TrafficPlan, Verdict
from holdfast.rollout.decision.post_promotion import format_rate
from holdfast.rollout.model.drills import DrillKind, ready
from holdfast.rollout.model.membership import MemberState
from holdfast.rollout.model.metric import RATE
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.catalog import batches
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds.violations import ViolationRow
from holdfast.store.models import gate_results as gates
from holdfast.store.models import versions
from holdfast.store.models.versions import VersionRow
from holdfast.store.rollout import drills, evidence, rollouts, traffic_plans
from holdfast.store.serving import members
from holdfast.store.telemetry import request_counts, traffic_comparison
from holdfast.tables.data_incident import DataIncident

USE_WINDOW_US: Final = HOUR_US
"""Window of requests that are judged, microseconds: one hour."""

PAUSES_OF_US: Final = 7 * DAY_US
"""How far back the usual pause between requests is measured, microseconds."""

_SUSPECT_BATCHES: Final = 20
"""How many suspect batches of a feed are problems of their own, the newest ones."""


class FactsReader:
    """Reads the facts repeatedly. The status, the page, the metrics and the events of problems use one each.

    Parameters
    ----------
    store, model
        The store, and the model.
    feeds
        The declared feeds of the model; without any, all feeds of the store are looked at.
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
        self._objective = ObjectiveReader(objective, label_delay)
        self._recover_within = recover_within
        self._silent_after_us = None if silent_after is None else silent_after // timedelta(microseconds=1)
        self.incidents: list[DataIncident] = []
        """The data incidents of the model, as of the last `read`."""
        self.comparison: ObjectiveComparison | None = None
        """How the champion compares with the objective, as of the last `read`."""

    def read(self, *, now_us: int) -> HealthFacts:
        """Return the facts at `now_us`. `quality` is left empty."""
        store, model = self._store, self._model
        of_feeds = feed_status.of_model(store, self._feeds, now_us=now_us)
        own = {feed.name for feed in self._feeds}
        with store.ledger.read() as connection:
            plan = traffic_plans.newest(connection, model)
        champion = None if plan is None else plan.champion
        self.comparison = self._objective.read(store, model, champion, now_us=now_us)
        missed = self.comparison is not None and self.comparison.verdict is Verdict.FAIL
        with store.ledger.read() as connection:
            probed = server_statuses(connection, model, plan)
            last_us = [each.probed_at_us for each in probed if each.probed_at_us is not None]
            verdict, explanation = worst([each.verdict for each in probed])
            usage = self.read_usage(connection, now_us)
            run = progress(connection, model, now_us)
            known = versions.of_model(connection, model)
            compared = traffic_comparison.last(connection, model)
            failure = failed_trainings.last_failure(connection, model)
            drilled = drills.of_model(connection, model)
            standings = [ready(drilled, kind, now_us) for kind in DrillKind]
            self.incidents = find_incidents(connection, model, self._recover_within)
            is_current = compared is not None and compared.version == champion
            shift = compared.label if is_current and compared is not None else None
            return HealthFacts(
                champion=champion,
                next_command=_first_command(connection, model, known),
                taint="" if champion is None else taints.why(connection, "version", champion),
                servers=verdict,
                servers_explanation=explanation,
                probe_age_us=now_us - max(last_us) if last_us else None,
                usage=usage.verdict,
                usage_explanation=usage.explanation,
                requests=usage.requests,
                failed=usage.failed,
                refused=usage.refused,
                refused_kinds=_refused_kinds(usage),
                refused_reasons=usage.reasons,
                feeds=[feed_facts(each) for each in of_feeds if not own or each.feed in own],
                rollout_id=None if run is None else run.rollout_id,
                rollout="" if run is None else run.next,
                is_rollout_stalled=run is not None and run.is_stalled,
                changed_rate=_changed_rate(connection, model),
                failed_gates=_failed_gates(connection, known, plan),
                failed_training="" if failure is None else failure.explanation,
                label_shift=shift.explanation if shift is not None and shift.shifted else "",
                unseen_slices=[f"{each.column} = {each.value}" for each in compared.uncovered]
                if is_current and compared is not None
                else [],
                data_incidents={
                    f"backout-{each.backout_id}": each.describe(now_us)
                    for each in self.incidents
                    if each.is_open
                },
                server_conflicts={
                    each.server: describe_conflict(each) for each in members.conflicts(connection, model)
                },
                lost_servers={
                    each.server.server: describe_lost(each)
                    for each in members.of_model(connection, model)
                    if each.state is MemberState.LOST and not each.is_forgotten
                },
                missed_objective=f"{champion} {self.comparison}" if missed else "",
                returns_to=None
                if champion is None or not missed
                else version_to_return_to(connection, store, model, champion),
                expired_drills=[
                    each.kind for each in standings if not each.ready and each.until_us is not None
                ],
            )

    def read_usage(self, connection: Transaction, now_us: int) -> Usage:
        """Return the usage of the last hour."""
        model, since_us = self._model, now_us - USE_WINDOW_US
        last_us, silent_us = request_counts.last_minute_us(connection, model), self._silent_after_us
        if silent_us is None and last_us is not None:
            # Back from the last request, not from now: a long silence must not make its own bound unknown.
            minutes = request_counts.minutes_with_requests(connection, model, last_us - PAUSES_OF_US)
            silent_us = silent_after_us(minutes)
        return summarise_usage(
            request_counts.since(connection, model, since_us),
            since_us=since_us,
            until_us=now_us,
            silent_after_us=silent_us,
            last_minute_us=last_us,
            served_since_us=traffic_plans.first_committed_at_us(connection, model),
        )


def feed_facts(status: FeedStatus) -> FeedFacts:
    """Return what is wrong with a feed.

    A refusal counts until the next batch is loaded or an operator accepts it, and so do the warnings about the newest
    batch; a suspect batch counts until it is accepted or backed out.
    """
    loaded_us = None if status.totals is None else status.totals.newest_load_at_us
    newest = "" if status.totals is None else status.totals.newest_batch
    refused = [
        row
        for row in status.open
        if row.epoch is None and (loaded_us is None or row.found_at_us >= loaded_us)
    ]
    loaded = [row for row in status.open if row.epoch is not None]
    reasons = _by_batch(row for row in loaded if row.level is not Level.WARNING)
    suspect = [batch for batch in status.suspect if batch not in status.reregistered][-_SUSPECT_BATCHES:]
    warned = [row for row in loaded if row.level is Level.WARNING and row.batch == newest]
    return FeedFacts(
        feed=status.feed,
        suspect={batch: reasons.get(batch, status.reason) for batch in suspect},
        reregistered=len(status.reregistered),
        refused=_by_batch(refused),
        warned={batch: why for batch, why in _by_batch(warned).items() if batch not in suspect},
        overdue_us=status.overdue_us,
    )


def _by_batch(found: Iterable[ViolationRow]) -> dict[str, str]:
    """Return the first explanation of each batch and the number of the others."""
    texts: dict[str, list[str]] = {}
    for row in sorted(found, key=lambda row: row.violation_id):
        texts.setdefault(row.batch, []).append(row.explanation)
    return {
        batch: each[0] if len(each) == 1 else f"{each[0]}; and {len(each) - 1} more"
        for batch, each in texts.items()
    }


def _refused_kinds(usage: Usage) -> tuple[str, ...]:
    kinds = {kind.kind for version in usage.versions for kind in version.errors if kind.is_callers_fault}
    return tuple(sorted(kinds))


def _failed_gates(
    connection: Transaction, known: Sequence[VersionRow], plan: TrafficPlan | None
) -> FailedGates | None:
    candidates = [row for row in known if row.role == "candidate"]
    newest = max(candidates, key=lambda row: row.number, default=None)
    if newest is None:
        return None
    serves = plan is not None and newest.version in plan.versions()
    # No gate can make a tainted version fit to serve.
    if serves or taints.tainted(connection, "version", newest.version):
        return FailedGates(newest.version)
    failed = [each.gate for each in gates.newest(connection, newest.version) if each.verdict is Verdict.FAIL]
    return FailedGates(newest.version, tuple(failed))


def _changed_rate(connection: Transaction, model: str) -> str:
    """Return how the rate of requests changed with the promotion in its bake time, in words; empty if it did not."""
    baking = rollouts.baking(connection, model)
    if baking is None or rollouts.under_way(connection, model) is not None:
        return ""
    states = evidence.canary_of_rollout(connection, baking.rollout_id)
    state = next((each for each in states if each.metric == RATE and each.is_harmful), None)
    row = rollouts.get(connection, baking.rollout_id)
    return "" if state is None else f"after the promotion of {row.challenger} {format_rate(state)}"


def _first_command(connection: Transaction, model: str, known: Sequence[VersionRow]) -> str:
    """Return the next command for a model that no version serves."""
    states = {
        row.state
        for row in known
        if row.role == "candidate" and not taints.tainted(connection, "version", row.version)
    }
    if rollouts.under_way(connection, model) is not None:
        return "holdfast up"
    if "qualified" in states:
        return "holdfast rollout start"
    if "registered" in states:
        return "holdfast qualify"
    return "holdfast train" if batches.totals(connection) else "holdfast ingest FEED FILE"
