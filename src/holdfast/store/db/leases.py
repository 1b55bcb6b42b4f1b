"""Rows of `leases`: at most one holder per lease, and an epoch that fences a former holder.

A lease is taken over by *observed change*. A process that wants it remembers the row and when, on its own clock, it first saw
it so. Only if the row stays unchanged for the whole duration of the lease, the holder is considered dead. The clocks of two
machines are never compared. A wrong conclusion does no harm: every write under a lease asserts the epoch in
its own transaction, and a lease that was taken over has a larger one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, bindparam, case, insert, select, update

from holdfast.errors import ConflictError
from holdfast.store.db import schema
from holdfast.store.db.statements import Prepared

_LEASES: Final = schema.leases
_RELEASED: Final = ""
_HERE: Final = _LEASES.c.lease == bindparam("named")
_NOW: Final = bindparam("now_us", type_=_LEASES.c.renewed_at_us.type)
_EPOCH: Final = Prepared(
    select(_LEASES.c.epoch).where(_HERE, _LEASES.c.epoch == bindparam("epoch"), _LEASES.c.holder != _RELEASED)
)
# FOR UPDATE keeps a take-over out until the caller's commit; SQLite's single writer does so anyway and ignores it.
_CURRENT_HOLDER: Final = Prepared(select(_LEASES.c.holder, _LEASES.c.epoch).where(_HERE).with_for_update())
_RENEW: Final = Prepared(
    update(_LEASES)
    .where(_HERE, _LEASES.c.epoch == bindparam("epoch"), _LEASES.c.holder != _RELEASED)
    # It must change even if the holder's clock stands still or goes back: change is what observers look for.
    .values(renewed_at_us=case((_LEASES.c.renewed_at_us < _NOW, _NOW), else_=_LEASES.c.renewed_at_us + 1))
)


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that is held: pass `name` and `epoch` to `assert_epoch` in every write that it covers."""

    name: str
    holder: str
    epoch: int
    duration_us: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """The row of another holder's lease, and since when the observer's own clock has seen it so."""

    name: str
    holder: str
    epoch: int
    renewed_at_us: int
    since_us: int


def is_expired(now: Sighting, before: Sighting | None, duration_us: int) -> bool:
    """Return True if the row stayed unchanged for its whole duration while one observer watched.

    >>> first = Sighting("control", "a", 1, 500, since_us=0)
    >>> is_expired(Sighting("control", "a", 1, 500, since_us=90), first, 100)
    False
    >>> is_expired(Sighting("control", "a", 1, 500, since_us=100), first, 100)
    True
    >>> is_expired(Sighting("control", "a", 1, 501, since_us=100), first, 100)
    False
    """
    if before is None:
        return False
    unchanged = replace(now, since_us=before.since_us) == before
    return unchanged and now.since_us - before.since_us >= duration_us


def acquire(
    connection: Connection,
    name: str,
    *,
    holder: str,
    duration_us: int,
    now_us: int,
    seen: Sighting | None = None,
) -> Lease | Sighting:
    """Return the lease if it is free, released, `holder`'s own, or unchanged for long enough; else a `Sighting`.

    The transaction must be one that writes: only one runs at a time, so that the lease stays as it is read here.
    A holder that acquires its own lease again gets a new epoch, so that a forgotten twin is fenced.

    Parameters
    ----------
    holder
        Id of the caller, unique for each running loop, not empty.
    duration_us
        How long the row may stay unchanged before other processes take it over, microseconds. Renew several times in it.
    now_us
        The caller's clock, microseconds, read before the call. Only differences between calls of the same caller are used.
    seen
        The `Sighting` that the previous call returned, None on the first.
    """
    if not holder or duration_us <= 0:
        raise ValueError("a lease needs a holder with a name and a positive duration")
    row = connection.execute(select(_LEASES).where(_LEASES.c.lease == name)).mappings().one_or_none()
    if row is None:
        values = {"holder": holder, "epoch": 1, "renewed_at_us": now_us, "duration_us": duration_us}
        connection.execute(insert(_LEASES).values(lease=name, **values))
        return Lease(name, holder, 1, duration_us)
    looks = Sighting(name, row["holder"], row["epoch"], row["renewed_at_us"], now_us)
    if row["holder"] in (_RELEASED, holder) or is_expired(looks, seen, row["duration_us"]):
        connection.execute(
            update(_LEASES)
            .where(_LEASES.c.lease == name)
            .values(
                holder=holder,
                epoch=row["epoch"] + 1,
                renewed_at_us=max(now_us, row["renewed_at_us"] + 1),
                duration_us=duration_us,
            )
        )
        return Lease(name, holder, row["epoch"] + 1, duration_us)
    # While nothing changed, the old sighting stays, so that its time runs on.
    return seen if seen is not None and is_expired(looks, seen, 0) else looks


def renew(connection: Connection, lease: Lease, *, now_us: int) -> None:
    """Renew the lease; `ConflictError` HF304 if another holder has it."""
    values = {"named": lease.name, "epoch": lease.epoch, "now_us": now_us}
    if _RENEW.change(connection, values) != 1:
        assert_epoch(connection, lease.name, lease.epoch)


def is_held(connection: Connection, lease: Lease) -> bool:
    """Return True if no other holder has the lease; a transaction that reads is enough."""
    return bool(_EPOCH.rows(connection, {"named": lease.name, "epoch": lease.epoch}))


def release(connection: Connection, lease: Lease) -> bool:
    """Release the lease, so that the next holder need not wait; False if another holder has it already."""
    result = connection.execute(
        update(_LEASES)
        .filter_by(lease=lease.name, epoch=lease.epoch, holder=lease.holder)
        .values(holder=_RELEASED, renewed_at_us=_LEASES.c.renewed_at_us + 1)
    )
    return result.rowcount == 1


def assert_epoch(connection: Connection, lease: str, epoch: int) -> None:
    """Fence the caller's transaction: `ConflictError` HF304 unless lease `lease` still has `epoch`."""
    row = next(iter(_CURRENT_HOLDER.rows(connection, {"named": lease})), None)
    if row is None or row.epoch != epoch or row.holder == _RELEASED:
        found = (
            "no process holds it"
            if row is None or row.holder == _RELEASED
            else f"{row.holder} holds epoch {row.epoch}"
        )
        raise ConflictError(
            "HF304",
            f"epoch {epoch} of lease {lease!r} is over: {found}",
            state="nothing was written under the old epoch",
            next_command="holdfast status",
        )
