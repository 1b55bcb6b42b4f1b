"""What decides over an arriving label: the declared corrections, and which prediction ids can have been issued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from holdfast.feedback.prediction_ids import MAX_ROW, IdKey, PredictionId
from holdfast.records import Corrections


class IdCheck(StrEnum):
    """What is known of a prediction id."""

    VALID = "valid"  # its tag is right, and every request has its row
    ROW_UNVERIFIED = (
        "row unverified"  # its tag is right; only the collected log shows whether its request had the row
    )
    UNVERIFIED = "unverified"  # only the collected log shows whether it was issued
    NOT_ISSUED = "not issued"


@dataclass(frozen=True, slots=True)
class LabelRules:
    """The rules for labels of one model.

    Parameters
    ----------
    corrections
        Which of several labels of one prediction counts, as the label feeds declare it; "first" without a label feed.
    secret
        The secret of the ledger that tags prediction ids; empty if it is not known here.
    untagged
        The servers whose logs may have ids without a tag, with the first segment that has none of them; None if all may.
    """

    corrections: Corrections = "first"
    secret: bytes = field(default=b"", repr=False)
    untagged: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def key(self) -> IdKey | None:
        """Return the key of prediction ids; None if the secret is not known."""
        return IdKey(self.secret) if self.secret else None

    def check_id(self, prediction: PredictionId) -> IdCheck:
        """Return whether a server of this ledger can have issued `prediction`."""
        if prediction.row > MAX_ROW:
            return IdCheck.NOT_ISSUED
        key = self.key
        if key is None:
            return IdCheck.UNVERIFIED
        if prediction.tag:
            if not key.has_tagged(prediction):
                return IdCheck.NOT_ISSUED
            return (
                IdCheck.ROW_UNVERIFIED if prediction.row else IdCheck.VALID
            )  # a tag is of the request, not of the row
        if prediction.server not in self.untagged:
            return IdCheck.NOT_ISSUED
        tagged_from = self.untagged[prediction.server]
        is_older = tagged_from is None or prediction.segment < tagged_from
        return IdCheck.UNVERIFIED if is_older else IdCheck.NOT_ISSUED
