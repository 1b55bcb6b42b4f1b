"""Identify a delivery and its load, and decide whether the delivery is new. No other place decides this.

The id names the delivery, the digest its content. A delivery that comes again with the same digest changes nothing,
however often it comes. The same id with another digest is a contradiction that an operator must resolve.

The manifest of a load stands in the footer of each of its files, so that the ledger can be rebuilt from files alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from holdfast.errors import ConflictError
from holdfast.formatting import counted
from holdfast.records import BatchId, check_name

_LOAD: Final = ("feed", "batch", "epoch", "digest", "contract_hash")


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
                f"batch {batch} was loaded before with other content ({counted(load.rows_received, 'row')}, digest "
                f"{load.digest[:12]}; this delivery has {digest[:12]})",
                state="the loaded batch is unchanged and this delivery was not loaded",
                next_command=(
                    f"this command with --batch and another id, if it is another delivery; holdfast backout {batch.feed} "
                    f"{batch.batch} only if the loaded rows are wrong, and this command again"
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


def batch_id(feed: str, batch: str) -> BatchId:
    """Return the id of a delivery, its two names checked; `InputError` HF109 on a name that cannot be used.

    >>> str(batch_id("flights", "2013-01-05"))
    'flights/2013-01-05'
    """
    return BatchId(check_name(feed, "feed"), check_name(batch, "batch"))


def content_digest(pieces: Iterable[bytes | memoryview]) -> str:
    """Return the SHA-256 of the delivery's bytes as they were received, as 64 hexadecimal digits.

    Bytes, not rows: no reading of them can hide a difference. The same rows written again by another tool
    are another content.

    >>> content_digest([b"a,b", b"1,2"]) == content_digest([b"a,b1,2"])
    True
    """
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The load that a file belongs to, and facts about that whole load.

    `digest` is of the delivery, `contract_hash` of the contract that judged it, `key` names the columns that
    identify its rows. `rows_*`, `event_*_us` (microseconds UTC, of the valid rows) and `source` are of the whole load,
    and `files` is the number of files that it has, so that a set of which one is lost is recognised. The writer adds the
    table, the file's number among those of the load, its own rows, and the format.
    """

    feed: str
    batch: str
    epoch: int
    digest: str
    contract_hash: str
    key: tuple[str, ...] = ()
    rows_loaded: int = 0
    rows_quarantined: int = 0
    event_time_min_us: int | None = None
    event_time_max_us: int | None = None
    source: str = ""
    files: int = 0

    @classmethod
    def of(
        cls, batch: BatchId, epoch: int, digest: str, contract_hash: str, key: tuple[str, ...] = ()
    ) -> Manifest:
        """Return the manifest of one load of which nothing is counted yet."""
        return cls(batch.feed, batch.batch, epoch, digest, contract_hash, key)

    def as_dict(self) -> dict[str, str | int]:
        """Return the fields as they stand in a file's footer.

        The columns of the key are joined by "+"; unknown fields are left out.

        >>> Manifest("flights", "d1", 0, "aa", "cc", ("carrier", "flight")).as_dict()["key"]
        'carrier+flight'
        """
        known = {name: getattr(self, name) for name in _NAMES if getattr(self, name) is not None}
        return known | {"key": "+".join(self.key)}

    @classmethod
    def from_dict(cls, footer: Mapping[str, Any]) -> Manifest | None:
        """Return the manifest in `footer`, None if it is not that of one load.

        >>> written = Manifest("flights", "d1", 0, "aa", "cc", ("id",), rows_loaded=3, files=1)
        >>> Manifest.from_dict(written.as_dict() | {"table": "flights", "rows": 3}) == written
        True
        """
        if not all(name in footer for name in _LOAD):
            return None
        found = {field.name: footer[field.name] for field in fields(cls) if field.name in footer}
        return cls(**{**found, "key": tuple(filter(None, str(footer.get("key", "")).split("+")))})


_NAMES: Final = tuple(field.name for field in fields(Manifest))
