"""What becomes of the labels of a request, and what a server remembers of them."""

from __future__ import annotations

from collections.abc import Callable

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


def request(
    corrections: Corrections = "first",
    *before: FeedbackRecord,
    is_list: bool = True,
    charge: Callable[[str], None] = lambda _: None,
) -> TakenLabels:
    """A request with labels, on a server with labels of before."""
    recent = RecentLabels()
    recent.add({each.prediction: KnownLabel(each.value, each.source) for each in before})
    return TakenLabels(is_list, corrections, recent, charge)


def test_another_value_is_refused_and_the_first_one_stands() -> None:
    taken = request("first", label(1, 1.0))
    for value in (0.0, 0.5):
        with pytest.raises(ConflictError, match="HF505: s1-1-1/0 has the label 1 already"):
            taken.add({}, label(1, value))
    for each in (label(1, 1.0), label(2, 1.0), label(2, 1.0)):
        taken.add({}, each)
    with pytest.raises(ConflictError, match="HF505: s1-1-2/0 has the label 1 already"):
        taken.add({}, label(2, 0.0))
    assert taken.document["accepted"] == 3
    assert [each["status"] for each in taken.document["results"]] == ["repeated", "accepted", "repeated"]  # type: ignore[attr-defined]


def test_a_label_that_repeats_one_in_the_log_costs_nothing_lasting() -> None:
    """It is neither stored nor counted in the quota, from any source; nor is a quarantined one that comes again."""
    charged: list[str] = []
    taken = request("latest", label(1, 1.0), charge=charged.append)
    for _ in range(3):
        taken.add({}, label(1, 1.0))
        taken.add({}, label(1, 1.0, "stranger"))
        taken.add({}, label(1, 0.0, "stranger"))
        taken.add({}, label(2, 1.0))
    assert charged == ["stranger", "test"]
    assert taken.records == [label(1, 0.0, "stranger"), label(2, 1.0)]
    assert (taken.document["accepted"], taken.document["quarantined"]) == (9, 3)
    taken.recent.add(taken.newest, taken.quarantined)
    again = TakenLabels(True, "latest", taken.recent, charged.append)
    again.add({}, label(1, 0.0, "stranger"))
    again.add({}, label(1, 0.25, "stranger"))
    assert (again.records, again.needs_disk) == ([label(1, 0.25, "stranger")], True)


def test_a_label_beyond_the_quota_is_not_stored() -> None:
    def refuse(_source: str) -> None:
        raise QuotaError("HF512", "used up")

    taken = request("latest", label(1, 1.0), charge=refuse)
    taken.add({}, label(1, 1.0))
    with pytest.raises(QuotaError):
        taken.add({}, label(1, 0.0))
    assert (taken.records, taken.newest) == ([], {})


def test_a_declared_correction_is_taken_from_its_source_alone() -> None:
    taken = request("latest", label(1, 1.0))
    taken.add({}, label(1, 0.0))
    taken.add({}, label(1, 1.0, "stranger"))
    assert taken.newest == {"s1-1-1/0": KnownLabel(0.0, "test")}
    assert (taken.status, taken.document["accepted"], taken.document["quarantined"]) == (207, 1, 1)
    (_, quarantined) = taken.document["results"]  # type: ignore[misc]
    assert (quarantined["status"], quarantined["code"]) == ("quarantined", "HF505")
    assert "source 'test' labelled it 0" in quarantined["error"]
    assert len(taken.records) == 2, "the control loop quarantines it, so it is stored"


def test_a_key_is_corrected_by_its_source_whatever_is_declared() -> None:
    taken = request("first")
    for value, source in ((1.0, "crm"), (0.0, "crm"), (1.0, "stranger")):
        taken.add({"key": {"id": 1}}, KeyFeedbackRecord('{"id":1}', value, source, 0))
    assert [each["status"] for each in taken.document["results"]] == ["accepted", "accepted", "quarantined"]  # type: ignore[attr-defined]


def test_one_quarantined_label_is_a_conflict() -> None:
    taken = request("latest", label(1, 1.0), is_list=False)
    taken.add({}, label(1, 0.0, "stranger"))
    assert (taken.status, taken.document["code"]) == (409, "HF505")


def test_only_the_newest_labels_are_remembered() -> None:
    labels = RecentLabels(at_most=2)
    labels.add({str(number): KnownLabel(1.0, "test") for number in (1, 2, 3)})
    assert [labels.find(str(number)) is not None for number in (1, 2, 3)] == [False, True, True]
    labels.remove(["2", "never"])
    assert labels.find("2") is None, "the disk did not take it: the client sends it again"


def test_a_sender_has_a_quota_for_each_hour() -> None:
    """B4: what one sender sends does not keep this server from the labels of others."""
    quota = SourceQuota(lambda: 2)
    for _ in range(2):
        quota.take("10.0.0.1", "flood", 0)
    with pytest.raises(
        QuotaError,
        match=r"HF512: source 'flood' has sent 2 labels from this address within this hour.*after 01:00 UTC",
    ):
        quota.take("10.0.0.1", "flood", HOUR_US - 1)
    quota.take("10.0.0.1", "other", 0)
    quota.take("10.0.0.1", "flood", HOUR_US)


def test_naming_the_source_of_another_uses_up_none_of_its_quota() -> None:
    quota = SourceQuota(lambda: 2)
    for _ in range(2):
        quota.take("10.0.0.66", "crm", 0)
    with pytest.raises(QuotaError):
        quota.take("10.0.0.66", "crm", 0)
    for _ in range(2):
        quota.take("10.0.0.1", "crm", 0)


def test_an_address_with_many_sources_shares_its_own_quota_among_them() -> None:
    """Inventing sources takes nothing from the sources of other addresses, nor from those counted before."""
    quota = SourceQuota(lambda: 1, sources_of_address=2, max_senders=5)
    quota.take("10.0.0.1", "crm", 0)
    for source in ("a", "b", "c"):
        quota.take("10.0.0.66", source, 0)
    with pytest.raises(QuotaError, match="HF512: the sources that are not counted alone have sent 1 labels"):
        quota.take("10.0.0.66", "d", 0)
    quota.take("10.0.0.1", "bank", 0)
    with pytest.raises(QuotaError, match="source 'crm'"):
        quota.take("10.0.0.1", "crm", 0)
    quota.take("10.0.0.2", "late", 0)
    with pytest.raises(QuotaError, match="not counted alone"):
        quota.take("10.0.0.3", "later", 0)


def test_the_quota_follows_the_serving_config() -> None:
    limits = [1]
    quota = SourceQuota(lambda: limits[0])
    quota.take("", "crm", 0)
    with pytest.raises(QuotaError):
        quota.take("", "crm", 0)
    limits[0] = 2
    quota.take("", "crm", 0)
