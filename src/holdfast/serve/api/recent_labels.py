"""Recent labels of a server: one that differs from an earlier label gets its result at once, one that repeats it costs nothing.

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
"""Of so many predictions and keys a server remembers the label, and as many quarantined labels: about 20 MB each."""


class RecentLabels:
    """The newest `at_most` labels of this server, by prediction id or key. Belongs to one thread."""

    def __init__(self, at_most: int = MAX_LABELS) -> None:
        self._at_most = at_most
        self._newest: dict[str, KnownLabel] = {}
        self._quarantined: dict[tuple[str, str], float] = {}

    def find(self, subject: str) -> KnownLabel | None:
        """Return the newest label of a prediction or key; None if none is remembered."""
        return self._newest.get(subject)

    def has_quarantined(self, subject: str, label: KnownLabel) -> bool:
        """Return True if this label, which is quarantined, is in the log already."""
        return self._quarantined.get((subject, label.source)) == label.value

    def add(
        self, newest: Mapping[str, KnownLabel], quarantined: Mapping[tuple[str, str], float] | None = None
    ) -> None:
        """Add the labels of a request that are in the log: the newest of each subject, and the quarantined ones.

        `quarantined` has their values by subject and source.
        """
        self._newest.update(newest)
        self._quarantined.update(quarantined or {})
        while len(self._newest) > self._at_most:
            del self._newest[next(iter(self._newest))]
        while len(self._quarantined) > self._at_most:
            del self._quarantined[next(iter(self._quarantined))]

    def remove(self, subjects: Iterable[str], quarantined: Iterable[tuple[str, str]] = ()) -> None:
        """Remove labels that the disk did not take: the client must send them again."""
        for each in subjects:
            self._newest.pop(each, None)
        for sender in quarantined:
            self._quarantined.pop(sender, None)
