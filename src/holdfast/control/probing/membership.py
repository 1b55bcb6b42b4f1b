"""Move each server through the states of a member, and end conflicts of names whose second process is gone."""

from __future__ import annotations

from typing import Final

from holdfast.errors import ConflictError, NotFoundError
from holdfast.formatting import span
from holdfast.records import Verdict
from holdfast.rollout.model.membership import LIVING, SILENT_US, MemberState, move, read_signal
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.serving import members, servers
from holdfast.store.serving.members import Conflict, Member

EVERY_US: Final = 2_000_000
"""Time between two looks, microseconds."""
CONFLICT_ENDS_US: Final = 60_000_000
"""How long the second process of a name is not heard from before its conflict has ended, microseconds."""

_WORDS: Final = {
    MemberState.PRESENT: "serves",
    MemberState.DRAINING: "drains: it takes no new connection",
    MemberState.SILENT: "is silent",
    MemberState.GONE: "has ended",
    MemberState.LOST: "is lost and no longer polled; what it logged since its last collection may be lost with it",
}


class Members:
    """The concern of the control loop. Level-triggered: the states are in the ledger, and two loops at once are harmless."""

    def __init__(self) -> None:
        self._looked_at_us = 0

    def __call__(self, store: Store, model: str, lease: Lease, *, now_us: int) -> None:
        """Look every two seconds. Raises `ConflictError` HF304 when `lease` has gone to another loop."""
        if 0 <= now_us - self._looked_at_us < EVERY_US:
            return
        self._looked_at_us = now_us
        follow(store, model, lease, now_us=now_us)


def follow(store: Store, model: str, lease: Lease, *, now_us: int) -> None:
    """Commit the state of each member that has changed, with its event, in one transaction.

    Parameters
    ----------
    store, model
        The store, and the name of the model.
    lease
        The lease of the control loop.
    now_us
        When the events happen, microseconds since 1970 UTC. States follow from the ledger's clock alone.

    Raises
    ------
    ConflictError
        HF304 if another loop has the lease.
    """
    with store.ledger.read() as connection:
        known = members.of_model(connection, model)
        responding = {
            each.server
            for each in servers.last_probes(connection, model)
            if each.verdict is not Verdict.ERROR
        }
        conflicts = members.conflicts(connection, model)
    found = [(each, _next_state(each, responding)) for each in known if not each.is_forgotten]
    moved = [(each, after) for each, after in found if after is not None and after is not each.state]
    ended = [each for each in conflicts if each.heard_us >= CONFLICT_ENDS_US]
    if not moved and not ended:
        return
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        for each, after in moved:
            members.move(connection, each.server.server, after)
            events.append(
                connection,
                at_us=now_us,
                kind=f"server.{after}",
                subject=f"server/{each.server.server}",
                explanation=_explain(each, after),
            )
        for conflict in ended:
            if members.end_conflict(connection, conflict.server, conflict.boot_id):
                events.append(
                    connection,
                    at_us=now_us,
                    kind="server.conflict_ended",
                    subject=f"server/{conflict.server}",
                    explanation=f"The second process under the name {conflict.server}, on host {conflict.host}, was not heard "
                    f"from for {span(conflict.heard_us / 1e6)}. Its log {conflict.log_directory} is still not collected.",
                )


def _next_state(member: Member, responding: set[str]) -> MemberState | None:
    """Return the state of `member` from now on; None of a server that writes no heartbeats."""
    if member.state is None:
        return None
    is_living = member.state in LIVING
    is_heard = member.heard_us is not None and member.heard_us < SILENT_US
    signal = read_signal(
        member.state,
        member.stated,
        heard_us=member.heard_us,
        in_state_us=member.in_state_us,
        # One that is neither living nor heard from stays what it is, and one that is not polled has no newer probe.
        has_ended=(is_living or is_heard) and servers.has_ended(member.server),
        responds=is_living and member.server.server in responding,
    )
    return move(member.state, signal)


def _explain(member: Member, after: MemberState) -> str:
    return (
        f"{member.server.server} at {member.server.address} on host {member.server.host} {_WORDS[after]}: it was "
        f"{member.state}, and its last heartbeat came {_heard(member)}."
    )


def _heard(member: Member) -> str:
    return "never" if member.heard_us is None else f"{span(member.heard_us / 1e6)} ago"


def forget(store: Store, model: str, name: str, reason: str, *, actor: str, now_us: int) -> None:
    """Forget the server `name` of `model`, because of `reason`. What it logged stays, and so does what is joined with it.

    Raises
    ------
    NotFoundError
        HF303 if `model` has no such server.
    ConflictError
        HF304 while it is heard from: it would be listed again with its next heartbeat.
    """
    with store.ledger.write() as connection:
        member = members.find(connection, name)
        if member is None or member.server.model != model or member.is_forgotten:
            raise NotFoundError(
                "HF303",
                f"model {model} has no server {name!r}",
                state="nothing was changed",
                next_command="holdfast servers list --all",
            )
        if member.state in (MemberState.PRESENT, MemberState.DRAINING) and not servers.has_ended(
            member.server
        ):
            raise ConflictError(
                "HF304",
                f"server {name} is {member.state}: it was last heard from {_heard(member)}",
                state="nothing was changed",
                next_command=f"stop it on host {member.server.host}, and give the command again",
            )
        members.forget(connection, member.server)
        events.append(
            connection,
            at_us=now_us,
            kind="server.forgotten",
            subject=f"server/{name}",
            actor=actor,
            explanation=f"Server {name} on host {member.server.host} is no longer listed or polled: {reason}.",
        )


def describe_conflict(conflict: Conflict) -> str:
    """Return what is wrong with a name that two processes state."""
    return (
        f"two living processes have the name {conflict.server}: the second, {conflict.address} on host {conflict.host}, gives "
        "no prediction ids, and its log is not collected"
    )


def describe_lost(member: Member) -> str:
    """Return what is wrong with a server that is lost."""
    return (
        f"server {member.server.server} on host {member.server.host} was last heard from {_heard(member)} "
        "and is no longer polled; what it logged since its last collection may be lost"
    )
