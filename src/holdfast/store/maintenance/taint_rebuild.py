"""Back-outs and taints of a ledger that is made again, as tombstones keep them."""

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


def restore(connection: Connection, stones: Iterable[Tombstone]) -> None:
    """Insert the back-outs that `stones` tell of as done, with the loads that they took out, and taint again what they
    tainted; to be called when loads and versions are in the ledger.

    A version is known by its digest, whatever its name is now. Of a tombstone that was written before any of this was kept
    only the load is known, and nothing is inserted for it.
    """
    told: dict[str, list[Tombstone]] = {}
    for stone in sorted(stones, key=lambda stone: (stone.backout_id, stone.load)):
        if stone.why:
            told.setdefault(canonical_json([stone.backout_id, stone.why]), []).append(stone)
    for of_one in told.values():
        _restore(connection, of_one)


def _restore(connection: Connection, stones: list[Tombstone]) -> None:
    why, at_us = stones[0].why, max(stone.at_us for stone in stones)
    plan = BackoutPlan.from_json(str(why["plan_json"]))
    number = backouts.begin(
        connection, plan, reason=why["reason"], actor=why["actor"], now_us=why["requested_at_us"], loads=()
    )
    for stone in stones:
        version = _taken_out(connection, stone.load)
        if version is not None:
            backouts.note(connection, number, [stone.load], removed_version=version)
    row = backouts.get(connection, number)
    backouts.advance(connection, row, steps_done=len(plan.steps), now_us=at_us, state=BackoutState.DONE)
    cuts = sorted({name for stone in stones for name in stone.snapshots})
    taints.add(connection, "snapshot", cuts, backout=number, now_us=at_us)
    digests = sorted({digest for stone in stones for digest in stone.versions})
    names = connection.execute(select(_MADE.c.version).where(_MADE.c.digest.in_(digests))).scalars()
    taints.add(connection, "version", list(names), backout=number, now_us=at_us)


def _taken_out(connection: Connection, load: LoadKey) -> int | None:
    """The version from which on the load is out; that of the load itself when nothing of it was left, None when the ledger
    does not know it.
    """
    removed = select(func.max(_PARTS.c.removed_version)).where(of_load(_PARTS, load))
    out = connection.execute(removed).scalar()
    if out is not None:
        return int(out)
    found: int | None = connection.execute(
        select(_BATCHES.c.table_version).where(of_load(_BATCHES, load), _BATCHES.c.state == BACKED_OUT)
    ).scalar()
    return found
