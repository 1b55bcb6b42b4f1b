"""The manifest of a batch: what each of its files says about itself, so that it can be told without a
ledger.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from holdfast.records import BatchId


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which load of which batch a file belongs to.

    `digest` is of the delivery, `contract_hash` of the contract that judged it. The writer adds the table,
    the number of rows and the format.
    """

    feed: str
    batch: str
    epoch: int
    digest: str
    contract_hash: str

    @classmethod
    def of(cls, batch: BatchId, epoch: int, digest: str, contract_hash: str) -> Manifest:
        """The manifest of one load."""
        return cls(batch.feed, batch.batch, epoch, digest, contract_hash)

    def as_dict(self) -> dict[str, str | int]:
        """The fields as they stand in a file's footer."""
        return asdict(self)
