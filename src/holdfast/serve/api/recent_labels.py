"""Recent labels of a server: a label that differs from an earlier one gets its result at once.

The ledger decides which label stands, when the control loop collects the logs; a server responds without it. The
labels in the server's own log are in the order in which they came, so that a later value is rejected for certain.
Labels from before the start, of other servers, and older ones are unknown here: they are accepted, and checked by the
loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from holdfast.feedback import KnownLabel

MAX_LABELS: Final = 100_000
"""Of so many predictions and keys a server remembers the label: about 20 MB."""


class RecentLabels:
    """The newest `at_most` labels of this server, by prediction id or key. Belongs to one thread."""

    def __init__(self, at_most: int = MAX_LABELS) -> None:
        self._at_most = at_most
        self._newest: dict[str, KnownLabel] = {}

    def find(self, subject: str) -> KnownLabel | None:
        """Return the newest label of a prediction or key; None if none is remembered."""
        return self._newest.get(subject)

    def add(self, newest: Mapping[str, KnownLabel]) -> None:
        """Add the newest labels of a request that are in the log."""
        self._newest.update(newest)
        while len(self._newest) > self._at_most:
            del self._newest[next(iter(self._newest))]

    def remove(self, subjects: Iterable[str]) -> None:
        """Remove labels that the disk did not take: the client must send them again."""
        for each in subjects:
            self._newest.pop(each, None)
