"""The refusal of a delivery: raised by a step on any machine, recorded in the ledger where the load is driven."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.errors import HoldfastError
from holdfast.records import BatchId, Violation
from holdfast.store import Store
from holdfast.store.feeds import admissions


class RefusalError(Exception):
    """A delivery cannot be a batch of its feed: `violations` are the reasons, `error` is what its sender sees."""

    def __init__(
        self, batch: BatchId, contract_hash: str, violations: tuple[Violation, ...], error: HoldfastError
    ) -> None:
        super().__init__(batch, contract_hash, violations, error)  # all of them, so that it survives a pickle
        self.batch = batch
        self.contract_hash = contract_hash
        self.violations = violations
        self.error = error


@contextmanager
def recorded(store: Store, now_us: int) -> Iterator[None]:
    """Record a `RefusalError` of the block in the ledger at `now_us`, and raise the sender's error instead."""
    try:
        yield
    except RefusalError as refusal:
        with store.ledger.write() as connection:
            admissions.refuse(
                connection,
                refusal.batch,
                refusal.violations,
                contract_hash=refusal.contract_hash,
                now_us=now_us,
            )
        raise refusal.error from None
