"""Rows of `taints`: snapshots and versions made from rows that were backed out; they may no longer be used."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final, Literal

from sqlalchemy import Connection, func, select

from holdfast.errors import RefusedError
from holdfast.store.db import schema
from holdfast.store.db.rows import are_there
from holdfast.store.db.statements import inserting
from holdfast.tables.row_use import RowUse

Subject = Literal["snapshot", "version"]

_TAINTS: Final = schema.taints
_BACKOUTS: Final = schema.backouts
_VERSIONS: Final = schema.versions


def add(
    connection: Connection,
    kind: Subject,
    subjects: Iterable[str],
    *,
    backout: int,
    now_us: int,
    evaluated: Container[str] = (),
) -> None:
    """Taint `subjects` in the caller's transaction; repeated subjects have no effect.

    Parameters
    ----------
    connection
        The caller's transaction.
    kind
        What they are.
    subjects
        The names of snapshots or versions.
    backout
        The number of the back-out.
    now_us
        The current time, microseconds since 1970 UTC.
    evaluated
        Those versions of which held-out rows, and no training row, are backed out.
    """
    rows = [
        {
            "kind": kind,
            "subject": subject,
            "backout_id": backout,
            "tainted_at_us": now_us,
            "row_use": RowUse.EVALUATED.value if subject in evaluated else None,
        }
        for subject in subjects
    ]
    if rows:
        connection.execute(inserting(connection, _TAINTS).on_conflict_do_nothing(), rows)


def count(connection: Connection) -> tuple[int, int]:
    """Return how many snapshots and versions are tainted, and the newest back-out that tainted one; changes with any."""
    found = connection.execute(select(func.count(), func.max(_TAINTS.c.backout_id))).one()
    return int(found[0]), int(found[1] or 0)


def tainted(connection: Connection, kind: Subject, subject: str) -> bool:
    """Return True if `subject` was made from rows that were backed out."""
    query = select(_TAINTS.c.subject).where(_TAINTS.c.kind == kind, _TAINTS.c.subject == subject)
    return are_there(connection, query)


def refuse(connection: Connection, kind: Subject, subject: str) -> None:
    """Raise `RefusedError` HF406, which names the batch and the next command, if `subject` is tainted."""
    reason = why(connection, kind, subject)
    if reason:
        cure = "holdfast train, which makes a new snapshot" if kind == "snapshot" else "holdfast train"
        raise RefusedError(
            "HF406", f"{kind} {subject} is tainted: {reason}", state="nothing was written", next_command=cure
        )


def why(connection: Connection, kind: Subject, subject: str) -> str:
    """Return the backed-out batch and the reason as text; empty if `subject` is clean."""
    query = (
        select(_BACKOUTS.c.feed, _BACKOUTS.c.batch, _BACKOUTS.c.reason, _TAINTS.c.row_use)
        .join(_TAINTS, _TAINTS.c.backout_id == _BACKOUTS.c.backout_id)
        .where(_TAINTS.c.kind == kind, _TAINTS.c.subject == subject)
        .order_by(_TAINTS.c.row_use.is_not(None), _TAINTS.c.backout_id)  # training rows first: the graver
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return ""
    made = "made from" if row.row_use is None else "evaluated on, and not trained on,"
    return f"it was {made} {row.feed}/{row.batch}, which was backed out: {row.reason}"


def versions_of(connection: Connection, model: str) -> frozenset[str]:
    """Return the tainted versions of `model`."""
    query = (
        select(_TAINTS.c.subject)
        .join(_VERSIONS, _VERSIONS.c.version == _TAINTS.c.subject)
        .where(_TAINTS.c.kind == "version", _VERSIONS.c.model == model)
    )
    return frozenset(connection.execute(query).scalars())
