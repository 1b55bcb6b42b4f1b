"""Read the facts of a delivery event from the ledger, for CDEvents."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from holdfast.qualify import GateResult
from holdfast.records import Verdict
from holdfast.rollout.cdevents import SERVICE_EVENTS, Artifact, Facts, GateFacts, RolloutFacts
from holdfast.store.db import schema
from holdfast.store.db.events import EventRow
from holdfast.store.rollout import rollouts, traffic_plans

_EVENTS: Final = schema.events
_GATES: Final = schema.gate_results
_VERSIONS: Final = schema.versions
_JUDGED: Final = frozenset({"version.qualified", "version.refused", "version.judged"})
_WORST_FIRST: Final = (Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE)


def of_event(connection: Connection, event: EventRow) -> Facts | None:
    """Return the facts of `event` for CDEvents; None if CDEvents has no such event."""
    if event.kind in SERVICE_EVENTS and event.subject.startswith("rollout/"):
        return _rollout(connection, event)
    if event.kind in _JUDGED:
        return _judgement(connection, event)
    return None


def _rollout(connection: Connection, event: EventRow) -> RolloutFacts | None:
    row = rollouts.get(connection, int(event.subject.removeprefix("rollout/")))
    query = select(_EVENTS.c.kind).where(
        _EVENTS.c.subject == event.subject, _EVENTS.c.event_id < event.event_id
    )
    version = row.challenger
    if event.kind == "rollout.rolled_back":
        followed = traffic_plans.of_rollout(connection, row.rollout_id)
        version = followed[-1].plan.champion if followed else row.champion or row.challenger
    artifact = _artifact(connection, version)
    if artifact is None:
        return None
    return RolloutFacts(
        event_id=event.event_id,
        at_us=event.at_us,
        kind=event.kind,
        rollout_id=row.rollout_id,
        actor=event.actor,
        explanation=event.explanation,
        serving=artifact,
        first=row.champion is None,
        before=frozenset(connection.execute(query).scalars()),
    )


def _judgement(connection: Connection, event: EventRow) -> GateFacts | None:
    artifact = _artifact(connection, event.subject)
    if artifact is None:
        return None
    query = select(*(_GATES.c[name] for name in GateResult.__slots__)).where(
        _GATES.c.version == event.subject, _GATES.c.evaluated_at_us == event.at_us
    )
    found = [(row.gate, Verdict(row.verdict)) for row in connection.execute(query)]
    seen = {verdict for _, verdict in found}
    worst = next((verdict for verdict in _WORST_FIRST if verdict in seen), Verdict.PASS)
    return GateFacts(
        event_id=event.event_id,
        at_us=event.at_us,
        judged=artifact,
        # The decision counts: it may have used more than the gates.
        verdict=Verdict.PASS if event.kind == "version.qualified" else worst,
        explanation=event.explanation,
        gates=tuple((gate, str(verdict)) for gate, verdict in found),
    )


def _artifact(connection: Connection, version: str) -> Artifact | None:
    query = select(_VERSIONS.c.model, _VERSIONS.c.digest).where(_VERSIONS.c.version == version)
    row = connection.execute(query).one_or_none()
    return None if row is None else Artifact(row.model, version, row.digest)
