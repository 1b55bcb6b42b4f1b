"""Decode a large request in steps, and refuse one with too many values before they are made.

The caller handles other requests between the steps, so that none waits for one large body. A JSON text of 8 MB can hold
millions of values, which take seconds; they are counted first.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any, Final

import msgspec

from holdfast.serve.protocol.oip import (
    MAX_ROWS,
    Body,
    InferRequest,
    RequestedOutput,
    RequestError,
    Tensor,
    decode_json,
    refuse_repeated_names,
    request_steps,
    split_body,
)

CHUNK_BYTES: Final = 64 * 1024
"""So much of a text is counted in one step."""
_MEMBERS: Final = 64
"""Values of a tensor, and of a request, besides its data."""
_SHORT: Final = 256
"""Data of so many bytes stay where they are when names are counted."""
_PLAIN: Final = bytes(set(range(256)) - set(b'",[{'))


class _RawTensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    parameters: dict[str, Any] | None = None


class _RawBody(msgspec.Struct, gc=False):
    inputs: list[_RawTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


_decode: Final = msgspec.json.Decoder(_RawBody).decode
_decode_data: Final = msgspec.json.Decoder(list[Any] | None).decode


class TooManyValuesError(ValueError):
    """A JSON text has more values than are allowed."""


def count_structure(text: memoryview, most: int) -> Generator[None, None, tuple[int, int]]:
    """Count the commas and the opening brackets of a JSON text outside of its strings, chunk by chunk.

    Raises `TooManyValuesError` when one of both is more than `most`. The text need not be valid.

    >>> from holdfast.serve.protocol.oip import run_to_end
    >>> run_to_end(count_structure(memoryview(b'["a,[", {"b": 1}]'), 10))
    (1, 2)
    """
    commas = brackets = 0
    inside = 0
    rest = b""
    for begin in range(0, len(text), CHUNK_BYTES):
        if begin:
            yield
        chunk = rest + bytes(text[begin : begin + CHUNK_BYTES])
        # A backslash at the end escapes the first byte of the next chunk.
        rest = b"\\" * ((len(chunk) - len(chunk.rstrip(b"\\"))) & 1)
        if b"\\" in chunk:
            chunk = chunk[: len(chunk) - len(rest)].replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = chunk.translate(None, _PLAIN).split(b'"')
        outside = b"".join(parts[inside::2])
        inside ^= (len(parts) - 1) & 1
        commas += outside.count(b",")
        brackets += outside.count(b"[") + outside.count(b"{")
        if commas > most or brackets > most:
            raise TooManyValuesError
    return commas, brackets


def decode_in_steps(
    body: bytes | bytearray, header_length: bytes | None, specs: Mapping[str, tuple[str, ...]]
) -> Generator[None, None, InferRequest]:
    """As `oip.decode_request`, a step at a time. A step is 64 kB of JSON that is counted, or one tensor."""
    json_part, tail = split_body(body, header_length)
    most = len(specs) * (MAX_ROWS + _MEMBERS) + _MEMBERS
    try:
        yield from count_structure(json_part, most)
    except TooManyValuesError:
        raise RequestError(
            "HF508", f"the body has more values than {MAX_ROWS} rows of the model's inputs"
        ) from None
    parsed = decode_json(_decode, json_part)
    yield
    made = Body([], parsed.id, parsed.parameters, parsed.outputs)
    with_data = sum(bytes(memoryview(each.data)[:5]) != b"null" for each in parsed.inputs)
    around = memoryview(_without_data(bytes(json_part), parsed.inputs))
    refuse_repeated_names(around, made, [each.parameters for each in parsed.inputs], with_data)
    yield
    return (yield from request_steps(made, tail, specs, _tensors(parsed.inputs)))


def _without_data(text: bytes, inputs: list[_RawTensor]) -> bytes:
    """Return the JSON part with a 0 in place of each tensor's data, which has no members: what is left is short.

    The data are found by their own bytes, in their order. An equal text before them is as good: it has no members either.
    """
    parts, at = [], 0
    for each in inputs:
        data = bytes(memoryview(each.data))
        found = text.find(data, at) if len(data) > _SHORT else -1
        if found >= 0:
            parts += [text[at:found], b"0"]
            at = found + len(data)
    return b"".join([*parts, text[at:]])


def _tensors(raw: list[_RawTensor]) -> Iterator[Tensor | None]:
    """Decode tensor by tensor; None is a step before the next one."""
    for each in raw:
        text = memoryview(each.data)
        rows = each.shape[0] if each.shape else 0
        try:
            for _ in count_structure(text, max(0, min(rows, MAX_ROWS)) + 1):
                yield None
        except TooManyValuesError:
            raise RequestError("HF508", f"input {each.name[:64]!r} has more values than its shape") from None
        yield Tensor(each.name, each.shape, each.datatype, decode_json(_decode_data, text), each.parameters)
        yield None
