"""Rows of `taints`: what was made from rows that were backed out, and may not be used any more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from sqlalchemy import Connection, select

from holdfast.errors import RefusedError
from holdfast.store.db import schema
from holdfast.store.db.dialects import inserting

Subject = Literal["snapshot", "version"]

_TAINTS: Final = schema.taints
_BACKOUTS: Final = schema.backouts
_VERSIONS: Final = schema.versions


def add(connection: Connection, kind: Subject, subjects: Iterable[str], *, backout: int, now_us: int) -> None:
    """Taint `subjects` in the caller's transaction; one that this back-out tainted before stays as it is."""
    rows = [
        {"kind": kind, "subject": subject, "backout_id": backout, "tainted_at_us": now_us}
        for subject in subjects
    ]
    if not rows:
        return
    connection.execute(inserting(connection, _TAINTS).on_conflict_do_nothing(), rows)


def tainted(connection: Connection, kind: Subject, subject: str) -> bool:
    """Whether `subject` was made from rows that were backed out."""
    query = select(_TAINTS.c.subject).where(_TAINTS.c.kind == kind, _TAINTS.c.subject == subject)
    return connection.execute(query.limit(1)).first() is not None


def refuse(connection: Connection, kind: Subject, subject: str) -> None:
    """Raise `RefusedError` HF406, which names the batch and what to do, when `subject` is tainted."""
    words = why(connection, kind, subject)
    if words:
        cure = "holdfast train, which cuts a new snapshot" if kind == "snapshot" else "holdfast train"
        raise RefusedError(
            "HF406", f"{kind} {subject} is tainted: {words}", state="nothing was written", next_command=cure
        )


def why(connection: Connection, kind: Subject, subject: str) -> str:
    """Which batch was backed out under `subject`, and why, in words; empty when it is clean."""
    query = (
        select(_BACKOUTS.c.feed, _BACKOUTS.c.batch, _BACKOUTS.c.reason)
        .join(_TAINTS, _TAINTS.c.backout_id == _BACKOUTS.c.backout_id)
        .where(_TAINTS.c.kind == kind, _TAINTS.c.subject == subject)
        .order_by(_TAINTS.c.backout_id)
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return (
        "" if row is None else f"it was made from {row.feed}/{row.batch}, which was backed out: {row.reason}"
    )


def versions_of(connection: Connection, model: str) -> frozenset[str]:
    """The tainted versions of `model`."""
    query = (
        select(_TAINTS.c.subject)
        .join(_VERSIONS, _VERSIONS.c.version == _TAINTS.c.subject)
        .where(_TAINTS.c.kind == "version", _VERSIONS.c.model == model)
    )
    return frozenset(connection.execute(query).scalars())
