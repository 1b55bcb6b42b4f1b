"""Wait until the servers converge: each that responds serves the intended version (R131, R132).

A decision alone is no rollback. Each server is polled on a connection of its own until it converges or the time is
up. A silent server delays no other and is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from holdfast.control.http.server_client import FAILURES, TIMEOUT_SECONDS, ServerClient, call_all
from holdfast.store.serving import aborts, servers
from holdfast.store.serving.servers import Server

_ROLES: Final = ("champion", "challenger", "previous", "fallback", "shadow", "intended")

PAUSE_SECONDS: Final = 0.005
"""Between two polls of a server that has not converged yet."""

Check: TypeAlias = Callable[[ServerClient], str | None]
"""Polls a server; returns the version that served if the server has converged, else None."""


@dataclass(frozen=True, slots=True)
class Convergence:
    """The result of a wait. `duration_ms` is from the decision to the last server's response, in milliseconds."""

    versions: Mapping[str, str]
    """The version that served the probe, by server."""
    last_resort: Mapping[str, str]
    """Servers that serve the aborted version, because no other can, and why."""
    late: tuple[str, ...]
    """Servers that responded, and did not converge in time."""
    silent: tuple[str, ...]
    """Servers that did not respond."""
    duration_ms: float

    @property
    def has_converged(self) -> bool:
        """Return True if at least one server responded and all that did converged."""
        return bool(self.versions) and not self.late and not self.last_resort


@dataclass(slots=True)
class _Target:
    server: Server
    version: str | None = None
    at: float = 0.0
    has_responded: bool = False
    last_resort: str = ""


def wait(
    found: Sequence[Server],
    check: Check,
    *,
    decided: float,
    seconds: float,
    silent_seconds: float = TIMEOUT_SECONDS,
) -> Convergence:
    """Poll every server of `found` until each is as `check` requires.

    Parameters
    ----------
    found
        The servers.
    check
        The condition.
    decided
        When the decision was made, on the clock of `time.monotonic`.
    seconds
        How long to wait at most.
    silent_seconds
        After how many seconds a server that has not responded at all is no longer waited for.
    """
    until = time.monotonic() + seconds
    targets = [_Target(server) for server in found if not servers.has_ended(server)]
    by_name = {each.server.server: each for each in targets}

    def follow(server: Server) -> None:
        _follow(by_name[server.server], check, until, silent_seconds)

    call_all([each.server for each in targets], follow, seconds + PAUSE_SECONDS)
    unfinished = [each for each in targets if each.version is None and not each.last_resort]
    return Convergence(
        versions={each.server.server: each.version for each in targets if each.version is not None},
        last_resort={each.server.server: each.last_resort for each in targets if each.last_resort},
        late=tuple(each.server.server for each in unfinished if each.has_responded),
        silent=tuple(each.server.server for each in unfinished if not each.has_responded),
        duration_ms=1000 * (max((each.at for each in targets if each.version), default=decided) - decided),
    )


def on_plan(
    plan: int, version: str, *, serving_config: str | None = None, runtime: str | None = None
) -> Check:
    """Require that the server serves a probe with `version` under plan number `plan` or a newer one.

    With a serving config or a runtime, also that the server reports it.
    """
    required = {"serving_config": serving_config, "runtime": runtime}

    def check(client: ServerClient) -> str | None:
        response = client.probe()
        number = _parameters(response).get("plan")
        if not (isinstance(number, int) and number >= plan and response.get("model_version") == version):
            return None
        if serving_config is not None or runtime is not None:
            status = client.status()
            if any(value is not None and status.get(name) != value for name, value in required.items()):
                return None
        return version

    return check


def without_version(version: str, directory: Path) -> Check:
    """Require that the server has applied the abort of `version` and serves a probe with the version that it intends.

    An abort that is gone from `directory` was applied, and ended when the ledger agreed: a read-only ledger may still
    be read. Raises `LastResortError` with the server's reason when no other version can serve.
    """

    def check(client: ServerClient) -> str | None:
        status = client.status()
        last_resort = status.get("last_resort")
        if isinstance(last_resort, dict) and version in last_resort:
            raise LastResortError(str(last_resort[version]))
        aborts_here = status.get("aborts")
        named = {each.get("version") for each in aborts_here} if isinstance(aborts_here, list) else set()
        if version not in named and (
            version in map(status.get, _ROLES) or aborts.stamp(directory) is not None
        ):
            return None
        version_seen = client.probe().get("model_version")
        return (
            version_seen if version_seen == status.get("intended") and isinstance(version_seen, str) else None
        )

    return check


class LastResortError(Exception):
    """A server serves an aborted version as a last resort, because no other can."""


def _follow(target: _Target, check: Check, until: float, silent_seconds: float) -> None:
    """Poll one server until it converges or the time is up."""
    silent_until = min(until, time.monotonic() + silent_seconds)
    client = ServerClient(target.server)
    try:
        while time.monotonic() < (until if target.has_responded else silent_until):
            try:
                version = check(client)
                target.has_responded = True
            except FAILURES as error:
                client.close()
                target.has_responded = target.has_responded or isinstance(error, ValueError)
                version = None
            except LastResortError as error:
                target.last_resort = str(error)
                return
            if version is not None:
                target.at, target.version = time.monotonic(), version
                return
            time.sleep(PAUSE_SECONDS)
    finally:
        client.close()


def _parameters(response: dict[str, Any]) -> dict[str, Any]:
    found = response.get("parameters")
    return found if isinstance(found, dict) else {}
