"""Rows of `vacuumed_snapshots`: snapshots that lost files. Their contents are known but can no longer be read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, insert, select

from holdfast.errors import NotFoundError
from holdfast.store.db import schema

_LET_GO: Final = schema.vacuumed_snapshots


def mark(connection: Connection, snapshots: Sequence[str], *, now_us: int) -> None:
    """Note in the caller's transaction that `snapshots` can no longer be read."""
    if snapshots:
        connection.execute(
            insert(_LET_GO), [{"snapshot": snapshot, "vacuumed_at_us": now_us} for snapshot in snapshots]
        )


def everything(connection: Connection) -> frozenset[str]:
    """Return every snapshot that can no longer be read."""
    return frozenset(connection.execute(select(_LET_GO.c.snapshot)).scalars())


def refuse(connection: Connection, snapshot: str) -> None:
    """Raise `NotFoundError` HF315 if a vacuum removed rows of `snapshot`."""
    query = select(_LET_GO.c.vacuumed_at_us).where(_LET_GO.c.snapshot == snapshot)
    at_us = connection.execute(query).scalar_one_or_none()
    if at_us is not None:
        moment = datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        raise NotFoundError(
            "HF315",
            f"the vacuum of {moment} let rows of snapshot {snapshot} go, so it cannot be read any more",
            state="nothing was read; what was in it is known, as holdfast lineage shows",
            next_command="holdfast snapshot create, or holdfast train",
        )
