"""The labels of one feedback request: those to store, and the result of each."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.errors import ConflictError, HoldfastError
from holdfast.feedback import Arrival, KnownLabel, compare_labels
from holdfast.records import Corrections
from holdfast.serve.api.label_items import LabelRecord, name_of, subject_of
from holdfast.store.serving.prediction_log import KeyFeedbackRecord


@dataclass(slots=True)
class TakenLabels:
    """What becomes of the labels of a request. Never all or nothing: each has a result of its own."""

    is_list: bool
    corrections: Corrections
    """What the label feeds declare. Another value for a key is a correction whatever they declare: every one is kept."""
    records: list[LabelRecord] = field(default_factory=list)
    """What is stored: accepted labels, and those for the quarantine."""
    newest: dict[str, KnownLabel] = field(default_factory=dict)
    """The newest label of each prediction or key in the request."""
    _results: list[dict[str, object]] = field(default_factory=list)
    _rejected: int = 0
    _quarantined: int = 0

    def add(self, item: object, record: LabelRecord, standing: KnownLabel | None) -> None:
        """Add the label of `item` to those that are stored. `standing` is the newest label before the request.

        Raises `ConflictError` HF505 if it contradicts an earlier label of its source and no correction is declared.
        """
        subject, is_key = subject_of(record), isinstance(record, KeyFeedbackRecord)
        standing = self.newest.get(subject, standing)
        label = KnownLabel(record.value, record.source)
        arrival = compare_labels(label, standing, "latest" if is_key else self.corrections)
        result: dict[str, object] = {
            **(name_of(item) if is_key else {"id": subject}),
            "status": arrival.value,
        }
        match arrival:
            case Arrival.ACCEPTED | Arrival.CORRECTED:
                self.newest[subject] = label
                result["status"] = Arrival.ACCEPTED.value
                if arrival is Arrival.CORRECTED and self.corrections != "latest":
                    result["warning"] = (
                        "the first label of the key counts; this one is kept without effect, because no label feed "
                        'declares corrections="latest"'
                    )
            case Arrival.QUARANTINED:
                assert standing is not None, "it contradicts a label"
                self._quarantined += 1
                result |= {
                    "code": "HF505",
                    "error": f"source {standing.source!r} labelled it {standing.value:g}, and only that source can "
                    "correct it; this label is quarantined",
                }
            case Arrival.CONTRADICTS:
                assert standing is not None, "it contradicts a label"
                raise ConflictError(
                    "HF505",
                    f"{subject} has the label {standing.value:g} already, {label.value:g} contradicts it; the "
                    'earlier one stands, because no label feed declares corrections="latest"',
                )
        self.records.append(record)
        self._results.append(result)

    def reject(self, item: object, error: HoldfastError) -> None:
        """Add the result of a label that is not stored."""
        self._rejected += 1
        self._results.append({**name_of(item), "status": "rejected", "code": error.code, "error": error.what})

    @property
    def status(self) -> int:
        """Return the HTTP status: 202, 207 when the sender must look at some results, 409 for one quarantined label."""
        if not self._rejected and not self._quarantined:
            return 202
        return 207 if self.is_list else 409

    @property
    def document(self) -> dict[str, object]:
        """Return the body of the response."""
        accepted = len(self.records) - self._quarantined
        if not self.is_list and not self._quarantined:
            warnings = {name: text for name, text in self._results[0].items() if name == "warning"}
            return {"accepted": accepted, **warnings}
        if not self.is_list:
            return {**{name: self._results[0][name] for name in ("error", "code")}, "reasons": []}
        counts: dict[str, object] = {"accepted": accepted, "rejected": self._rejected}
        if self._quarantined:
            counts["quarantined"] = self._quarantined
        return counts | {"results": self._results}
