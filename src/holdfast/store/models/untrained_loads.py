"""Rows of `untrained_loads`: the loads of a version's snapshot that none of its training rows is from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, insert, select, tuple_

from holdfast.store.db import schema
from holdfast.store.db.statements import load_columns, pieces
from holdfast.tables.snapshots import LoadKey

if TYPE_CHECKING:  # a server must not load ONNX
    from holdfast.train.artifact import UntrainedLoad

_UNTRAINED: Final = schema.untrained_loads
_BATCHES: Final = schema.batches


def put(connection: Connection, version: str, loads: Sequence[UntrainedLoad]) -> None:
    """Insert `loads` of `version` in the caller's transaction; those that the ledger does not have are left out."""
    known = {
        tuple(row)
        for some in pieces([load[:3] for load in loads])
        for row in connection.execute(
            select(*load_columns(_BATCHES)).where(tuple_(*load_columns(_BATCHES)).in_(some))
        )
    }
    rows = [
        {"version": version, "feed": feed, "batch": batch, "epoch": epoch, "rows_held_out": rows_held_out}
        for feed, batch, epoch, rows_held_out in loads
        if (feed, batch, epoch) in known
    ]
    if rows:
        connection.execute(insert(_UNTRAINED), rows)


def of_versions(
    connection: Connection, versions: Sequence[str], feeds: Iterable[str]
) -> dict[str, dict[LoadKey, int]]:
    """Return by version its untrained loads of `feeds`, each with the number of its held-out rows."""
    found: dict[str, dict[LoadKey, int]] = {version: {} for version in versions}
    of_feeds = _UNTRAINED.c.feed.in_(list(feeds))
    for some in pieces(list(versions)):
        for row in connection.execute(select(_UNTRAINED).where(_UNTRAINED.c.version.in_(some), of_feeds)):
            found[row.version][row.feed, row.batch, row.epoch] = row.rows_held_out
    return found
