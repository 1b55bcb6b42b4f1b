"""Rows of `log_positions`: how far each segment of each server's prediction log has been collected.

The read position moves only in the transaction that stores what was read, and only from where the reader found it. A
killed collector reads the same records again and nothing counts twice; of two collectors that race, one is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Insert, Update, select, update

from holdfast.errors import ConflictError
from holdfast.store.db.schema import log_positions
from holdfast.store.db.statements import inserting, total


@dataclass(frozen=True, slots=True)
class Position:
    """How far one segment has been collected."""

    server: str
    segment: int
    collected_bytes: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything that was collected: prediction requests, labels, and rejected labels."""

    predictions: int
    feedback: int
    rejected_labels: int


def positions(connection: Connection, server: str) -> dict[int, Position]:
    """Return how far each segment of `server` has been collected, by segment; a new one is absent."""
    query = select(log_positions.c.segment, log_positions.c.collected_bytes).where(
        log_positions.c.server == server
    )
    return {segment: Position(server, segment, collected) for segment, collected in connection.execute(query)}


def advance(
    connection: Connection,
    found: Position,
    collected_bytes: int,
    *,
    predictions: int,
    feedback: int,
    rejected: int,
) -> None:
    """Move the read position of a segment, and add to its counts.

    Parameters
    ----------
    connection
        The caller's transaction.
    found
        The position from which the reader began.
    collected_bytes
        The new position.
    predictions, feedback, rejected
        Collected prediction requests, labels, and rejected labels.

    Raises
    ------
    ConflictError
        HF304 when another collector has moved it since; the transaction must not commit.
    """
    if found.collected_bytes == 0:
        statement: Insert | Update = (
            inserting(connection, log_positions)
            .on_conflict_do_nothing()
            .values(
                server=found.server,
                segment=found.segment,
                collected_bytes=collected_bytes,
                predictions=predictions,
                feedback=feedback,
                rejected_labels=rejected,
            )
        )
    else:
        statement = (
            update(log_positions)
            .where(log_positions.c.server == found.server, log_positions.c.segment == found.segment)
            .where(log_positions.c.collected_bytes == found.collected_bytes)
            .values(
                collected_bytes=collected_bytes,
                predictions=log_positions.c.predictions + predictions,
                feedback=log_positions.c.feedback + feedback,
                rejected_labels=log_positions.c.rejected_labels + rejected,
            )
        )
    if connection.execute(statement).rowcount != 1:
        raise ConflictError(
            "HF304",
            f"another collector has moved on from byte {found.collected_bytes} of {found.server}/{found.segment}",
            state="nothing of this part was written; the other collector has it",
        )


def delete_collected(collected: Sequence[Path], *, keep_bytes: int) -> list[Path]:
    """Delete completely collected segments, the oldest first, until `keep_bytes` are left; return the deleted ones.

    A server stops logging when its directory is full; what was collected is in the ledger and in Parquet. Pass the
    segments in order, and never the one that a server may still write.
    """
    sizes = {path: path.stat().st_size for path in collected}
    excess = sum(sizes.values()) - keep_bytes
    removed = []
    for path, size in sizes.items():
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        removed.append(path)
        excess -= size
    return removed


def totals(connection: Connection) -> Totals:
    """Return what was collected from all servers since the ledger began."""
    rows = log_positions.c
    query = select(total(rows.predictions), total(rows.feedback), total(rows.rejected_labels))
    predictions, feedback, rejected = connection.execute(query).one()
    return Totals(predictions, feedback, rejected)
