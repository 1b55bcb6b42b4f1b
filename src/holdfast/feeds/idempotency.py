"""Decide what to do with a delivery, given the loads of its id in the ledger. No other place decides this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.errors import ConflictError
from holdfast.records import BatchId


@dataclass(frozen=True, slots=True)
class Load:
    """One load of a batch id that the ledger knows; `live` is False once it was backed out."""

    epoch: int
    digest: str
    live: bool
    rows_received: int
    rows_loaded: int
    rows_quarantined: int
    table_version: int


@dataclass(frozen=True, slots=True)
class Publish:
    """The delivery is new: load it as `epoch`."""

    epoch: int


@dataclass(frozen=True, slots=True)
class AlreadyLoaded:
    """The same content is loaded: nothing is to be done."""

    load: Load


def decide(
    batch: BatchId, digest: str, loads: Sequence[Load], *, elsewhere: str | None = None
) -> Publish | AlreadyLoaded:
    """Decide whether a delivery with `digest` is published; `loads` are all known loads of its id.

    Parameters
    ----------
    elsewhere
        The id of a live batch of the same feed that has the same digest, None when there is none.

    The epoch grows by one each time an id is loaded anew after a back-out, so that files of different
    epochs stay distinct. Raises `ConflictError` HF203 when a live load of the id has other
    content, or another id has this content: its rows would count twice.

    >>> decide(BatchId("flights", "d1"), "aa", [])
    Publish(epoch=0)
    """
    for load in loads:
        if load.live and load.digest == digest:
            return AlreadyLoaded(load)
        if load.live:
            raise ConflictError(
                "HF203",
                f"batch {batch} was loaded before with other content ({load.rows_received} rows, digest "
                f"{load.digest[:12]}; this delivery has {digest[:12]})",
                state="the loaded batch is unchanged and this delivery was not loaded",
                next_command=(
                    f"holdfast backout {batch.feed} {batch.batch} if the loaded rows are wrong, and this command again; "
                    "load rows that are only new as a batch of their own"
                ),
            )
    if elsewhere is not None:
        raise ConflictError(
            "HF203",
            f"this delivery is loaded already, as batch {BatchId(batch.feed, elsewhere)}: it has the same bytes "
            f"(digest {digest[:12]})",
            state=f"batch {batch} was not loaded, because its rows would count twice",
            next_command=f"none is needed, the rows are there: holdfast feeds {batch.feed} --batches lists what is loaded",
        )
    return Publish(epoch=max((load.epoch for load in loads), default=-1) + 1)
