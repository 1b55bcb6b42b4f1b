"""The labels of one feedback request: those to store, and the result of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.errors import ConflictError, HoldfastError
from holdfast.feedback import Arrival, KnownLabel, compare_labels
from holdfast.records import Corrections
from holdfast.serve.api.label_items import LabelRecord, name_of, subject_of
from holdfast.serve.api.recent_labels import RecentLabels
from holdfast.store.serving.prediction_log import KeyFeedbackRecord


@dataclass(slots=True)
class TakenLabels:
    """What becomes of the labels of a request. Never all or nothing: each has a result of its own."""

    is_list: bool
    corrections: Corrections
    """What the label feeds declare. Another value for a key is a correction whatever they declare: every one is kept."""
    recent: RecentLabels
    """The labels before the request."""
    charge: Callable[[str], None]
    """Counts a label of a source that is to be stored. Raises `QuotaError` HF512 if its quota is used up."""
    records: list[LabelRecord] = field(default_factory=list)
    """What is stored: accepted labels, and those for the quarantine. A label that repeats one in the log is not among them."""
    newest: dict[str, KnownLabel] = field(default_factory=dict)
    """The newest label of each prediction or key in the request."""
    quarantined: dict[tuple[str, str], float] = field(default_factory=dict)
    """The values of quarantined labels by prediction or key, and source."""
    _results: list[dict[str, object]] = field(default_factory=list)
    _rejected: int = 0
    _quarantined: int = 0

    def add(self, item: object, record: LabelRecord) -> None:
        """Add the label of `item`; it is stored unless it repeats one in the log.

        Raises `ConflictError` HF505 if it contradicts an earlier label of its source and no correction is declared, and what
        `charge` raises.
        """
        subject, is_key = subject_of(record), isinstance(record, KeyFeedbackRecord)
        standing = self.newest.get(subject) or self.recent.find(subject)
        label = KnownLabel(record.value, record.source)
        arrival = compare_labels(label, standing, "latest" if is_key else self.corrections)
        if arrival is not Arrival.CONTRADICTS and not self._is_in_log(subject, label, arrival):
            self.charge(record.source)
            self.records.append(record)
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
                self.quarantined[subject, label.source] = label.value
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
        self._results.append(result)

    def _is_in_log(self, subject: str, label: KnownLabel, arrival: Arrival) -> bool:
        """Return True if the same label is in the log, or in the request, so that storing it again would change nothing."""
        if arrival is Arrival.QUARANTINED:
            is_repeated = self.quarantined.get((subject, label.source)) == label.value
            return is_repeated or self.recent.has_quarantined(subject, label)
        return arrival is Arrival.REPEATED

    def reject(self, item: object, error: HoldfastError) -> None:
        """Add the result of a label that is not stored."""
        self._rejected += 1
        self._results.append({**name_of(item), "status": "rejected", "code": error.code, "error": error.what})

    @property
    def needs_disk(self) -> bool:
        """Return True if the response must wait for the disk: a label is stored, or repeats one that may not be there yet."""
        return len(self._results) > self._rejected

    @property
    def status(self) -> int:
        """Return the HTTP status: 202, 207 when the sender must look at some results, 409 for one quarantined label."""
        if not self._rejected and not self._quarantined:
            return 202
        return 207 if self.is_list else 409

    @property
    def document(self) -> dict[str, object]:
        """Return the body of the response."""
        accepted = len(self._results) - self._rejected - self._quarantined
        if not self.is_list and not self._quarantined:
            warnings = {name: text for name, text in self._results[0].items() if name == "warning"}
            return {"accepted": accepted, **warnings}
        if not self.is_list:
            return {**{name: self._results[0][name] for name in ("error", "code")}, "reasons": []}
        counts: dict[str, object] = {"accepted": accepted, "rejected": self._rejected}
        if self._quarantined:
            counts["quarantined"] = self._quarantined
        return counts | {"results": self._results}
