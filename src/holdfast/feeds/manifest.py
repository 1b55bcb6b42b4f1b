"""The manifest in the footer of every file of a batch: the ledger can be rebuilt from files alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from holdfast.records import BatchId

_LOAD: Final = ("feed", "batch", "epoch", "digest", "contract_hash")


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

    def counted(
        self,
        *,
        rows_loaded: int,
        rows_quarantined: int,
        event_time_min_us: int | None,
        event_time_max_us: int | None,
        source: str,
        files: int,
    ) -> Manifest:
        """Return the manifest with the counts and bounds of the finished load."""
        return replace(
            self,
            rows_loaded=rows_loaded,
            rows_quarantined=rows_quarantined,
            event_time_min_us=event_time_min_us,
            event_time_max_us=event_time_max_us,
            source=source,
            files=files,
        )

    def load(self) -> dict[str, str | int]:
        """Return the fields that name the load in the ledger."""
        return {name: getattr(self, name) for name in _LOAD}

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
