"""What becomes of the labels of a request, and what a server remembers of them."""

from __future__ import annotations

import pytest

from holdfast.errors import ConflictError, QuotaError
from holdfast.feedback import KnownLabel
from holdfast.records import HOUR_US, Corrections
from holdfast.serve.api.recent_labels import RecentLabels
from holdfast.serve.api.source_quota import SourceQuota
from holdfast.serve.api.taken_labels import TakenLabels
from holdfast.store.serving.prediction_log import FeedbackRecord, KeyFeedbackRecord


def label(number: int, value: float, source: str = "test") -> FeedbackRecord:
    return FeedbackRecord(f"s1-1-{number}/0", value, source, 0)


def request(corrections: Corrections = "first") -> TakenLabels:
    return TakenLabels(True, corrections)


def test_another_value_is_refused_and_the_first_one_stands() -> None:
    taken = request()
    for value in (0.0, 0.5):
        with pytest.raises(ConflictError, match="HF505: s1-1-1/0 has the label 1 already"):
            taken.add({}, label(1, value), KnownLabel(1.0, "test"))
    for each in (label(1, 1.0), label(2, 1.0), label(2, 1.0)):
        taken.add({}, each, None)
    with pytest.raises(ConflictError, match="HF505: s1-1-2/0 has the label 1 already"):
        taken.add({}, label(2, 0.0), None)
    assert taken.document["accepted"] == 3
    assert [each["status"] for each in taken.document["results"]] == ["accepted", "accepted", "repeated"]  # type: ignore[attr-defined]


def test_a_declared_correction_is_taken_from_its_source_alone() -> None:
    taken = request("latest")
    taken.add({}, label(1, 0.0), KnownLabel(1.0, "test"))
    taken.add({}, label(1, 1.0, "stranger"), KnownLabel(1.0, "test"))
    assert taken.newest == {"s1-1-1/0": KnownLabel(0.0, "test")}
    assert (taken.status, taken.document["accepted"], taken.document["quarantined"]) == (207, 1, 1)
    (_, quarantined) = taken.document["results"]  # type: ignore[misc]
    assert (quarantined["status"], quarantined["code"]) == ("quarantined", "HF505")
    assert "source 'test' labelled it 0" in quarantined["error"]
    assert len(taken.records) == 2, "the control loop quarantines it, so it is stored"


def test_a_key_is_corrected_by_its_source_whatever_is_declared() -> None:
    taken = request("first")
    for value, source in ((1.0, "crm"), (0.0, "crm"), (1.0, "stranger")):
        taken.add({"key": {"id": 1}}, KeyFeedbackRecord('{"id":1}', value, source, 0), None)
    assert [each["status"] for each in taken.document["results"]] == ["accepted", "accepted", "quarantined"]  # type: ignore[attr-defined]


def test_one_quarantined_label_is_a_conflict() -> None:
    taken = TakenLabels(False, "latest")
    taken.add({}, label(1, 0.0, "stranger"), KnownLabel(1.0, "test"))
    assert (taken.status, taken.document["code"]) == (409, "HF505")


def test_only_the_newest_labels_are_remembered() -> None:
    labels = RecentLabels(at_most=2)
    labels.add({str(number): KnownLabel(1.0, "test") for number in (1, 2, 3)})
    assert [labels.find(str(number)) is not None for number in (1, 2, 3)] == [False, True, True]
    labels.remove(["2", "never"])
    assert labels.find("2") is None, "the disk did not take it: the client sends it again"


def test_a_source_has_a_quota_for_each_hour() -> None:
    """B4: what one sender sends does not keep this server from the labels of others."""
    quota = SourceQuota(of_source=2, max_sources=2)
    for _ in range(2):
        quota.take("flood", 0)
    with pytest.raises(
        QuotaError, match=r"HF512: source 'flood' has sent 2 labels within this hour.*after 01:00 UTC"
    ):
        quota.take("flood", HOUR_US - 1)
    quota.take("other", 0)
    for source in ("new", "newer"):
        quota.take(source, 0)
    with pytest.raises(QuotaError, match="HF512: the sources that are not counted alone"):
        quota.take("newest", 0)
    quota.take("flood", HOUR_US)
