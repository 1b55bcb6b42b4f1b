"""The manifest of a batch: what each of its files says about itself, so that a file can be told without the ledger."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

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

    def differences(self, footer: dict[str, Any]) -> list[str]:
        """The fields of `footer` that do not agree with this manifest, each in words."""
        return [
            f"{name} is {footer.get(name)!r}, the ledger says {value!r}"
            for name, value in self.as_dict().items()
            if footer.get(name) != value
        ]
