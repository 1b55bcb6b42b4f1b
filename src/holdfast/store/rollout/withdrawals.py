"""Events that record which versions were withdrawn by a plan alone, and what they and the rollouts mean for each version.

A rollout that is rolled back records by its state that its version was withdrawn. Where no rollout moves, an event does:
about the promotion that it undoes, or about the version if no rollout ever gave it traffic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, select

from holdfast.rollout.model.state_machine import WITHOUT_TRAFFIC
from holdfast.rollout.model.withdrawal import Standing, standing_of
from holdfast.store.db import events, schema
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import rollouts
from holdfast.store.rollout.rollouts import RolloutRow

WITHDRAWN: Final = "traffic.withdrawn"
"""The kind of the events. The subject is a rollout or a version."""
_AT_ONCE: Final = 500
_EVENTS: Final = schema.events


def last_with_traffic(connection: Connection, model: str) -> dict[str, RolloutRow]:
    """Return the newest rollout of each version of `model` that gave it traffic."""
    last: dict[str, RolloutRow] = {}
    for row in rollouts.of_model(connection, model):
        if row.state not in WITHOUT_TRAFFIC:
            last.setdefault(row.challenger, row)
    return last


def standings(connection: Connection, model: str, versions: Iterable[str]) -> dict[str, Standing]:
    """Return what decides whether each of `versions` of `model` may answer."""
    last = last_with_traffic(connection, model)
    subjects = {name: last[name].subject if name in last else name for name in versions}
    withdrawn = _withdrawn(connection, subjects.values())
    return {
        name: standing_of(
            (last[name].rollout_id, last[name].state) if name in last else None,
            is_withdrawn=subject in withdrawn,
        )
        for name, subject in subjects.items()
    }


def withdraw(
    connection: Transaction, model: str, version: str, *, reason: str, actor: str, now_us: int
) -> None:
    """Record that `version` is withdrawn, unless that is recorded already. It answers again when a newer rollout pushes it."""
    if not standings(connection, model, [version])[version].may_serve:
        return
    last = last_with_traffic(connection, model).get(version)
    events.append(
        connection,
        at_us=now_us,
        kind=WITHDRAWN,
        subject=version if last is None else last.subject,
        actor=actor,
        explanation=f"{version} is rolled back: {reason}",
    )


def _withdrawn(connection: Connection, subjects: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    listed = list(subjects)
    for at in range(0, len(listed), _AT_ONCE):
        of_some = (_EVENTS.c.kind == WITHDRAWN, _EVENTS.c.subject.in_(listed[at : at + _AT_ONCE]))
        found |= set(connection.scalars(select(_EVENTS.c.subject).where(*of_some).distinct()))
    return frozenset(found)
