"""The manifest of a batch: what each of its files says about itself, so that it can be told without a
ledger.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from holdfast.records import BatchId


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which load of which batch a file belongs to.

    `digest` is of the delivery, `contract_hash` of the contract that judged it, `key` names the columns that
    tell its rows apart. The writer adds the table, the number of rows and the format.
    """

    feed: str
    batch: str
    epoch: int
    digest: str
    contract_hash: str
    key: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, batch: BatchId, epoch: int, digest: str, contract_hash: str, key: tuple[str, ...] = ()
    ) -> Manifest:
        """The manifest of one load."""
        return cls(batch.feed, batch.batch, epoch, digest, contract_hash, key)

    def load(self) -> dict[str, str | int]:
        """The fields that the ledger keeps of the load too."""
        return {name: value for name, value in asdict(self).items() if name != "key"}

    def as_dict(self) -> dict[str, str | int]:
        """The fields as they stand in a file's footer, the columns of the key joined by "+".

        >>> Manifest("flights", "d1", 0, "aa", "cc", ("carrier", "flight")).as_dict()["key"]
        'carrier+flight'
        """
        return self.load() | {"key": "+".join(self.key)}
