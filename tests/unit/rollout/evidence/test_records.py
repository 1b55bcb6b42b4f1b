"""The JSON form of evidence: a round trip changes nothing, and no key is ignored."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import IntegrityError
from holdfast.records import Arm
from holdfast.rollout import (
    Canary,
    MetricState,
    RequestOutcome,
    Shadow,
    begin,
    begin_step,
    fold_requests,
    fold_scores,
    freeze_levels,
)
from holdfast.rollout.decision.post_promotion import begin_rate, fold_rate, next_periods
from holdfast.rollout.evidence import shadow
from holdfast.rollout.evidence.evidence import begin_bake
from holdfast.rollout.evidence.records import evidence_from_json, points_from_json, record_point, to_json
from holdfast.rollout.evidence.shadow import ComparedRow, LabelledPair, Pair
from tests.support.profile import examples

POLICY = Canary(slices=("carrier",), units_per_step=5, labels_per_step=5, shadow=Shadow(), error_margin=1)
MINUTE_US = 60_000_000

RESULTS = st.sampled_from(["ok", "exception", "hung"])
REQUESTS = st.builds(
    RequestOutcome,
    unit=st.binary(min_size=1, max_size=2),
    arm=st.sampled_from(Arm),
    failed=st.booleans(),
    latency_us=st.floats(0, 1e6),
    slices=st.sampled_from([(), ("carrier=AA",), ("carrier=none", "carrier=UA")]),
)
SCORES = st.lists(st.floats(0, 1), max_size=4)
ROWS = st.lists(
    st.builds(ComparedRow, st.floats(0, 1), st.floats(0, 1), st.just(("carrier=AA",))), max_size=2
)
PAIRS = st.builds(
    Pair,
    unit=st.binary(min_size=1, max_size=2),
    result=RESULTS,
    champion_failed=st.booleans(),
    rows=ROWS.map(tuple),
    latency_us=st.floats(0, 1e6),
    champion_rerun_us=st.none() | st.floats(0, 1e6),
)
LABELLED = st.builds(LabelledPair, st.binary(min_size=1, max_size=2), st.floats(0, 1), st.floats(0, 1))


def assert_round_trip(states: Sequence[MetricState]) -> None:
    for state in states:
        assert evidence_from_json(to_json(state.evidence)) == state.evidence
        assert points_from_json(to_json(state.history)) == state.history


@given(st.data())
@examples(40)
def test_every_phase_of_a_rollout_survives_a_round_trip(data: st.DataObject) -> None:
    states = begin(POLICY, 0.02)
    for phase in (
        begin_step,
        lambda each: freeze_levels(each, POLICY),
        lambda each: begin_bake(each, POLICY),
    ):
        for minute in range(2):
            states = fold_requests(states, data.draw(st.lists(REQUESTS, max_size=8)), minute * MINUTE_US)
            states = tuple(
                fold_scores(state, data.draw(SCORES), data.draw(SCORES), minute * MINUTE_US, since_us=minute)
                if state.metric == "quality"
                else state
                for state in states
            )
            states = tuple(record_point(state, minute * MINUTE_US) for state in states)
            assert_round_trip(states)
        states = phase(states)
        assert_round_trip(states)


@given(st.lists(PAIRS, max_size=8), st.lists(LABELLED, max_size=8), st.none() | st.floats(0.001, 1))
@examples(40)
def test_evidence_of_copies_survives_a_round_trip(
    pairs: list[Pair], labelled: list[LabelledPair], bound: float | None
) -> None:
    states = shadow.fold_labelled(shadow.fold_pairs(shadow.begin(POLICY, bound), pairs), labelled)
    assert_round_trip(states)


def test_evidence_of_the_rate_survives_a_round_trip() -> None:
    state = begin_rate(POLICY, 0)
    assert state is not None
    due = next_periods(state, history_us=-86_400_000_000, known_at_us=10 * MINUTE_US)
    assert due is not None
    assert_round_trip([state, fold_rate(state, due, after=7, before=9)])


def objects(value: object) -> list[dict[str, object]]:
    """Every record and statistic within `value`; what the keys of a mapping name is data."""
    if isinstance(value, list):
        return [found for each in value for found in objects(each)]
    if not isinstance(value, dict):
        return []
    return [value, *(found for each in value.values() for found in objects(each))]


def is_record(value: dict[str, object]) -> bool:
    return bool(
        value.keys() & {"type", "test", "evidence", "margin", "level", "detector", "slot", "comparison"}
    )


@pytest.mark.parametrize("number", range(4))
def test_an_unknown_key_is_an_error_at_every_depth(number: int) -> None:
    states = fold_requests(
        begin(POLICY, 0.02), [RequestOutcome(b"u", Arm.CHALLENGER, True, 1.0, ("carrier=AA",))]
    )
    states = begin_bake(freeze_levels(states, POLICY), POLICY)
    text = to_json(states[number].evidence)
    records = [at for at, each in enumerate(objects(json.loads(text))) if is_record(each)]
    assert len(records) >= 4
    for at in records:
        document = json.loads(text)
        objects(document)[at]["tset"] = 1.0
        with pytest.raises(IntegrityError, match="evidence of a rollout cannot be read"):
            evidence_from_json(json.dumps(document))


@pytest.mark.parametrize("number", range(4))
def test_a_missing_key_is_an_error(number: int) -> None:
    text = to_json(begin(POLICY, 0.02)[number].evidence)
    for key in json.loads(text):
        document = json.loads(text)
        del document[key]
        with pytest.raises(IntegrityError, match="evidence of a rollout cannot be read"):
            evidence_from_json(json.dumps(document))
