"""Rows of `backouts`: back-outs, their plans and finished steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Select, func, select, update

from holdfast.errors import ConflictError
from holdfast.store.db import rows, schema
from holdfast.store.db.statements import (
    inserting,
)
from holdfast.tables.backout import BackoutPlan, BackoutState
from holdfast.tables.snapshots import LoadKey

_BACKOUTS: Final = schema.backouts
_OF: Final = schema.backout_batches
_ADMISSIONS: Final = schema.admissions
_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_PARTS: Final = schema.file_row_groups
_VERSIONS: Final = schema.table_versions
_USAGE: Final = schema.request_counts
_OUTCOMES: Final = schema.outcomes


@dataclass(frozen=True, slots=True)
class BackoutRow:
    """One back-out. `steps_done` counts the steps of `plan` that are done; times are microseconds since 1970 UTC."""

    backout_id: int
    feed: str
    batch: str
    state: BackoutState
    plan: BackoutPlan
    steps_done: int
    reason: str
    actor: str
    requested_at_us: int
    changed_at_us: int


def begin(
    connection: Connection,
    plan: BackoutPlan,
    *,
    reason: str,
    actor: str,
    now_us: int,
    loads: Sequence[LoadKey] | None = None,
) -> int:
    """Store `plan` as begun, in the caller's transaction, and return its number.

    Parameters
    ----------
    connection
        The caller's transaction.
    plan
        The plan.
    reason, actor
        The reason and the operator.
    now_us
        The current time, microseconds since 1970 UTC.
    loads
        The loads to record as removed; None means those of the plan.
    """
    number = rows.add(
        connection,
        _BACKOUTS,
        {
            "feed": plan.feed,
            "batch": plan.batch,
            "state": BackoutState.UNDER_WAY,
            "plan_json": plan.to_json(),
            "steps_done": 0,
            "reason": reason,
            "actor": actor,
            "requested_at_us": now_us,
            "changed_at_us": now_us,
        },
    )
    record_loads(connection, number, plan.loads if loads is None else loads)
    return number


def record_loads(
    connection: Connection, backout: int, loads: Sequence[LoadKey], *, removed_version: int | None = None
) -> None:
    """Record the loads that `backout` removes, in the caller's transaction.

    Parameters
    ----------
    connection
        The caller's transaction.
    backout
        The number of the back-out.
    loads
        The loads; known ones are not added twice.
    removed_version
        The table version from which on they are removed; None while it is unknown.
    """
    for feed, batch, epoch in loads:
        statement = inserting(connection, _OF).values(
            backout_id=backout, feed=feed, batch=batch, epoch=epoch, removed_version=removed_version
        )
        removed = func.coalesce(statement.excluded.removed_version, _OF.c.removed_version)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=_OF.primary_key.columns, set_={"removed_version": removed}
            )
        )


def advance(
    connection: Connection,
    before: BackoutRow,
    *,
    steps_done: int,
    now_us: int,
    plan: BackoutPlan | None = None,
    state: BackoutState = BackoutState.UNDER_WAY,
) -> None:
    """Compare and set the number of finished steps, in the caller's transaction.

    Parameters
    ----------
    connection
        The caller's transaction.
    before
        The row that is expected.
    steps_done
        The new number of finished steps.
    now_us
        The current time, microseconds since 1970 UTC.
    plan
        A new plan; None keeps the stored one.
    state
        The new state.

    Raises
    ------
    ConflictError
        HF304 if another process has finished steps since `before` was read; then nothing is written.
    """
    values: dict[str, Any] = {"steps_done": steps_done, "state": state, "changed_at_us": now_us}
    if plan is not None:
        values["plan_json"] = plan.to_json()
    changed = connection.execute(
        update(_BACKOUTS)
        .where(
            _BACKOUTS.c.backout_id == before.backout_id,
            _BACKOUTS.c.steps_done == before.steps_done,
            _BACKOUTS.c.state == before.state,
        )
        .values(values)
    )
    if changed.rowcount != 1:
        raise ConflictError(
            "HF304",
            f"back-out {before.backout_id} failed: another process executes it",
            state="this process wrote nothing",
            next_command="the same command again",
        )


def price(connection: Connection, row: BackoutRow, cost_per_prediction: float) -> None:
    """Keep what one wrong prediction costs with the plan of `row`, a back-out that is done."""
    plan = replace(row.plan, cost_per_prediction=cost_per_prediction)
    of = _BACKOUTS.c.backout_id == row.backout_id
    connection.execute(update(_BACKOUTS).where(of).values(plan_json=plan.to_json()))


def get(connection: Connection, backout: int) -> BackoutRow:
    """Return back-out number `backout`."""
    (found,) = _read(connection, select(_BACKOUTS).where(_BACKOUTS.c.backout_id == backout))
    return found


def under_way(connection: Connection) -> list[BackoutRow]:
    """Return every back-out with remaining steps, the oldest first."""
    under_way = select(_BACKOUTS).where(_BACKOUTS.c.state == BackoutState.UNDER_WAY)
    return _read(connection, under_way.order_by(_BACKOUTS.c.backout_id))


def tainting(connection: Connection, model: str) -> list[BackoutRow]:
    """Return every back-out that tainted a version of `model`, the oldest first."""
    tainted, known = schema.taints, schema.versions
    of_model = (
        select(tainted.c.backout_id)
        .join(known, known.c.version == tainted.c.subject)
        .where(tainted.c.kind == "version", known.c.model == model)
    )
    query = select(_BACKOUTS).where(_BACKOUTS.c.backout_id.in_(of_model))
    return _read(connection, query.order_by(_BACKOUTS.c.backout_id))


def newest_of(connection: Connection, feed: str, batch: str) -> BackoutRow | None:
    """Return the newest back-out of a load of `feed`/`batch`; None if there is none."""
    query = (
        select(_BACKOUTS)
        .join(_OF, _OF.c.backout_id == _BACKOUTS.c.backout_id)
        .where(_OF.c.feed == feed, _OF.c.batch == batch)
        .order_by(_BACKOUTS.c.backout_id.desc())
        .limit(1)
    )
    return next(iter(_read(connection, query)), None)


def _read(connection: Connection, query: Select[Any]) -> list[BackoutRow]:
    found = [dict(row) for row in connection.execute(query).mappings()]
    return [
        BackoutRow(
            plan=BackoutPlan.from_json(row.pop("plan_json")), state=BackoutState(row.pop("state")), **row
        )
        for row in found
    ]
