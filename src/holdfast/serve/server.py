"""The server process: build everything, listen, and stop without dropping a request."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from email.utils import formatdate
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import uvloop

from holdfast.records import Corrections, check_name
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve import operator_log
from holdfast.serve.api.abort_endpoint import AbortEndpoint
from holdfast.serve.api.routes import Routes
from holdfast.serve.follower.plan_follower import PlanFollower
from holdfast.serve.http import listening as sockets
from holdfast.serve.http.advertised import address_of_host, advertised, local_address
from holdfast.serve.http.descriptors import raise_limit
from holdfast.serve.http.listener import RESERVE, Listener
from holdfast.serve.http.request_guard import RequestGuard
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.data_plane import DataPlane
from holdfast.serve.inference.metrics import ServerFacts, VersionFacts
from holdfast.serve.inference.shadow import ShadowThread
from holdfast.settings import Settings
from holdfast.store.models import runtimes
from holdfast.store.rollout.plan_watch import POLL_SECONDS
from holdfast.store.serving.log_directory import LOGS_DIRECTORY, claim
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.servers import Server

LINGER_SECONDS: Final = 1.0
"""After SIGTERM: how long new connections are still taken while readiness is already false, so that routers can notice."""
DRAIN_SECONDS: Final = 6.0
"""After that: how long a request that is under way may take to end."""
LEAVE_SECONDS: Final = 0.5
"""How long a server that has ended waits until the ledger knows that."""
FRESH_SECONDS: Final = 0.5
"""How long of that a connection may take that was opened and has sent nothing yet."""
FIRST_READ_SECONDS: Final = 2.0
"""How long a start waits for the ledger before it serves its local copy."""
SHADOW_LOG_SECONDS: Final = 0.02
"""How long a finished shadow record waits to be logged together with the next ones."""
SWITCH_SECONDS: Final = 0.001
"""The interpreter's switch interval: following a plan or an abort takes many short turns, and each waits so long for the
thread that answers requests."""
READY_POLL_SECONDS: Final = 0.02
"""How often a server that must be ready first polls whether it is."""
_BACKLOG: Final = 1024
_PLACES: Final = ("champion", "challenger", "previous", "fallback", "shadow")


def serve_forever(
    settings: Settings,
    model: str,
    *,
    limits: ConnectionLimits | None = None,
    poll_seconds: float = POLL_SECONDS,
    linger_seconds: float = LINGER_SECONDS,
    started: Callable[[str], None] | None = None,
    listening: int | None = None,
    when_ready: bool = False,
    corrections: Corrections | None = None,
) -> None:
    """Serve `model` until SIGTERM or SIGINT, or until SIGUSR1 hands over to another process on the same socket.

    After SIGUSR1 no new connection is taken, but readiness stays true.

    Parameters
    ----------
    settings
        Root, ledger, address. Port 0 takes a free one.
    model
        The one model of this process.
    limits
        What clients may cost.
    poll_seconds
        How often the ledger is polled when no commit nudges.
    linger_seconds
        See `LINGER_SECONDS`.
    started
        Called with the base URL once the socket listens; by default it is printed.
    listening
        The descriptor of a bound socket, which other processes may share; by default one is bound to the settings' address.
        Connections that wait on a shared socket outlive the process that would have accepted them.
    when_ready
        Take no connection before a version can answer it.
    corrections
        Which of several labels of one prediction counts, as declared; None leaves it to the ledger.

    Raises
    ------
    InputError
        HF103 when the address cannot be listened on.
    """
    check_name(model, "model")
    operator_log.configure(settings.log_format, settings.log_level)
    on_start = started if started is not None else _print_address
    abandoned_threads = uvloop.run(
        _serve(
            settings, model, limits or ConnectionLimits(), poll_seconds, linger_seconds, on_start, listening, when_ready,
            corrections,
        )
    )  # fmt: skip
    if abandoned_threads:
        # A shadow still runs in native code, and the interpreter's end would pull the ground from under it: everything is
        # on disk and every request is answered, so the process ends without it.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # closed or full
                stream.flush()
        os._exit(0)


def _print_address(address: str) -> None:
    print(f"holdfast: listening on {address}", flush=True)  # noqa: T201  (the caller reads the address of port 0 here)


def now_us() -> int:
    """Return microseconds since 1970 UTC."""
    return time.time_ns() // 1000


async def _serve(
    settings: Settings,
    model: str,
    limits: ConnectionLimits,
    poll_seconds: float,
    linger_seconds: float,
    started: Callable[[str], None],
    listening: int | None,
    when_ready: bool,
    corrections: Corrections | None,
) -> int:
    """Serve until stopped; return the number of abandoned shadow threads."""
    sys.setswitchinterval(SWITCH_SECONDS)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    handed_over = asyncio.Event()

    def hand_over() -> None:
        handed_over.set()
        stop.set()

    loop.add_signal_handler(signal.SIGUSR1, hand_over)
    bound = sockets.bind(settings.host, settings.port) if listening is None else sockets.inherit(listening)
    listens_at = sockets.address_of(bound)
    address = advertised(listens_at, settings.advertise, partial(address_of_host, bound.family))
    process = _Process(settings, model, address, limits, poll_seconds, corrections)
    follower, listener, routes = process.follower, process.listener, process.routes
    follower.start_from_copy()
    follower.start()
    # With a ledger that answers, the first request already meets the newest plan.
    await loop.run_in_executor(None, follower.first_read.wait, FIRST_READ_SECONDS)
    # What is alive now stays alive: the collector need not walk it again and again under load.
    gc.collect()
    gc.freeze()
    while when_ready and not routes.ready and not stop.is_set():
        await asyncio.sleep(READY_POLL_SECONDS)
    if not (when_ready and stop.is_set()):  # a server that never was ready leaves all connections to others
        accepting = await loop.create_server(listener.connection, sock=bound, backlog=_BACKLOG)
        follower.announce(local_address(listens_at))
        started("http://{}:{}".format(*listens_at))
        await stop.wait()
        listener.draining = True
        follower.drain()
        if handed_over.is_set():
            accepting.close()
            await asyncio.sleep(linger_seconds)
        else:
            routes.draining = True
            await asyncio.sleep(linger_seconds)
            # While the process that started this one has the socket, what waits there is for the next server.
            if listening is None or not sockets.is_held_by(os.getppid(), bound):
                await sockets.settle(bound)
            accepting.close()
        await _drain(listener)
    await process.close()
    return process.shadow.abandoned_threads


async def _drain(listener: Listener) -> None:
    """Let requests that are under way end; close idle connections."""
    loop = asyncio.get_running_loop()
    listener.close_idle(fresh=False)
    patience, deadline = loop.time() + FRESH_SECONDS, loop.time() + DRAIN_SECONDS
    while listener.connections and loop.time() < deadline:
        await asyncio.sleep(0.01)
        if loop.time() > patience:
            listener.close_idle(fresh=True)


def _shadow_waker(loop: asyncio.AbstractEventLoop, plane: DataPlane) -> Callable[[], None]:
    """Return the callback of the shadow's thread: soon after it is called, the loop logs the shadow's records."""

    def later() -> None:
        loop.call_later(SHADOW_LOG_SECONDS, plane.log_shadow_records)

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(later)
        except RuntimeError:
            # The loop has ended, and with it the server: no reader is left for this record.
            return

    return wake


class _Process:
    """The parts of the server, and their facts for its status and metrics."""

    def __init__(
        self,
        settings: Settings,
        model: str,
        address: str,
        limits: ConnectionLimits,
        poll_seconds: float,
        corrections: Corrections | None,
    ) -> None:
        claimed = self._claimed = claim(settings.root / LOGS_DIRECTORY, model)
        self._log = LogWriter(claimed.directory, claimed.server, model, gives_ids=False)
        plane = self._plane = DataPlane(model, self._log, now_us)
        plane.shadow = self.shadow = ShadowThread(_shadow_waker(asyncio.get_running_loop(), plane), now_us)
        self._runtime = runtimes.here(settings.build)
        self._runtime_id = self._runtime.id
        self._server = Server(
            claimed.server,
            model,
            address,
            claimed.directory,
            now_us(),
            boot_id=claimed.boot_id,
            release=self._runtime.facts["holdfast"],
            host=socket.gethostname(),
        )
        self.follower = PlanFollower(
            plane, settings, self._server, now_us, poll_seconds=poll_seconds, corrections=corrections
        )
        self.routes = Routes(
            plane,
            self.status,
            self.scrape,
            self._runtime.facts["holdfast"],
            RequestGuard([settings.host, *settings.names, urlsplit(address).hostname or ""]),
            AbortEndpoint(settings.required_token, self.follower.abort_handler.abort),
            lambda: self.listener.limits,
        )
        self.listener = Listener(
            self.routes, limits, lambda: formatdate(usegmt=True).encode(), self.routes.refusal
        )
        raise_limit(limits.connections + RESERVE)
        self.follower.config.on_change(self._configure)

    def _configure(self, limits: ConnectionLimits) -> None:
        raise_limit(limits.connections + RESERVE)
        self.listener.configure(limits)

    async def close(self) -> None:
        """Stop the threads and close the log, after the last responses are sent."""
        self.follower.stop()
        self.shadow.stop()
        # A ledger that hangs must not hold the stop.
        await asyncio.get_running_loop().run_in_executor(None, self.follower.has_left.wait, LEAVE_SECONDS)
        self._plane.log_shadow_records()
        await asyncio.sleep(0)  # the last replies leave with this turn of the loop
        self.listener.close()
        self.routes.close()
        self._log.close()
        self._claimed.release()

    def status(self) -> dict[str, object]:
        """Return the document of `/holdfast/status`."""
        active = self._plane.active
        plan = active.plan if active is not None else None
        follower, progress, switch = self.follower, self.follower.progress, self.follower.switch
        return {
            "server": self._server.server,
            "model": self._server.model,
            "boot_id": self.follower.membership.boot_id,
            "release": self._server.release,
            "host": self._server.host,
            "address": self._server.address,
            "ready": self.routes.ready,
            "plan": plan.plan_id if plan else None,
            "rollout": plan.rollout_id if plan else None,
            **{each: getattr(plan, each, None) for each in _PLACES},
            **{each: getattr(plan, each, 0) for each in ("share_ppm", "shadow_ppm")},
            "shadow_requests": sum(dict(self.shadow.results).values()),
            "shadow_dropped": sum(dict(self.shadow.dropped).values()),
            "shadow_disabled": self.shadow.disabled_reason,
            "intended": active.intended if active else None,
            "table_version": follower.online.table_version,
            "plan_follower_up": follower.is_alive,
            "ledger_read_us": progress.ledger_read_us,
            "ledger_error": progress.ledger_error,
            "plan_error": progress.plan_error,
            "unavailable": switch.unavailable,
            "aborts": [asdict(abort) for abort in switch.aborts.values()],
            "last_resort": switch.last_resort,
            "runtime": self._runtime_id,
            "serving_config": self.listener.limits.id,
            "serving_config_error": follower.config.error,
            "abort_error": follower.aborts.error or follower.aborts.reserve_error,
            "online_features_error": follower.online.error,
            "local_copy_error": follower.copy_writer.error,
            "label_rules_error": follower.label_rules.error,
            "name_conflict": follower.membership.conflict,
            "gives_ids": self._log.gives_ids,
            "log_segment": self._log.segment,
            "log_dropped": self._log.dropped,
            "log_error": self._log.error,
        }

    def scrape(self) -> ServerFacts:
        """Return the facts of `/metrics`."""
        active, log = self._plane.active, self._log
        self._plane.counters.shed["bodies"] = self.listener.shed_bodies
        follower, progress, switch = self.follower, self.follower.progress, self.follower.switch
        return ServerFacts(
            model=self._server.model,
            now_seconds=now_us() / 1e6,
            values={
                "ready": self.routes.ready,
                "traffic_plan": active.plan.plan_id if active else 0,
                "challenger_share_ratio": active.plan.share_ppm / 1e6 if active else 0,
                "traffic_plans_rejected_total": progress.plans_rejected,
                "versions_unavailable": len(switch.unavailable),
                "online_features_invalid_total": follower.online.invalid,
                "plan_follower_up": follower.is_alive,
                "name_conflict": bool(follower.membership.conflict),
                "last_rollback_timestamp_seconds": switch.rolled_back_us / 1e6,
                "ledger_read_timestamp_seconds": progress.ledger_read_us / 1e6,
                "prediction_log_dropped_records_total": log.dropped,
                "prediction_log_sync_failures_total": log.failed_syncs,
                "open_connections": len(self.listener.connections),
                "connections_rejected_total": self.listener.rejected_connections,
                "connections_evicted_total": self.listener.evicted_connections,
                "shadow_queue_length": self.shadow.queue_length,
                "shadow_disabled": bool(self.shadow.disabled_reason),
            },
            versions=self._versions(active) if active else (),
            comparison=progress.comparison,
            shadow_results=dict(self.shadow.results),
            shadow_dropped=dict(self.shadow.dropped),
            errors=dict(self._plane.errors.by_step),
            build={"runtime": self._runtime_id, **self._runtime.facts},
        )

    def _versions(self, active: ActivePlan) -> tuple[VersionFacts, ...]:
        plan, deployed_us = active.plan, self.follower.switch.deployed_us
        roles = {
            plan.shadow: "shadow",
            plan.fallback: "fallback",
            plan.previous: "previous",
            plan.challenger: "challenger",
            plan.champion: "champion",
        }
        return tuple(
            VersionFacts(loaded, roles[name], deployed_us.get(name, 0) / 1e6)
            for name, loaded in active.versions.items()
        )
