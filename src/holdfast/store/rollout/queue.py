"""Rows of `queued_rollouts`: the version of each model that is rolled out when the rollout under way ends."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, select

from holdfast.store.db import rows, schema

_QUEUE = schema.queued_rollouts


@dataclass(frozen=True, slots=True)
class QueuedRollout:
    """A version that waits for its rollout. `policy_json` is the policy as declared when `actor` requested it."""

    model: str
    version: str
    policy_json: str
    actor: str
    queued_at_us: int


def find(connection: Connection, model: str) -> QueuedRollout | None:
    """Return the queued rollout of `model`; None without one."""
    return rows.first(connection, select(_QUEUE).where(_QUEUE.c.model == model), QueuedRollout)


def put(connection: Connection, row: QueuedRollout) -> None:
    """Queue a rollout, in place of the one that is queued."""
    rows.put(connection, _QUEUE, asdict(row))


def remove(connection: Connection, model: str) -> None:
    """Empty the queue of `model`."""
    connection.execute(delete(_QUEUE).where(_QUEUE.c.model == model))
