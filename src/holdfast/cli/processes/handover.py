"""Which binary the server of `holdfast up` is: the one that the plan asks for, started beside the other before that ends."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final

from holdfast.cli.processes.supervisor import Group
from holdfast.cli.project import Project, now_us
from holdfast.control.http.server_client import FAILURES, ServerClient
from holdfast.control.probing import convergence
from holdfast.control.runtimes import runtime as pushing
from holdfast.errors import HoldfastError
from holdfast.store import Store
from holdfast.store.models import runtimes
from holdfast.store.rollout import traffic_plans
from holdfast.store.serving.servers import Server

OWN: Final = (sys.executable, "-m", "holdfast")
READY_SECONDS: Final = 30.0
"""How long another binary may take until it answers a probe under the plan."""
LOOK_SECONDS: Final = 1.0
"""How often the ledger is asked which binary it shall be."""
FIRST_SECONDS: Final = 2.0
"""How long the start of the server waits for the ledger to say so."""
SERVER: Final = "serve"


class Succession:
    """Keeps the server of a group what the plans ask for. A ledger that does not answer changes nothing."""

    def __init__(self, loaded: Project, say: Callable[[str], None]) -> None:
        self._loaded = loaded
        self._say = say
        self._runs = runtimes.here(loaded.settings.build).id
        self._own = self._runs
        self._refused = 0
        self._trouble = ""
        self._store: Store | None = None

    def first(self) -> Sequence[str]:
        """What the server is started by at first: what the plans ask for if that is known in time, else this binary."""
        found: list[tuple[int, str, Sequence[str]]] = []
        looking = threading.Thread(target=lambda: found.extend(filter(None, [self._wanted()])), daemon=True)
        looking.start()
        looking.join(FIRST_SECONDS)
        if not found:
            return OWN
        _, self._runs, command = found[0]
        return command

    def follow(self, group: Group, stopped: threading.Event) -> None:
        """Replace the server whenever the plans ask for another binary, until `stopped`."""
        while not stopped.wait(LOOK_SECONDS):
            wanted = self._wanted()
            if wanted is not None and wanted[1] != self._runs and wanted[0] != self._refused:
                self._replace(group, *wanted)

    def _wanted(self) -> tuple[int, str, Sequence[str]] | None:
        """The plan that asks for a binary, that binary, and how it is started; None when nobody asks or it cannot be told."""
        try:
            if self._store is None:
                self._store = self._loaded.store()
            with self._store.ledger.read() as connection:
                found = pushing.current(connection, self._loaded.model.name)
        except Exception as error:  # whatever a driver raises; the server goes on, and so does the look
            self._tell(f"which binary shall serve cannot be read: {type(error).__name__}: {error}")
            return None
        if found is None:
            return None
        number, row = found
        command = OWN if row.runtime == self._own else row.command
        if not command:
            self._tell(f"nobody said how {row.runtime} is started: holdfast runtime register -- COMMAND")
            return None
        self._trouble = ""
        return number, row.runtime, command

    def _replace(self, group: Group, number: int, binary: str, command: Sequence[str]) -> None:
        self._say(f"starting {binary} beside {self._runs}")
        why = group.succeed(SERVER, command, lambda: self._answers(binary), READY_SECONDS)
        if not why:
            self._runs = binary
            self._say(f"{binary} serves")
            return
        self._refused = number
        self._say(f"{binary} did not take over: {why}; {self._runs} goes on")
        store = self._store
        assert store is not None, "it said which binary shall serve"
        try:
            pushing.failed(store, self._loaded.model.name, binary, why, actor="holdfast", now_us=now_us())
        except HoldfastError as error:
            self._tell(f"that {binary} failed cannot be written: {error}")

    def _answers(self, binary: str) -> bool:
        """Whether `binary` answers a probe. Two processes take the connections meanwhile: a new one may meet either."""
        settings, model = self._loaded.settings, self._loaded.model.name
        host = "127.0.0.1" if settings.host in ("", "0.0.0.0") else settings.host  # noqa: S104  (what is asked, not bound)
        server = Server(SERVER, model, f"http://{host}:{settings.port}", settings.root, 0)
        assert self._store is not None, "it said which binary shall serve"
        plan = traffic_plans.newest(self._store, model)
        if plan is None:
            return True
        try:
            with ServerClient(server) as client:
                seen = convergence.as_binary(plan.plan_id, binary, plan.intended)
                return seen(client) is not None
        except FAILURES:
            return False

    def _tell(self, what: str) -> None:
        """Say it once."""
        if what != self._trouble:
            self._trouble = what
            self._say(what)


def bound(host: str, port: int) -> socket.socket | None:
    """A socket at the address for servers to share; None while another has it, which the server then says itself."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
    except OSError:
        return None
    return made
