"""Keep a server a member of its model: its name, its heartbeats, and what it does if another process has the name."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Final

from holdfast.errors import IntegrityError
from holdfast.formatting import span
from holdfast.rollout.model.server_name import (
    HEARTBEAT_SECONDS,
    Heartbeat,
    NameClaim,
    Process,
    Stated,
    Step,
)
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.serving import log_directory, members, servers
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.members import Conflict, Member
from holdfast.store.serving.servers import Server

_log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 1.0
"""How often a server looks whether an earlier process of its log directory still has its name."""
_RANDOM_BYTES: Final = 8


class Membership:
    """Registers a server under its name, and writes its heartbeats. It belongs to one thread, except `leave`.

    Parameters
    ----------
    server
        The server.
    log
        Its prediction log, which gives no ids while another process has the name, or may have it.
    clock_us
        Microseconds since 1970 UTC, for events.
    seconds, random
        A clock that never goes back, in seconds, and random bytes.
    """

    def __init__(
        self,
        server: Server,
        log: LogWriter,
        clock_us: Callable[[], int],
        *,
        seconds: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        assert server.boot_id is not None, "this process has one"
        self.conflict = ""
        """Which process has the name of this server, and what to do; empty if it has it itself."""
        self.is_registered = False
        """Whether this process has been registered as the holder of its name."""
        self.boot_id = server.boot_id
        """The boot id of this process: another one than it started with if a clone of it has the name."""
        self._server = server
        self._log = log
        self._clock_us = clock_us
        self._seconds = seconds
        self._random = random
        self._kernel = members.kernel_id()
        self._first_segment = log.first_segment
        self._written: tuple[Heartbeat, ...] = ()
        self._claim: NameClaim | None = None
        self._stated = self._last_stated = Stated.SERVING
        self._due = 0.0
        self._recorded = self._last_error = ""

    def leave(self, stated: Stated) -> None:
        """State from now on that the server drains, or has ended. Any thread may call it."""
        self._stated = stated

    @property
    def seconds_until_due(self) -> float:
        """The time until a heartbeat is due, or something new is to be stated, 0 if it is due."""
        if self._stated is not self._last_stated:
            return 0.0
        return max(0.0, self._due - self._seconds())

    def follow(self, store: Store) -> None:
        """Take the next step for the name, in one transaction."""
        # Before the ledger has it: what this process logs is collected only from a directory that has its boot id, and only
        # such a directory has a successor.
        if not self._is_recorded() and not self.conflict:
            self._due = self._seconds() + WAIT_SECONDS
            return
        stated = self._stated
        with store.ledger.write() as connection:
            found = members.find(connection, self._server.server)
            step = self._decide(found)
            self._log.is_contested = step in (Step.WAIT, Step.SECOND)
            heartbeat = self._next_heartbeat()
            match step:
                case Step.TAKE:
                    self._take(connection, heartbeat, stated)
                case Step.BEAT:
                    members.beat(connection, self._server.server, heartbeat, stated)
                case Step.SECOND:
                    self._report(connection, found, stated)
        self._last_stated = stated
        self._due = self._seconds() + (WAIT_SECONDS if step is Step.WAIT else HEARTBEAT_SECONDS)
        if step in (Step.TAKE, Step.BEAT):
            self._written = (heartbeat,)
            self.is_registered = True

    def _is_recorded(self) -> bool:
        """Return True once the log directory has the boot id of this process, alone if it is the second."""
        if self._recorded == self.boot_id:
            return True
        record = log_directory.separate if self.conflict else log_directory.record_boot
        try:
            record(self._server.log_directory, self.boot_id)
        except (OSError, IntegrityError) as error:
            if str(error) != self._last_error:
                _log.warning(
                    "the ledger does not get this server: its log directory cannot be written: %s", error
                )
            self._last_error = str(error)
            return False
        self._recorded, self._last_error = self.boot_id, ""
        return True

    def _decide(self, found: Member | None) -> Step:
        if self._claim is None:
            identity = log_directory.read_identity(self._server.log_directory)
            boots = frozenset((self.boot_id,) if identity is None else identity.boots)
            self._claim = NameClaim(Process(self.boot_id, boots))
        self._claim.process = Process(self.boot_id, self._claim.process.boots, frozenset(self._written))
        holder = None if found is None else found.holder
        return self._claim.decide(
            holder, self._seconds(), has_ended=found is not None and self._has_ended(found)
        )

    def _has_ended(self, found: Member) -> bool:
        """Return True if the holder ran on this start of this kernel, and its lock is free, or is that of this process."""
        if not self._kernel or (found.kernel_id, found.server.host) != (self._kernel, self._server.host):
            return False
        is_own_directory = found.server.log_directory == self._server.log_directory
        return is_own_directory or servers.has_ended(found.server)

    def _next_heartbeat(self) -> Heartbeat:
        number = max((each.number for each in self._written), default=0) + 1
        found = Heartbeat(number, self._random(_RANDOM_BYTES).hex())
        # Until its commit is known, the ledger may have any of them.
        self._written = (*self._written[-2:], found)
        return found

    def _take(self, connection: Transaction, heartbeat: Heartbeat, stated: Stated) -> None:
        is_new = members.take(
            connection,
            self._server,
            heartbeat,
            kernel=self._kernel,
            stated=stated,
            tagged_from_segment=self._first_segment,
        )
        if is_new:
            events.append(
                connection,
                at_us=self._clock_us(),
                kind="server.present",
                subject=f"server/{self._server.server}",
                explanation=f"{self._server.server} serves {self._server.model} at {self._server.address} on host "
                f"{self._server.host}, release {self._server.release}.",
            )

    def _report(self, connection: Transaction, found: Member | None, stated: Stated) -> None:
        assert found is not None, "a process is the second after another one"
        server = self._server
        if stated is Stated.ENDED:
            members.end_conflict(connection, server.server, self.boot_id)
            return
        if not self.conflict:
            self._become_second(found)
            if not self._is_recorded():
                _log.warning(
                    "the log directory of this server still passes for that of %s", found.server.address
                )
        conflict = Conflict(
            server.server,
            self.boot_id,
            server.address,
            server.host or "",
            str(server.log_directory),
            self.conflict,
        )
        if members.report_conflict(connection, conflict):
            events.append(
                connection,
                at_us=self._clock_us(),
                kind="server.conflict",
                subject=f"server/{server.server}",
                explanation=self.conflict,
            )

    def _become_second(self, found: Member) -> None:
        # The log does not continue that of the holder any more, so the next process of this directory is no successor either.
        self._recorded = ""
        if found.server.boot_id == self.boot_id:
            self.boot_id = self._random(_RANDOM_BYTES).hex()
        first = found.server
        heard = "" if found.heard_us is None else f", last heard {span(found.heard_us / 1e6)} ago"
        self.conflict = (
            f"HF304: another process has the name {first.server}: {first.address} on host {first.host}, with the log "
            f"{first.log_directory}{heard}. This one, {self._server.address} on host {self._server.host}, serves without "
            f"prediction ids, and its log {self._server.log_directory} is not collected; next: stop it, "
            f"then on its host holdfast servers separate {first.server}, and start it again"
        )
        _log.error("%s", self.conflict)
