"""Holds the story against its own chain, and against a head that was kept elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.store import Store
from holdfast.store.db import event_chain as chain
from holdfast.store.db.event_chain import Chain, Head


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found; `troubles` in words, empty when the story is the one that was told."""

    chain: Chain
    troubles: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.troubles

    def as_dict(self) -> dict[str, Any]:
        """The audit as plain JSON."""
        broken = self.chain.broken
        return {
            "clean": self.clean,
            "events": self.chain.events,
            "head": None if self.chain.head is None else str(self.chain.head),
            "broken_event": None if broken is None else broken.event_id,
            "troubles": list(self.troubles),
        }


def audit(store: Store, *, since: int = 0, kept: Head | None = None) -> Audit:
    """Check the chain of events after number `since`, and that `kept` still stands.

    Guarantee: with `since` 0 and a `kept` that stands, every event up to `kept` is as it was when it was kept.
    """
    with store.ledger.read() as connection:
        found = chain.check(connection, since=since)
        trouble = "" if kept is None else chain.trouble_with(connection, kept)
    troubles = () if found.broken is None else (found.broken.explanation,)
    return Audit(found, (*troubles, trouble) if trouble else troubles)
