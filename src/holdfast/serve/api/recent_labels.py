"""Which labels a server took lately, so that a caller who says another thing of the same answer hears so at once.

The ledger decides which label stands, when the control loop collects the logs; a server answers without it. What this server
took itself stands in its own log, in the order in which it came: there a later value is refused for certain. Of labels from
before its start, of those that other servers took and of older ones it knows nothing: they are taken, and refused by the loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from holdfast.errors import ConflictError
from holdfast.feedback import Arrival, arrival
from holdfast.store.serving.prediction_log import FeedbackRecord

MAX_LABELS: Final = 100_000
"""Of so many labels a server remembers the value: about 20 MB."""


class RecentLabels:
    """The values that this server took, the newest `at_most` of them. Belongs to one thread."""

    def __init__(self, at_most: int = MAX_LABELS) -> None:
        self._at_most = at_most
        self._values: dict[str, float] = {}

    def check(self, records: Iterable[FeedbackRecord]) -> None:
        """Raise `ConflictError` HF505 when a label says another value than one that was taken, or than one beside it."""
        in_request: dict[str, float] = {}
        for each in records:
            known = self._values.get(each.prediction, in_request.get(each.prediction))
            if arrival(each.prediction, each.value, known) is Arrival.CONTRADICTS:
                raise ConflictError(
                    "HF505",
                    f"{each.prediction} has the label {known:g} already, {each.value:g} contradicts it; the earlier one stands",
                )
            in_request.setdefault(each.prediction, each.value)

    def add(self, records: Iterable[FeedbackRecord]) -> None:
        """Remember labels that stand in the log."""
        for each in records:
            self._values.setdefault(each.prediction, each.value)
        while len(self._values) > self._at_most:
            del self._values[next(iter(self._values))]

    def remove(self, records: Iterable[FeedbackRecord]) -> None:
        """Forget labels that the disk did not take: whoever sent them is asked to send them again."""
        for each in records:
            self._values.pop(each.prediction, None)
