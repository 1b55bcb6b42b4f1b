"""Wait until the servers converge: each that responds was seen to answer with the intended version (R131, R132).

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

_PLACES: Final = ("champion", "challenger", "previous", "fallback", "shadow", "intended")

PAUSE_SECONDS: Final = 0.005
"""Between two questions to a server that does not obey yet."""

Seen: TypeAlias = Callable[[ServerClient], str | None]
"""Asks a server; the version that answered when it is as it should be, None when it is not yet."""


@dataclass(frozen=True, slots=True)
class Obedience:
    """The result of a wait. `took_ms` is from the decision to the last server's response, in milliseconds."""

    answered: Mapping[str, str]
    """The version that answered, by server."""
    held: Mapping[str, str]
    """Servers that cannot do without the version that must not answer, and why."""
    waiting: tuple[str, ...]
    """Servers that answer, and did not obey in time."""
    silent: tuple[str, ...]
    """Servers that said nothing."""
    took_ms: float

    @property
    def done(self) -> bool:
        """Return True if at least one server responded and all that did converged."""
        return bool(self.answered) and not self.waiting and not self.held


@dataclass(slots=True)
class _Asked:
    server: Server
    version: str | None = None
    at: float = 0.0
    spoke: bool = False
    held: str = ""


def wait(
    found: Sequence[Server],
    seen: Seen,
    *,
    decided: float,
    seconds: float,
    forget_silent: float = TIMEOUT_SECONDS,
) -> Obedience:
    """Poll every server of `found` until each is as `seen` requires.

    Parameters
    ----------
    found
        The servers.
    seen
        The condition.
    decided
        When the decision was made, on the clock of `time.monotonic`.
    seconds
        How long to wait at most.
    forget_silent
        After how many seconds a server that has not responded at all is no longer waited for.
    """
    until = time.monotonic() + seconds
    asked = [_Asked(server) for server in found if not servers.has_ended(server)]
    by_name = {each.server.server: each for each in asked}

    def follow(server: Server) -> None:
        _follow(by_name[server.server], seen, until, forget_silent)

    call_all([each.server for each in asked], follow, seconds + PAUSE_SECONDS)
    late = [each for each in asked if each.version is None and not each.held]
    return Obedience(
        answered={each.server.server: each.version for each in asked if each.version is not None},
        held={each.server.server: each.held for each in asked if each.held},
        waiting=tuple(each.server.server for each in late if each.spoke),
        silent=tuple(each.server.server for each in late if not each.spoke),
        took_ms=1000 * (max((each.at for each in asked if each.version), default=decided) - decided),
    )


def under(plan: int, version: str) -> Seen:
    """Require that the server answers a probe with `version` under plan number `plan` or a newer one."""

    def seen(client: ServerClient) -> str | None:
        answer = client.probe()
        number = _parameters(answer).get("plan")
        obeys = isinstance(number, int) and number >= plan and answer.get("model_version") == version
        return version if obeys else None

    return seen


def configured(plan: int, configuration: str, version: str) -> Seen:
    """Require what `under` does, and that the server reports the serving config `configuration`."""
    obeys = under(plan, version)

    def seen(client: ServerClient) -> str | None:
        return obeys(client) if client.status().get("serving_config") == configuration else None

    return seen


def both(one: Seen, other: Seen) -> Seen:
    """Require both conditions."""
    return lambda client: other(client) if one(client) is not None else None


def as_binary(plan: int, binary: str, version: str) -> Seen:
    """Require what `under` does, and that the server reports the runtime `binary`."""
    obeys = under(plan, version)

    def seen(client: ServerClient) -> str | None:
        return obeys(client) if client.status().get("runtime") == binary else None

    return seen


def without(version: str, directory: Path) -> Seen:
    """Require that the server has taken the abort of `version` and answers a probe with the version that it intends.

    An abort that is gone from `directory` was taken, and ended because the ledger agreed: a ledger that takes no
    writes may still be read. Raises `HeldError` with the server's reason when no other version can serve.
    """

    def seen(client: ServerClient) -> str | None:
        status = client.status()
        held = status.get("last_resort")
        if isinstance(held, dict) and version in held:
            raise HeldError(str(held[version]))
        standing = status.get("aborts")
        named = {each.get("version") for each in standing} if isinstance(standing, list) else set()
        if version not in named and (
            version in map(status.get, _PLACES) or aborts.stamp(directory) is not None
        ):
            return None
        answered = client.probe().get("model_version")
        return answered if answered == status.get("intended") and isinstance(answered, str) else None

    return seen


class HeldError(Exception):
    """A server serves an aborted version as a last resort, because no other can."""


def _follow(asked: _Asked, seen: Seen, until: float, forget_silent: float) -> None:
    """Poll one server until it converges or the time is up."""
    quiet_until = min(until, time.monotonic() + forget_silent)
    client = ServerClient(asked.server)
    try:
        while time.monotonic() < (until if asked.spoke else quiet_until):
            try:
                version = seen(client)
                asked.spoke = True
            except FAILURES as error:
                client.close()
                asked.spoke = asked.spoke or isinstance(error, ValueError)
                version = None
            except HeldError as error:
                asked.held = str(error)
                return
            if version is not None:
                asked.at, asked.version = time.monotonic(), version
                return
            time.sleep(PAUSE_SECONDS)
    finally:
        client.close()


def _parameters(answer: dict[str, Any]) -> dict[str, Any]:
    found = answer.get("parameters")
    return found if isinstance(found, dict) else {}
