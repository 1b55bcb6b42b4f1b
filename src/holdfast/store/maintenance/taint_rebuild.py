"""Rows of back-outs and taints of a ledger that is rebuilt, from tombstones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, func, select

from holdfast.records import canonical_json
from holdfast.store.backout import backouts, taints
from holdfast.store.backout.tombstones import Tombstone
from holdfast.store.db import schema
from holdfast.store.db.predicates import BACKED_OUT, of_load
from holdfast.tables.backout import BackoutPlan, BackoutState
from holdfast.tables.snapshots import LoadKey

_BATCHES: Final = schema.batches
_PARTS: Final = schema.file_row_groups
_MADE: Final = schema.versions


def restore(connection: Connection, tombstones: Iterable[Tombstone]) -> None:
    """Insert the back-outs of `tombstones` as done, with the loads that they removed and what they tainted.

    Call it when loads and versions are in the ledger. A version is found by its digest, because it may have another name
    now. An unreadable tombstone names only its load, and nothing is inserted for it.
    """
    by_backout: dict[str, list[Tombstone]] = {}
    for tombstone in sorted(tombstones, key=lambda tombstone: (tombstone.backout_id, tombstone.load)):
        if tombstone.why:
            by_backout.setdefault(canonical_json([tombstone.backout_id, tombstone.why]), []).append(tombstone)
    for of_one in by_backout.values():
        _restore(connection, of_one)


def _restore(connection: Connection, tombstones: list[Tombstone]) -> None:
    why, at_us = tombstones[0].why, max(tombstone.at_us for tombstone in tombstones)
    plan = BackoutPlan.from_json(str(why["plan_json"]))
    number = backouts.begin(
        connection, plan, reason=why["reason"], actor=why["actor"], now_us=why["requested_at_us"], loads=()
    )
    for tombstone in tombstones:
        version = _removed_version(connection, tombstone.load)
        if version is not None:
            backouts.record_loads(connection, number, [tombstone.load], removed_version=version)
    row = backouts.get(connection, number)
    backouts.advance(connection, row, steps_done=len(plan.steps), now_us=at_us, state=BackoutState.DONE)
    snapshots = sorted({name for tombstone in tombstones for name in tombstone.snapshots})
    taints.add(connection, "snapshot", snapshots, backout=number, now_us=at_us)
    digests = sorted({digest for tombstone in tombstones for digest in tombstone.versions})
    names = connection.execute(select(_MADE.c.version).where(_MADE.c.digest.in_(digests))).scalars()
    taints.add(connection, "version", list(names), backout=number, now_us=at_us)


def _removed_version(connection: Connection, load: LoadKey) -> int | None:
    """Return the first table version without the load; that of the load itself if nothing was left of it, None if unknown."""
    removed = select(func.max(_PARTS.c.removed_version)).where(of_load(_PARTS, load))
    out = connection.execute(removed).scalar()
    if out is not None:
        return int(out)
    found: int | None = connection.execute(
        select(_BATCHES.c.table_version).where(of_load(_BATCHES, load), _BATCHES.c.state == BACKED_OUT)
    ).scalar()
    return found
