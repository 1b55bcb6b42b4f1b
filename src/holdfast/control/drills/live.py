"""Drills on the running system, which no user notices: a rollback, and the fence against a stale leader.

`clean_up` ends drills that were killed, and restores the traffic plan that one left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from holdfast.control import loop
from holdfast.control.evaluation import eligibility
from holdfast.control.http.server_client import FAILURES, ServerClient
from holdfast.control.probing import convergence
from holdfast.control.rollout import drill_traffic
from holdfast.declaration import Model
from holdfast.errors import ConflictError, RefusedError
from holdfast.formatting import counted, with_article
from holdfast.records import TrafficPlan, Verdict
from holdfast.rollout import State
from holdfast.rollout.model.drills import DrillKind, DrillResult
from holdfast.store import Store
from holdfast.store.db import events, leases
from holdfast.store.db.leases import Lease
from holdfast.store.db.ledger import Transaction
from holdfast.store.models import versions
from holdfast.store.rollout import drills, rollouts, traffic_plans
from holdfast.store.serving import members, servers

CONVERGENCE_SECONDS: Final = 10.0
"""How long servers may take to converge before the drill has failed."""
LEASE_US: Final = 50_000
"""The lease of a drill, in microseconds: short, because the drill waits for its end."""
LIMIT_US: Final[Mapping[DrillKind, int]] = {
    kind: 60_000_000 if kind in (DrillKind.ROLLBACK, DrillKind.STALE_LEADER) else 1_800_000_000
    for kind in DrillKind
}
"""A drill that has not ended after so many microseconds was killed."""
_TAKE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where a drill runs.

    Parameters
    ----------
    serve
        The command that starts a server of the project; its root, ledger and port are set by the environment.
    within_us
        How long traffic may take to return, in microseconds.
    live
        True if the rollback drill moves all users to the version before, and back.
    """

    store: Store
    model: Model
    serve: Sequence[str]
    clock_us: Callable[[], int]
    within_us: int
    live: bool = False


def rollback(workspace: Workspace, drill: int) -> DrillResult:
    """Switch to a plan that a rollback could write, and back; every server must converge in time.

    Users stay where they are: the version that a rollback returns to serves pinned probes only. With `workspace.live` all
    users move to it, which requires a clean former champion.
    """
    store, model = workspace.store, workspace.model.name
    decided = time.monotonic()
    try:
        with store.ledger.write() as connection:
            before, target = _before(connection, model, live=workspace.live)
            there = replace(before, champion=target, previous=before.champion) if workspace.live else before
            number = drill_traffic.append(connection, there, drill, "begins", workspace.clock_us())
            drills.note(
                connection, drill, {"plan": number, "returns": asdict(before), "live": workspace.live}
            )
    except RefusedError as refused:
        return DrillResult(Verdict.INCONCLUSIVE, refused.what)
    with store.ledger.read() as connection:
        here = members.polled(connection, model)
    try:
        went = convergence.wait(
            here, convergence.on_plan(number, there.intended), decided=decided, seconds=CONVERGENCE_SECONDS
        )
        pinned = _pinned([each for each in here if each.server in went.versions], target)
        decided = time.monotonic()
    finally:
        back = put_back(store, model, drill, before, number, now_us=workspace.clock_us())
    came = went
    if back is not None:
        came = convergence.wait(
            here, convergence.on_plan(back, before.intended), decided=decided, seconds=CONVERGENCE_SECONDS
        )
    return _judged(workspace, target, went, came, pinned, (number, back))


def put_back(
    store: Store, model: str, drill: int, before: TrafficPlan, number: int, *, now_us: int
) -> int | None:
    """Restore the plan before the drill; return its number, None if plan `number` is not the newest any more."""
    with store.ledger.write() as connection:
        newest = traffic_plans.newest(connection, model)
        if newest is None or newest.plan_id != number:
            return None
        return drill_traffic.append(connection, before, drill, "is over", now_us)


def clean_up(store: Store, model: str, *, now_us: int) -> list[int]:
    """End the drills of `model` that were killed, restore the traffic plan that one left, and return their numbers.

    A plan that was replaced since is left as it is.
    """
    ended = []
    with store.ledger.read() as connection:
        unfinished = drills.unfinished(connection, model)
    for each in unfinished:
        if abs(now_us - each.started_at_us) < LIMIT_US[each.kind]:
            continue
        explanation = "it was killed before its end"
        noted: dict[str, Any] = dict(each.evidence)
        if "returns" in noted:
            before = TrafficPlan(**noted["returns"])
            back = put_back(store, model, each.drill_id, before, noted["plan"], now_us=now_us)
            explanation += "" if back is None else f"; plan {back} restores the plan before it"
        found = DrillResult(Verdict.ERROR, explanation, None, each.evidence)
        with store.ledger.write() as connection:
            drills.end(connection, each.drill_id, found, now_us=now_us, expires_at_us=now_us)
        ended.append(each.drill_id)
    return ended


