"""Hand the server of `holdfast up` over to the runtime that the plan requires, without refusing a connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from holdfast.cli.processes.supervisor import OWN, Group
from holdfast.cli.project import Project, now_us
from holdfast.control.http.server_client import FAILURES, ServerClient
from holdfast.control.probing import convergence
from holdfast.errors import HoldfastError
from holdfast.store import Store
from holdfast.store.models import runtimes
from holdfast.store.rollout import traffic_plans
from holdfast.store.serving.servers import Server

READY_SECONDS: Final = 30.0
"""How long a new runtime may take to answer a probe under the plan."""
LOOK_SECONDS: Final = 1.0
"""How often the ledger is read for the required runtime."""
FIRST_SECONDS: Final = 2.0
"""How long the start of the server waits for the ledger."""
SERVER: Final = "serve"


class Handover:
    """Keep the server of a group at the runtime that the plans require. A ledger that is away changes nothing."""

    def __init__(self, loaded: Project, notify: Callable[[str], None]) -> None:
        self._loaded = loaded
        self._notify = notify
        self._runs = runtimes.here(loaded.settings.build).id
        self._own = self._runs
        self._refused = 0
        self._last_error = ""
        self._store: Store | None = None

    def first(self) -> Sequence[str]:
        """Return the first command of the server: that of the required runtime if known in time, else this one."""
        found: list[tuple[int, str, Sequence[str]]] = []
        reading = threading.Thread(target=lambda: found.extend(filter(None, [self._wanted()])), daemon=True)
        reading.start()
        reading.join(FIRST_SECONDS)
        if not found:
            return OWN
        _, self._runs, command = found[0]
        return command

    def follow(self, group: Group, stopped: threading.Event) -> None:
        """Replace the server whenever the plans require another runtime, until `stopped`."""
        while not stopped.wait(LOOK_SECONDS):
            wanted = self._wanted()
            if wanted is not None and wanted[1] != self._runs and wanted[0] != self._refused:
                self._replace(group, *wanted)

    def _wanted(self) -> tuple[int, str, Sequence[str]] | None:
        """Return the plan that requires a runtime, the runtime and its command; None if there is none or it is unknown."""
        try:
            if self._store is None:
                self._store = self._loaded.store()
            with self._store.ledger.read() as connection:
                found = runtimes.current(connection, self._loaded.model.name)
        except Exception as error:  # a driver may raise anything; server and loop go on
            self._notify_once(f"the required runtime cannot be read: {type(error).__name__}: {error}")
            return None
        if found is None:
            return None
        number, row = found
        command = OWN if row.runtime == self._own else row.command
        if not command:
            self._notify_once(
                f"the command of {row.runtime} is not registered; next: holdfast runtime register -- COMMAND"
            )
            return None
        self._last_error = ""
        return number, row.runtime, command

    def _replace(self, group: Group, number: int, runtime: str, command: Sequence[str]) -> None:
        self._notify(f"starting {runtime} alongside {self._runs}")
        why = group.succeed(SERVER, command, lambda: self._responds(runtime), READY_SECONDS)
        if not why:
            self._runs = runtime
            self._notify(f"{runtime} serves")
            return
        self._refused = number
        self._notify(f"{runtime} did not take over: {why}; {self._runs} stays")
        from holdfast.control.runtimes import runtime as pushing  # it loads Polars, which few starts need

        store = self._store
        assert store is not None, "it gave the required runtime"
        try:
            pushing.failed(store, self._loaded.model.name, runtime, why, actor="holdfast", now_us=now_us())
        except HoldfastError as error:
            self._notify_once(f"the failure of {runtime} cannot be recorded: {error}")

    def _responds(self, runtime: str) -> bool:
        """Return True if `runtime` answers a probe. Meanwhile two processes accept connections: a new one may reach either."""
        settings, model = self._loaded.settings, self._loaded.model.name
        host = "127.0.0.1" if settings.host in ("", "0.0.0.0") else settings.host  # noqa: S104  (a target, not bound)
        server = Server(SERVER, model, f"http://{host}:{settings.port}", settings.root, 0)
        assert self._store is not None, "it gave the required runtime"
        with self._store.ledger.read() as connection:
            plan = traffic_plans.newest(connection, model)
        if plan is None:
            return True
        try:
            with ServerClient(server) as client:
                seen = convergence.on_plan(plan.plan_id, plan.intended, runtime=runtime)
                return seen(client) is not None
        except FAILURES:
            return False

    def _notify_once(self, error: str) -> None:
        if error != self._last_error:
            self._last_error = error
            self._notify(error)
