"""Audit of the event log: its hash chain, and a head that was stored elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.store import Store
from holdfast.store.db import event_chain as chain
from holdfast.store.db.event_chain import Chain, Head


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit; `errors` is empty if the event log is intact."""

    chain: Chain
    errors: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Return True if nothing is wrong."""
        return not self.errors

    def as_dict(self) -> dict[str, Any]:
        """Return the audit as plain JSON."""
        broken = self.chain.broken
        return {
            "clean": self.clean,
            "events": self.chain.events,
            "head": None if self.chain.head is None else str(self.chain.head),
            "broken_event": None if broken is None else broken.event_id,
            "errors": list(self.errors),
        }


def audit(store: Store, *, since: int = 0, kept: Head | None = None) -> Audit:
    """Check the chain of events after number `since`, and that the stored head `kept` still matches.

    With `since` 0 and a `kept` that matches, every event up to `kept` is as it was when the head was stored.
    """
    with store.ledger.read() as connection:
        found = chain.check(connection, since=since)
        reason = "" if kept is None else chain.head_mismatch(connection, kept)
    reasons = () if found.broken is None else (found.broken.explanation,)
    return Audit(found, (*reasons, reason) if reason else reasons)
