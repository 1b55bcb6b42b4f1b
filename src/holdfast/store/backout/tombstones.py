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

from sqlalchemy import Connection, func, select

from holdfast import records
from holdfast.errors import IntegrityError
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
        query = select(*(_BATCHES.c[name] for name in _KEPT)).where(of_load(_BATCHES, load))
        kept = dict(connection.execute(query).mappings().one())
        content = {
            "feed": feed,
            "batch": batch,
            "epoch": epoch,
            "backout_id": backout,
            "at_us": at_us,
            "kept": kept,
            **_span(connection, load),
            **tainted,
        }
        fsync.replace(path_of(root, load), records.checked_json(content))


def _span(connection: Connection, load: LoadKey) -> dict[str, int | None]:
    """Return the table versions from which on the load was in its tables, and was removed."""
    made = select(_BATCHES.c.table_version).where(of_load(_BATCHES, load))
    removed = select(func.max(_OF.c.removed_version)).where(of_load(_OF, load))
    return {
        "table_version": connection.execute(made).scalar_one(),
        "removed_version": connection.execute(removed).scalar(),
    }


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
    return sorted(path for path in (root / TOMBSTONES_DIRECTORY).glob("*.json") if path.name[0] != ".")


def read(path: Path) -> Tombstone:
    """Return the tombstone at `path`. Raises `IntegrityError` HF301 if it is missing, damaged, or of another load."""
    try:
        content = records.from_checked_json(path.read_bytes())
        load = (str(content["feed"]), str(content["batch"]), int(content["epoch"]))
        found = Tombstone(
            load,
            int(content["backout_id"]),
            int(content["at_us"]),
            dict(content["kept"]),
            dict(content.get("why", {})),
            tuple(map(str, content.get("snapshots", ()))),
            tuple(map(str, content.get("versions", ()))),
            content.get("table_version"),
            content.get("removed_version"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "is missing or cannot be read") from error
    if path.name != path_of(path.parent, load).name:
        raise _damaged(path, f"holds the tombstone of another load, {load[0]}/{load[1]}")
    return found


def _damaged(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        "HF301",
        f"tombstone {path.name} {reason}",
        state="nothing was changed",
        next_command="holdfast verify --repair",
    )
