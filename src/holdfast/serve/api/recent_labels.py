"""Recent labels of a server: reject a label at once that contradicts an earlier one.

The ledger decides which label stands, when the control loop collects the logs; a server responds without it. The
labels in the server's own log are in the order in which they came, so that a later value is rejected for certain.
Labels from before the start, of other servers, and older ones are unknown here: they are accepted, and checked by the
loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from holdfast.errors import ConflictError
from holdfast.feedback import Arrival, classify_label
from holdfast.serve.api.label_items import LabelRecord
from holdfast.store.serving.prediction_log import KeyFeedbackRecord

MAX_LABELS: Final = 100_000
"""Of so many labels a server remembers the value: about 20 MB."""


class RecentLabels:
    """The newest `at_most` labels of this server. Belongs to one thread."""

    def __init__(self, at_most: int = MAX_LABELS) -> None:
        self._at_most = at_most
        self._values: dict[str, float] = {}

    def check(self, record: LabelRecord, in_request: dict[str, float]) -> Arrival:
        """Return whether a label is new or repeated. Another value for a key is a correction, and new.

        Parameters
        ----------
        record
            The label.
        in_request
            The values of the same request so far, by prediction; the label is added to it.

        Raises `ConflictError` HF505 if it contradicts an accepted label, or an earlier one of the same request.
        """
        if isinstance(record, KeyFeedbackRecord):
            known = in_request.get(record.key, self._values.get(record.key))
            in_request[record.key] = record.value
            return Arrival.REPEATED if known == record.value else Arrival.ACCEPTED
        known = self._values.get(record.prediction, in_request.get(record.prediction))
        arrival = classify_label(record.prediction, record.value, known)
        if arrival is Arrival.CONTRADICTS:
            raise ConflictError(
                "HF505",
                f"{record.prediction} has the label {known:g} already, {record.value:g} contradicts it; the earlier one "
                f"stands; a correction is sent by the key of the row, or is a row of a label feed",
            )
        in_request.setdefault(record.prediction, record.value)
        return arrival

    def add(self, records: Iterable[LabelRecord]) -> None:
        """Add labels that are in the log."""
        for each in records:
            if isinstance(each, KeyFeedbackRecord):
                self._values[each.key] = each.value
            else:
                self._values.setdefault(each.prediction, each.value)
        while len(self._values) > self._at_most:
            del self._values[next(iter(self._values))]

    def remove(self, records: Iterable[LabelRecord]) -> None:
        """Remove labels that the disk did not take: the client must send them again."""
        for each in records:
            self._values.pop(each.key if isinstance(each, KeyFeedbackRecord) else each.prediction, None)
