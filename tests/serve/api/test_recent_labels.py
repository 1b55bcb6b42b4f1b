"""What a server remembers of the labels that it accepted, and for how long."""

from __future__ import annotations

import pytest

from holdfast.errors import ConflictError
from holdfast.serve.api.recent_labels import RecentLabels
from holdfast.store.serving.prediction_log import FeedbackRecord


def label(number: int, value: float) -> FeedbackRecord:
    return FeedbackRecord(f"s1-1-{number}/0", value, "test", 0)


def test_another_value_is_refused_and_the_first_one_stands() -> None:
    labels = RecentLabels()
    labels.add([label(1, 1.0)])
    for value in (0.0, 0.5):
        with pytest.raises(ConflictError, match="HF505: s1-1-1/0 has the label 1 already"):
            labels.check(label(1, value), {})
    in_request: dict[str, float] = {}
    arrivals = [labels.check(each, in_request) for each in (label(1, 1.0), label(2, 1.0), label(2, 1.0))]
    assert arrivals == ["repeated", "accepted", "repeated"]
    with pytest.raises(ConflictError, match="HF505: s1-1-2/0 has the label 1 already"):
        labels.check(label(2, 0.0), in_request)


def test_a_label_that_the_disk_did_not_take_is_open_again() -> None:
    labels = RecentLabels()
    labels.add([label(1, 1.0)])
    labels.remove([label(1, 1.0), label(2, 1.0)])
    assert labels.check(label(1, 0.0), {}) == "accepted"


def test_only_the_newest_labels_are_remembered() -> None:
    labels = RecentLabels(at_most=2)
    labels.add([label(number, 1.0) for number in (1, 2, 3)])
    assert labels.check(label(1, 0.0), {}) == "accepted"
    with pytest.raises(ConflictError):
        labels.check(label(2, 0.0), {})