def stale_leader(workspace: Workspace, drill: int) -> DrillResult:
    """Take a lease over from a holder that has stopped, and let that holder write: every write must be refused.

    The lease is the drill's own, in the ledger whose leases separate two control loops.
    """
    store, name = workspace.store, f"drill-{workspace.model.name}"[:63]
    began = time.monotonic()
    old = _take(workspace, name, f"drill-{drill}-old")
    new = _take(workspace, name, f"drill-{drill}-new")
    measured_duration_us = round((time.monotonic() - began) * 1e6)
    if old is None or new is None:
        return DrillResult(
            Verdict.FAIL, f"taking the lease of a stopped holder failed for {_TAKE_SECONDS:g} s"
        )

    def write() -> None:
        with store.ledger.write() as connection:
            leases.assert_epoch(connection, name, old.epoch)
            events.append(
                connection,
                at_us=workspace.clock_us(),
                kind="drill.written",
                subject=name,
                explanation="must not be",
            )

    def renew(ahead_us: int = 0) -> None:
        with store.ledger.write() as connection:
            leases.renew(connection, old, now_us=workspace.clock_us() + ahead_us)

    attempts: dict[str, Callable[[], object]] = {
        "renew": renew,
        "write": write,
        "renew with a clock far ahead": lambda: renew(10**15),
    }
    refused = [what for what, attempt in attempts.items() if _is_refused(attempt)]
    with store.ledger.write() as connection:
        kept = not leases.release(connection, old)
    with store.ledger.write() as connection:
        leases.renew(connection, new, now_us=workspace.clock_us())
        leases.release(connection, new)
    passed = len(refused) == len(attempts) and kept
    words = f"{len(refused)} of {len(attempts)} writes under epoch {old.epoch} were refused after epoch {new.epoch} began"
    words += "" if kept else "; the old holder released the new one's lease"
    epochs = {"old_epoch": old.epoch, "new_epoch": new.epoch, "refused": refused}
    return DrillResult(Verdict.PASS if passed else Verdict.FAIL, words, measured_duration_us, epochs)


def _before(connection: Transaction, model: str, *, live: bool) -> tuple[TrafficPlan, str]:
    """Return the plan in force, and the version that a rollback would return to.

    Raises `RefusedError` HF404 if there is none.
    """
    plan = traffic_plans.newest(connection, model)
    row = rollouts.under_way(connection, model)
    # A pending rollout has no traffic, and its policy may require this drill. When it starts, it ends a live drill.
    if plan is None or (row is not None and row.state is not State.PENDING):
        why = "no version serves yet" if row is None else f"rollout {row.rollout_id} is {row.state}"
        raise RefusedError(
            "HF404",
            f"drill not possible: {why}",
            state="no plan was written",
            next_command="holdfast rollout status",
        )
    if drills.moves_users(connection, model, plan.plan_id):
        raise RefusedError(
            "HF404",
            "drill not possible: another drill has moved all users",
            state="no plan was written",
            next_command="holdfast status",
        )
    barred = eligibility.barred_versions(connection, model)
    others = [each for each in (plan.previous, plan.fallback) if each is not None]
    target = next((each for each in others if each not in barred), None)
    if target is None:
        why = f"{', '.join(others)} is tainted or did harm" if others else "no other version is loaded"
        raise RefusedError(
            "HF404",
            f"no version to return to from {plan.champion}: {why}",
            next_command="holdfast rollout start",
        )
    if live:
        _must_be_proved(connection, model, target)
    return plan, target


def _must_be_proved(connection: Transaction, model: str, target: str) -> None:
    """Raise `RefusedError` HF404 unless the target was the champion before, and is qualified."""
    row = versions.get(connection, target)
    before = {each.challenger for each in rollouts.of_model(connection, model) if each.state == "promoted"}
    if row.role != "candidate" or row.state != "qualified" or target not in before:
        raise RefusedError(
            "HF404",
            f"{target} is {with_article(row.state)} {row.role} that was never the champion: users are not moved to it "
            "for a drill",
            state="no plan was written",
            next_command="holdfast rollout start",
        )


def _pinned(here: Sequence[servers.Server], target: str) -> dict[str, str]:
    """Return the version in each server's response to a probe of `target`; the error where there was none."""
    found: dict[str, str] = {}
    for server in here:
        try:
            with ServerClient(server) as client:
                found[server.server] = str(client.probe(target).get("model_version"))
        except FAILURES as error:
            found[server.server] = f"{type(error).__name__}: {error}"
    return found


def _judged(
    workspace: Workspace,
    target: str,
    went: convergence.Convergence,
    came: convergence.Convergence,
    pinned: dict[str, str],
    numbers: tuple[int, int | None],
) -> DrillResult:
    measured_duration_us = round(max(went.duration_ms, came.duration_ms) * 1000)
    evidence = {
        "plans": list(numbers),
        "target": target,
        "live": workspace.live,
        "there_ms": round(went.duration_ms, 1),
        "back_ms": round(came.duration_ms, 1),
        "servers": sorted(went.versions),
        "silent": sorted({*went.silent, *came.silent}),
    }
    unconverged = sorted({*went.late, *came.late, *went.last_resort, *came.last_resort})
    if unconverged:
        words = f"{', '.join(unconverged)} did not follow within {CONVERGENCE_SECONDS:g} s"
        return DrillResult(Verdict.FAIL, words, None, evidence)
    if not went.versions:
        return DrillResult(Verdict.INCONCLUSIVE, "no server responds, so nothing was drilled", None, evidence)
    for server, observed in pinned.items():
        if observed != target:
            words = f"{server} responded to a probe of {target} with: {observed}"
            return DrillResult(Verdict.FAIL, words, measured_duration_us, evidence)
    words = f"{counted(len(went.versions), 'server')} there and back in {measured_duration_us / 1000:.0f} ms, {target} responds"
    if measured_duration_us <= workspace.within_us:
        return DrillResult(Verdict.PASS, words, measured_duration_us, evidence)
    words += f"; at most {workspace.within_us / 1000:g} ms are allowed"
    return DrillResult(Verdict.FAIL, words, measured_duration_us, evidence)


def _take(workspace: Workspace, name: str, holder: str) -> Lease | None:
    """Return the lease for `holder`, once its present holder has stopped for long enough."""
    return loop.take_lease(
        workspace.store,
        name,
        holder=holder,
        duration_us=LEASE_US,
        clock_us=workspace.clock_us,
        within_seconds=_TAKE_SECONDS,
    )


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except ConflictError as error:
        return error.code == "HF304"
    return False
