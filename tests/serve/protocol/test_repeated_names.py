"""A request that names a member twice is refused, however it is written; no other request is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.serve.api.label_items import parse_labels
from holdfast.serve.protocol.large_body import decode_in_steps
from holdfast.serve.protocol.oip import RequestError, decode_request, run_to_end
from holdfast.serve.protocol.repeated_names import READ_BYTES, count_members, find_repeated_name
from tests.support.profile import examples

SPECS = {"town": ("BYTES",)}
TENSOR = '{"name": "town", "shape": [1], "datatype": "BYTES", "data": ["x"]}'
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@examples(200)
@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_a_document_that_names_each_member_once_is_accepted(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=(",", " : ")).encode()
    assert find_repeated_name(text, count_members(value)) == ""


@pytest.mark.parametrize(
    "body",
    [
        f'{{"inputs": [{TENSOR}], "inputs": [{TENSOR}]}}',
        f'{{"id": "a", "id": "b", "inputs": [{TENSOR}]}}',
        f'{{"id" \n: "a", "\\u0069d": "b", "inputs": [{TENSOR}]}}',
        f'{{"parameters": {{"unit": "a", "unit": "b"}}, "inputs": [{TENSOR}]}}',
        f'{{"parameters": {{"x": {{"y": 1, "y": 2}}}}, "inputs": [{TENSOR}]}}',
        f'{{"inputs": [{TENSOR[:-1]}, "data": ["y"]}}]}}',
        f'{{"inputs": [{TENSOR[:-1]}, "name": "town"}}]}}',
        f'{{"unknown": 1, "unknown": {"9" * 5000}, "inputs": [{TENSOR}]}}',
    ],
)
def test_a_request_that_names_a_member_twice_is_refused(body: str) -> None:
    for read in (
        lambda text: decode_request(text, None, SPECS),
        lambda text: run_to_end(decode_in_steps(text, None, SPECS)),
    ):
        with pytest.raises(RequestError, match="twice"):
            read(body.encode())


@pytest.mark.parametrize(
    "body",
    [
        f'{{"inputs":[{TENSOR}]}}',
        f'{{"id" : null, "parameters": {{"unit": "a:\\"b\\":"}}, "inputs": [{TENSOR}]}}',
        f'{{"outputs": [{{"name": "probability", "parameters": {{"a": true}}}}], "inputs": [{TENSOR}], "more": {{}}}}',
        f'{{"inputs": [{TENSOR.replace("x", ":x")}]}}',
    ],
)
def test_a_request_with_unusual_members_is_read(body: str) -> None:
    assert decode_request(body.encode(), None, SPECS).rows == 1
    assert run_to_end(decode_in_steps(body.encode(), None, SPECS)).rows == 1


def test_labels_are_checked_too() -> None:
    assert parse_labels(b'{"feedback": [{"id": "s1-1-1", "value": true}]}').is_list
    with pytest.raises(RequestError, match="'value' twice"):
        parse_labels(b'{"feedback": [{"id": "s1-1-1", "value": true, "value": false}]}')


@pytest.mark.parametrize("source", [":crm", " :crm", "\\\\:", 'a\\": ', "\\u003ax"])
def test_a_large_body_of_labels_with_unusual_texts_is_read(source: str) -> None:
    """More than 256 kB of labels whose texts begin with a colon looked as if a member came twice."""
    one = f'{{"id": null, "key": {{"place": "{source}{"x" * 300}"}}, "value": true, "source": "{source}"}}'
    body = f'{{"feedback": [{", ".join([one] * 999)}]}}'
    assert len(body) > READ_BYTES
    assert len(parse_labels(body.encode()).items) == 999
    twice = one.replace('"value": true', '"value": true, "value": false')
    with pytest.raises(RequestError, match="names a member twice"):
        parse_labels(body.replace(one, twice, 1).encode())


@pytest.mark.parametrize("around", ['"id": null', '"parameters": {"unit": "a:b"}', '"more": 1'])
@pytest.mark.parametrize("word", ["x", ":)", "a {:", '\\":'])
def test_a_large_request_with_unusual_members_and_words_is_read(around: str, word: str) -> None:
    rows = 9_999
    data = json.dumps([word + "y" * 30] * rows)
    body = f'{{{around}, "inputs": [{{"name": "town", "shape": [{rows}], "datatype": "BYTES", "data": {data}}}]}}'
    assert len(body) > READ_BYTES
    assert run_to_end(decode_in_steps(body.encode(), None, SPECS)).rows == rows


@pytest.mark.parametrize("twice", ['"id": "a", "id": "b"', '"parameters": {"a": 1, "a": 2}'])
def test_a_large_request_that_names_a_member_twice_is_refused(twice: str) -> None:
    data = json.dumps([":" + "y" * 30] * 9_999)
    body = (
        f'{{{twice}, "inputs": [{{"name": "town", "shape": [9999], "datatype": "BYTES", "data": {data}}}]}}'
    )
    with pytest.raises(RequestError, match="twice"):
        run_to_end(decode_in_steps(body.encode(), None, SPECS))
