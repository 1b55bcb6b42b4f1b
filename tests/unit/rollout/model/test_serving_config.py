"""A serving config is known by its content, and one with which no caller could be served is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.rollout.model.serving_config import ConnectionLimits


@given(
    st.builds(
        ConnectionLimits,
        body_bytes=st.integers(1024, 2**40),
        idle_seconds=st.floats(0.1, 1e6),
        connections=st.integers(8, 10**6),
    )
)
def test_what_is_written_is_read(limits: ConnectionLimits) -> None:
    assert ConnectionLimits.from_json(limits.to_json()) == limits
    assert ConnectionLimits.from_json(limits.to_json()).id == limits.id


def test_equal_options_are_one_serving_config() -> None:
    assert ConnectionLimits.of({"idle_seconds": 75}).id == ConnectionLimits().id
    assert ConnectionLimits.of({"idle_seconds": 76}).id != ConnectionLimits().id


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("[1]", "unknown limit"),
        ("{", "JSON object"),
        ('{"speed": 1}', "unknown limit"),
        ('{"body_bytes": 1}', "must be at least"),
        ('{"body_bytes": 4096.5}', "whole number"),
        ('{"idle_seconds": true}', "must be a number"),
        ('{"idle_seconds": NaN}', "must be at least"),
        ('{"connections": "many"}', "whole number"),
    ],
)
def test_what_cannot_be_is_refused(document: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        ConnectionLimits.from_json(document)


def test_a_limit_that_older_documents_lack_keeps_their_ids() -> None:
    """A plan names its serving config by id, and waits until servers report that id."""
    before = (
        '{"body_bytes":8388608,"connections":1024,"header_bytes":16384,"held_bytes":268435456,"idle_seconds":75.0,'
        '"pipelined":256,"receipt_seconds":10.0,"write_seconds":20.0}'
    )
    read = ConnectionLimits.from_json(before)
    assert read == ConnectionLimits()
    assert read.to_json() == before
    assert "queue_seconds" in ConnectionLimits(queue_seconds=2.0).to_json()
