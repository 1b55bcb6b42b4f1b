"""One table of corrections, and no order of arrival of feeds and callers decides which label counts."""

from __future__ import annotations

import itertools
from typing import get_args

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from holdfast.feedback import FEED_SOURCE, Arrival, KnownLabel, compare_labels, counting_label
from holdfast.feedback.arrivals import ARRIVALS, Standing
from holdfast.records import Corrections
from holdfast.tables.labels import KNOWN_AT, known_labels

POLICIES = get_args(Corrections)
POLICY = st.sampled_from(POLICIES)
VALUE = st.sampled_from([0.0, 0.25, 1.0])
TIME = st.integers(0, 6)


def test_the_table_has_every_standing_under_every_policy() -> None:
    assert set(ARRIVALS) == set(itertools.product(Standing, POLICIES))


def test_only_a_source_itself_and_a_label_feed_correct_a_label() -> None:
    """B4: another caller's other value labels nothing, whatever is declared."""
    found = {
        (standing, policy): compare_labels(KnownLabel(0.0, "crm"), known, policy)
        for policy in POLICIES
        for standing, known in (
            ("crm", KnownLabel(1.0, "crm")),
            ("bank", KnownLabel(1.0, "bank")),
            ("feed", KnownLabel(1.0, FEED_SOURCE)),
            ("none", None),
        )
    }
    assert found == {
        ("crm", "latest"): Arrival.CORRECTED, ("crm", "first"): Arrival.CONTRADICTS,
        ("bank", "latest"): Arrival.QUARANTINED, ("bank", "first"): Arrival.QUARANTINED,
        ("feed", "latest"): Arrival.ACCEPTED, ("feed", "first"): Arrival.ACCEPTED,
        ("none", "latest"): Arrival.ACCEPTED, ("none", "first"): Arrival.ACCEPTED,
    }  # fmt: skip


def taken(arriving: list[KnownLabel], policy: Corrections) -> tuple[KnownLabel, list[Arrival]]:
    """Take labels in this order as a ledger does: the label that counts, and the outcome of each label of a caller."""
    history: list[KnownLabel] = []
    outcomes = []
    for label in arriving:
        if label.source == FEED_SOURCE:
            history.append(label)
            continue
        of_callers = [each for each in history if each.source != FEED_SOURCE]
        known = (of_callers or history)[-1] if history else None
        outcome = compare_labels(label, known, policy)
        outcomes.append(outcome)
        if outcome in (Arrival.ACCEPTED, Arrival.CORRECTED):
            history.append(label)
    return counting_label(history, policy), outcomes


@given(
    sent=st.lists(st.tuples(VALUE, st.sampled_from(["crm", "bank"])), min_size=1, max_size=4),
    feed=st.tuples(VALUE, TIME),
    policy=POLICY,
)
def test_when_a_feeds_label_arrives_decides_nothing(
    sent: list[tuple[float, str]], feed: tuple[float, int], policy: Corrections
) -> None:
    labels = [KnownLabel(value, source, at_us) for at_us, (value, source) in enumerate(sent)]
    of_feed = KnownLabel(feed[0], FEED_SOURCE, feed[1])
    orders = [[*labels[:at], of_feed, *labels[at:]] for at in range(len(labels) + 1)]
    results = [taken(order, policy) for order in orders]
    assert all(each == results[0] for each in results)


@given(sent=st.tuples(VALUE, TIME), feed=st.lists(st.tuples(st.booleans(), TIME), min_size=1), policy=POLICY)
def test_quality_and_training_go_by_the_same_label(
    sent: tuple[float, int], feed: list[tuple[bool, int]], policy: Corrections
) -> None:
    """What labels a prediction is what `tables.labels` trains its row with."""
    ordered = sorted((at_us, float(value)) for value, at_us in feed)
    at_us, value = ordered[0 if policy == "first" else -1]
    counts = counting_label(
        [KnownLabel(value, FEED_SOURCE, at_us), KnownLabel(sent[0], "crm", sent[1])], policy
    )
    rows = [("k", float(value), at_us) for value, at_us in feed] + [("k", *sent)]
    history = pl.DataFrame(rows, schema=["key", "label", KNOWN_AT], orient="row")
    trained = known_labels(history, key=["key"], label="label", until_us=9, corrections=policy)
    assert trained["label"].to_list() == [counts.value]
