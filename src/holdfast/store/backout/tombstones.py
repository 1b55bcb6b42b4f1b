"""Tombstones: small durable files that mark loads as backed out.

They are stored with the rows, so that a ledger that is rebuilt from the files does not restore removed rows. A tombstone
is written before the transaction that removes the load commits. A load that has one and is still published in the ledger
belongs to an unfinished back-out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, select

from holdfast import records
from holdfast.store.db import schema
from holdfast.store.db.statements import of_load
from holdfast.store.durability import fsync
from holdfast.tables.snapshots import LoadKey

TOMBSTONES_DIRECTORY: Final = "tombstones"
"""Their directory under the store's root: `tombstones/<feed>.<batch>.<epoch>.json`."""


_BATCHES: Final = schema.batches
_BACKOUTS: Final = schema.backouts
_OF: Final = schema.backout_batches
_TAINTS: Final = schema.taints
_MADE: Final = schema.versions
_WHY: Final = ("feed", "batch", "plan_json", "reason", "actor", "requested_at_us")
_KEPT: Final = (
    "digest",
    "contract_hash",
    "rows_received",
    "rows_loaded",
    "rows_quarantined",
    "event_time_min_us",
    "event_time_max_us",
    "source",
)


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A load that was backed out: its row of `batches`, the back-out, and the time (microseconds UTC)."""

    load: LoadKey
    backout_id: int
    at_us: int
    batch: dict[str, Any]
    why: dict[str, Any] = field(default_factory=dict)
    """The back-out: feed, batch, reason, actor, requested_at_us, plan; empty if unknown."""
    snapshots: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    """Tainted snapshots by name, and versions by digest, because a version may be registered again by another number."""
    table_version: int | None = None
    """The table version from which on the load was in its tables."""
    removed_version: int | None = None
    """The table version from which on it was removed."""


def record(root: Path, connection: Connection, loads: Sequence[LoadKey], *, backout: int, at_us: int) -> None:
    """Write a durable tombstone for each of `loads`, in the transaction that marks them as backed out.

    Parameters
    ----------
    root
        The store's root.
    connection
        The transaction.
    loads
        The loads. An existing tombstone is replaced.
    backout
        The number of the back-out.
    at_us
        The current time, microseconds since 1970 UTC.
    """
    fsync.make_directory(root / TOMBSTONES_DIRECTORY)
    tainted = _tainted(connection, backout)
    for load in loads:
        feed, batch, epoch = load
        row = connection.execute(select(_BATCHES).where(of_load(_BATCHES, load))).mappings().one()
        removed = select(func.max(_OF.c.removed_version)).where(of_load(_OF, load))
        content = {
            "feed": feed,
            "batch": batch,
            "epoch": epoch,
            "backout_id": backout,
            "at_us": at_us,
            "kept": {name: row[name] for name in _KEPT},
            "table_version": row["table_version"],
            "removed_version": connection.execute(removed).scalar(),
            **tainted,
        }
        fsync.replace(path_of(root, load), records.checked_json(content))


def _tainted(connection: Connection, backout: int) -> dict[str, Any]:
    """Return the back-out, and what it tainted so far in this transaction."""
    why = connection.execute(
        select(*(_BACKOUTS.c[name] for name in _WHY)).where(_BACKOUTS.c.backout_id == backout)
    )
    row = why.mappings().one_or_none()
    mine = (_TAINTS.c.backout_id == backout) & (_TAINTS.c.kind == "snapshot")
    snapshots = select(_TAINTS.c.subject).where(mine).order_by(_TAINTS.c.subject)
    digests = (
        select(_MADE.c.digest)
        .join(_TAINTS, (_TAINTS.c.kind == "version") & (_TAINTS.c.subject == _MADE.c.version))
        .where(_TAINTS.c.backout_id == backout)
        .order_by(_MADE.c.digest)
    )
    return {
        "why": {} if row is None else dict(row),
        "snapshots": list(connection.execute(snapshots).scalars()),
        "versions": list(connection.execute(digests).scalars()),
    }


def path_of(root: Path, load: LoadKey) -> Path:
    """Return the path of the tombstone of `load`. Names have no dot, so the parts are unambiguous."""
    feed, batch, epoch = load
    return root / TOMBSTONES_DIRECTORY / f"{feed}.{batch}.{epoch}.json"


def on_disk(root: Path) -> list[Path]:
    """Return the paths of all tombstones, in order of name."""
    return fsync.files_in(root / TOMBSTONES_DIRECTORY)


def read(path: Path) -> Tombstone:
    """Return the tombstone at `path`. Raises `IntegrityError` HF301 if it is missing, damaged, or of another load."""
    try:
        content = records.from_checked_json(path.read_bytes())
        load = [content[name] for name in ("feed", "batch", "epoch")]
        found = msgspec.convert(content | {"load": load, "batch": content["kept"]}, Tombstone)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise fsync.damaged(f"tombstone {path.name}", "is missing or cannot be read") from error
    if path.name != path_of(path.parent, found.load).name:
        other = f"holds the tombstone of another load, {found.load[0]}/{found.load[1]}"
        raise fsync.damaged(f"tombstone {path.name}", other)
    return found
