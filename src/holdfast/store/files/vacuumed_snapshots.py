"""Rows of `vacuumed_snapshots`: snapshots that lost files. Their contents are known but can no longer be read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, insert, select

from holdfast.errors import NotFoundError
from holdfast.store.db import schema

_VACUUMED: Final = schema.vacuumed_snapshots


def mark(connection: Connection, snapshots: Sequence[str], *, now_us: int) -> None:
    """Note in the caller's transaction that `snapshots` can no longer be read."""
    if snapshots:
        connection.execute(
            insert(_VACUUMED), [{"snapshot": snapshot, "vacuumed_at_us": now_us} for snapshot in snapshots]
        )


def names(connection: Connection) -> frozenset[str]:
    """Return every snapshot that can no longer be read."""
    return frozenset(connection.execute(select(_VACUUMED.c.snapshot)).scalars())


def raise_if_vacuumed(connection: Connection, snapshot: str) -> None:
    """Raise `NotFoundError` HF315 if a vacuum removed rows of `snapshot`."""
    query = select(_VACUUMED.c.vacuumed_at_us).where(_VACUUMED.c.snapshot == snapshot)
    at_us = connection.execute(query).scalar_one_or_none()
    if at_us is not None:
        removed_at = datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        raise NotFoundError(
            "HF315",
            f"rows of snapshot {snapshot} were removed at {removed_at}, so it can no longer be read",
            state="nothing was read; holdfast lineage still shows what was in it",
            next_command="holdfast snapshot create, or holdfast train",
        )
