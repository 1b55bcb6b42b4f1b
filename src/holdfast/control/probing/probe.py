"""Probe every server, and compare the version that serves with the intended one (R131, R132)."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

from holdfast.control.http.server_client import FAILURES, TIMEOUT_SECONDS, ServerClient, call_all
from holdfast.errors import NotFoundError
from holdfast.monitor.version_check import Observation, check_server
from holdfast.records import Verdict
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease
from holdfast.store.db.ledger import Transaction
from holdfast.store.models import runtimes, versions
from holdfast.store.rollout import traffic_plans
from holdfast.store.serving import members, servers
from holdfast.store.serving.servers import Probe, Server

CONFIRMED_US: Final = 5_000_000
"""A server that was seen on the newest plan is not probed again for this long, microseconds."""

SILENT_US: Final = 30_000_000
"""A server that was silent gets its full time again after this long, microseconds."""
SHORT_TIMEOUT_SECONDS: Final = 0.2
"""The timeout of a server that was silent a short while ago."""

UNTESTED: Final = "runtime.untested"
"""The kind of the event that a server serves a version with a runtime that was not tested with it."""

Look: TypeAlias = Callable[[Sequence[Server]], Mapping[str, Observation]]
"""Returns the state of servers by name: the network as a probe sees it."""


def probe(
    store: Store, model: str, lease: Lease, *, now_us: int, look: Look | None = None
) -> tuple[Probe, ...]:
    """Probe every server of `model` that may run with a real inference request, and store what was seen.

    The request is marked as a probe: it takes the path of all requests, is served by the version that the server's
    plan intends, and is not logged as a prediction. A server that does not respond within `TIMEOUT_SECONDS` is an
    error, never a pass. All servers are probed at once, so hung ones cost no more than that together; those that were
    silent within `SILENT_US` cost `SHORT_TIMEOUT_SECONDS`. A server whose process has ended is not called: another
    may listen at its address.

    Parameters
    ----------
    store, model
        The store, and the model whose servers are probed.
    lease
        The lease of the control loop.
    now_us
        Microseconds since 1970 UTC.
    look
        Replaces the network; `observe_all` by default.

    Raises
    ------
    ConflictError
        HF304 when another loop has the lease.
    """
    with store.ledger.read() as connection:
        newest = traffic_plans.newest_committed(connection, model)
    plan_number = None if newest is None else newest.plan.plan_id
    with store.ledger.read() as connection:
        known = {each.server: each for each in servers.last_probes(connection, model)}
        registered = members.polled(connection, model)
    targets = [
        each
        for each in registered
        if each.server not in known or not _is_confirmed(known[each.server], plan_number, now_us)
    ]
    silent = {name for name, each in known.items() if is_silent(each, now_us)}
    seen = observe_all(targets, silent) if look is None else look(targets)
    for server, observed in seen.items():
        if server in silent and not observed.is_reachable:
            continue  # its last probe had the full timeout
        plan_age_us = 0 if newest is None else now_us - newest.committed_at_us
        verdict = check_server(None if newest is None else newest.plan, observed, plan_age_us=plan_age_us)
        with store.ledger.read() as connection:
            untested = _untested_runtime(connection, observed)
        explanation = verdict.explanation + (f" Its {untested}." if untested else "")
        found = Probe(
            server=server,
            model=model,
            plan_id=observed.plan_id,
            planned_version=verdict.planned_version,
            observed_version=observed.observed_version,
            verdict=verdict.verdict,
            explanation=explanation,
            probed_at_us=now_us,
            serving_config=observed.serving_config,
            runtime=observed.runtime,
        )
        # A server that goes on as before is no news. One that does not keeps the loop going round.
        last = known.get(server)
        is_news = untested or last is None or found.verdict is not Verdict.PASS or found != _at(last, now_us)
        with store.ledger.write(quiet=not is_news) as connection:
            servers.record_probe(connection, found, lease)
            if untested:
                _report_untested(connection, model, untested, now_us)
        known[server] = found
    return tuple(known[each.server] for each in registered)


def _at(probe: Probe, now_us: int) -> Probe:
    return replace(probe, probed_at_us=now_us)


def _untested_runtime(connection: Transaction, seen: Observation) -> str:
    """Return that a candidate serves with a runtime that it never passed a test with, in words; empty if it passed (R116).

    Servers need no plan that names a runtime to run one: a user may have started them by hand.
    """
    version, runtime = seen.observed_version, seen.runtime
    if version is None or runtime is None:
        return ""
    try:
        row = versions.get(connection, version)
    except NotFoundError:
        return ""
    if row.role != "candidate" or runtime in runtimes.passed(connection, version):
        return ""
    return f"runtime {runtime} did not pass a test with {version}, which it serves (holdfast runtime test {runtime})"


def _report_untested(connection: Transaction, model: str, explanation: str, now_us: int) -> None:
    """Append an event, once for each runtime and version; the probe of each server has the same explanation."""
    if not events.is_reported(connection, subject=model, kind=UNTESTED, explanation=explanation):
        events.append(connection, at_us=now_us, kind=UNTESTED, subject=model, explanation=explanation)


def is_silent(last: Probe, now_us: int) -> bool:
    """Return True if the server did not respond within its full time a short while ago."""
    return last.verdict is Verdict.ERROR and 0 <= now_us - last.probed_at_us < SILENT_US


def observe_all(targets: Sequence[Server], silent: Collection[str] = ()) -> dict[str, Observation]:
    """Return the state of each server by name, within `TIMEOUT_SECONDS` for all of them together.

    Servers named in `silent` have `SHORT_TIMEOUT_SECONDS`.
    """
    late = [server for server in targets if server.server in silent]
    others = [server for server in targets if server.server not in silent]
    return _observed(others, TIMEOUT_SECONDS) | _observed(late, SHORT_TIMEOUT_SECONDS)


def _observed(targets: Sequence[Server], seconds: float) -> dict[str, Observation]:
    in_time = call_all(targets, lambda server: observe(server, seconds), seconds)
    return {
        server.server: in_time.get(server.server) or _silent(server, TimeoutError()) for server in targets
    }


def observe(server: Server, seconds: float = TIMEOUT_SECONDS) -> Observation:
    """Return the plan of `server` and the version that serves; each response may take `seconds`."""
    if servers.has_ended(server):
        return Observation(None, None, f"the process behind {server.address} has ended", is_reachable=False)
    with ServerClient(server, seconds) as client:
        try:
            before = _plan(client.status())
        except FAILURES as error:
            return _silent(server, error)
        try:
            response = client.probe()
            status = client.status()
        except FAILURES as error:
            return Observation(before, None, f"{server.address} {_describe(error)}")
    version = response.get("model_version")
    after = _plan(status)
    return Observation(
        # Between two plans it is not known under which of them the response was made.
        after if before == after else None,
        version if isinstance(version, str) else None,
        serving_config=_text(status, "serving_config"),
        runtime=_text(status, "runtime"),
    )


def _silent(server: Server, error: Exception) -> Observation:
    return Observation(None, None, f"{server.address} {_describe(error)}", is_reachable=False)


def _is_confirmed(before: Probe, plan: int | None, now_us: int) -> bool:
    confirmed = before.verdict is Verdict.PASS and before.plan_id == plan
    return confirmed and 0 <= now_us - before.probed_at_us < CONFIRMED_US


def _plan(status: dict[str, Any]) -> int | None:
    plan = status.get("plan")
    number = plan.get("plan") if isinstance(plan, dict) else plan
    return number if isinstance(number, int) else None


def _text(status: dict[str, Any], name: str) -> str | None:
    found = status.get(name)
    return found if isinstance(found, str) else None


def _describe(error: Exception) -> str:
    match error:
        case TimeoutError():
            return f"did not respond within {TIMEOUT_SECONDS:g} s"
        case ConnectionRefusedError():
            return "refuses connections"
        case json.JSONDecodeError():
            return "responded with something else than JSON"
        case _:
            return str(error) or type(error).__name__
