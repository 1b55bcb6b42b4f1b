"""A large body is decoded in steps to the same request, and one with too many values is refused before they are made."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.serve.inference.request_schema import RequestSchema
from holdfast.serve.protocol import large_body
from holdfast.serve.protocol.large_body import count_structure, decode_in_steps
from holdfast.serve.protocol.oip import RequestError, decode_request, run_to_end
from tests.support.serving_world import CONTRACT, row, tensors

SPECS = RequestSchema(CONTRACT).specs
TEXTS = st.text(st.sampled_from('ab\\",[]{}é\n'), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=20,
)


def structure(value: Any) -> tuple[int, int]:
    """The commas and the opening brackets of a value, counted on the value itself."""
    if not isinstance(value, list | dict):
        return 0, 0
    inner = [structure(each) for each in (value.values() if isinstance(value, dict) else value)]
    return max(0, len(inner) - 1) + sum(each[0] for each in inner), 1 + sum(each[1] for each in inner)


@given(VALUES, st.integers(1, 7), st.booleans())
def test_what_is_in_strings_is_not_counted(value: Any, chunk: int, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped).encode()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(large_body, "CHUNK_BYTES", chunk)
        assert run_to_end(count_structure(memoryview(text), 10_000)) == structure(value)


def nested(body: dict[str, Any]) -> dict[str, Any]:
    for tensor in body["inputs"]:
        tensor["shape"].append(1)
        tensor["data"] = [[value] for value in tensor["data"]]
    return body


@pytest.mark.parametrize("change", [lambda body: body, nested])
def test_the_steps_make_the_same_request(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    rows = [row(flight_id=f'F{number}",[', distance=None if number % 3 else 5.5) for number in range(5000)]
    body = json.dumps(change(tensors(rows)) | {"parameters": {"unit": "u"}}).encode()
    assert len(body) > large_body.CHUNK_BYTES
    assert run_to_end(decode_in_steps(body, None, SPECS)) == decode_request(body, None, SPECS)


@pytest.mark.parametrize(
    "value", [b"[]", b"{}", b"0", b'""', b"[1]", b'"a,b"', b'"\\"\\\\"', b"[[]]", b"null"]
)
@pytest.mark.parametrize(
    "start",
    [
        b'{"inputs":[{"name":"distance","shape":[10000],"datatype":"FP64","data":[',
        b'{"parameters":{"a":[',
        b"[",
        b"",
    ],
    ids=["data", "a parameter", "a list", "nothing"],
)
def test_millions_of_values_are_refused_before_they_are_made(start: bytes, value: bytes) -> None:
    """8 MB of empty lists cost 1.3 seconds and 200 MB, during which every other client waited."""
    count = 4_000_000 // (len(value) + 1)
    body = start + b",".join([value] * count)
    steps = decode_in_steps(body, None, SPECS)
    with pytest.raises(RequestError) as refused:
        list(islice(steps, 20))  # chunks of 64 kB
    assert refused.value.code == "HF508"


def test_a_tensor_with_more_values_than_its_shape_is_refused_alone() -> None:
    body = tensors([row()])
    body["inputs"][3]["data"] = [0.5] * 20_000
    with pytest.raises(RequestError, match="'distance' has more values than its shape"):
        run_to_end(decode_in_steps(json.dumps(body).encode(), None, SPECS))
