"""Whether the servers of a model follow its plan, by the last probe of each."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.records import TrafficPlan, Verdict
from holdfast.store.db.ledger import Transaction
from holdfast.store.serving import members, servers
from holdfast.store.serving.servers import Probe, Server


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


def server_statuses(
    connection: Transaction, model: str, plan: TrafficPlan | None
) -> tuple[ServerStatus, ...]:
    """Return every running server of `model` with its last probe, compared with the newest plan."""
    seen = {each.server: each for each in servers.last_probes(connection, model)}
    here = members.running(connection, model)
    return tuple(_status(server, seen.get(server.server), plan) for server in here)


def _status(server: Server, probe: Probe | None, plan: TrafficPlan | None) -> ServerStatus:
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
