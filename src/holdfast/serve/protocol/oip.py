"""The Open Inference Protocol v2 on the wire, JSON and binary tensors: requests and responses.

Source: https://github.com/kserve/open-inference-protocol (REST) and Triton's binary tensor data extension. Requests
are decoded into typed structures, which reject NaN, Infinity, lone surrogates and trailing bytes. What a value means
is the contract's concern. Nothing here does input or output.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from holdfast.contract import ColumnFacts
from holdfast.errors import InputError
from holdfast.records import EPOCH
from holdfast.serve.protocol.datatypes import TIMESTAMP, find_unfit, read_tensor
from holdfast.serve.protocol.repeated_names import find_repeated_name

MAX_ROWS: Final = 10_000
"""Per request: it bounds how long one request delays all others."""
OUTPUT: Final = "probability"
UNIT_CHARACTERS: Final = 256
_YEAR_US: Final = 365 * 86_400_000_000
"""A number this close to 1970 is hardly in microseconds: in seconds or milliseconds it is a time of our days."""
_MOST_SECONDS: Final = 100_000_000_000
_WORD_CHARACTERS: Final = 64
_STATED: Final = ("unit", "semantic", "window")
_NOT_OFFERED: Final = ("classification", "shared_memory_region")
"""Parameters of an output that ask for another response. Without them its reader would read something else."""


class RequestError(InputError):
    """A request that gets 400: HF508 malformed, HF502 against the contract; `reasons` names rows and rules.

    `uncounted` are the reasons that the counter of violations does not hold yet; `rules` are all as "<column>|<rule>".
    """

    def __init__(
        self,
        code: str,
        what: str,
        reasons: Sequence[str] = (),
        *,
        uncounted: Sequence[str] | None = None,
        rules: Sequence[str] | None = None,
    ) -> None:
        super().__init__(code, what)
        self.reasons = list(reasons)
        self.uncounted = self.reasons if uncounted is None else list(uncounted)
        self.rules = self.reasons if rules is None else list(rules)


@dataclass(slots=True)
class InferRequest:
    """A decoded request. `columns` has one list of `rows` values for each tensor; None is missing."""

    id: str | None
    unit: str | None
    probe: bool
    rows: int
    columns: dict[str, list[Any]]
    binary_output: bool
    facts: dict[str, ColumnFacts] | None = None
    """Facts that the tensors state in their parameters "unit", "semantic" and "window"; None if none does."""


@dataclass(frozen=True, slots=True)
class InferResponse:
    """A response. `prediction` is the id for feedback; None if the prediction is not in the log."""

    model: str
    version: str
    id: str | None
    prediction: str | None
    arm: str
    plan: int | None
    """The plan that was followed, for a probe."""
    probabilities: np.ndarray[Any, np.dtype[np.float32]]


Result = TypeVar("Result")


class Tensor(msgspec.Struct, gc=False):
    """A tensor of a request, as it is sent."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class RequestedOutput(msgspec.Struct, gc=False):
    """An output that a request names."""

    name: str
    parameters: dict[str, Any] | None = None


class Body(msgspec.Struct, gc=False):
    """The JSON part of a request."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


class _Output(msgspec.Struct, gc=False, omit_defaults=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[float] | None = None
    parameters: dict[str, int] | None = None


class _Parameters(msgspec.Struct, gc=False, omit_defaults=True):
    arm: str
    prediction_id: str | None = None
    plan: int | None = None


class _Response(msgspec.Struct, gc=False, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_Output]
    parameters: _Parameters
    id: str | None = None


_decode: Final = msgspec.json.Decoder(Body).decode
_encode: Final = msgspec.json.Encoder().encode


def decode_request(
    body: bytes | bytearray, header_length: bytes | None, specs: Mapping[str, tuple[str, ...]]
) -> InferRequest:
    """Decode the request in `body`.

    Parameters
    ----------
    body
        JSON, with binary tensors behind it.
    header_length
        The value of `Inference-Header-Content-Length`: the length of the JSON part; None if all of it is JSON.
    specs
        The accepted datatypes by input name.

    Raises
    ------
    RequestError
        HF508 for what no contract could accept, HF502 for an input that the contract does not have or has otherwise.
    """
    json_part, tail = split_body(body, header_length)
    parsed = decode_json(_decode, json_part)
    with_data = sum(each.data is not None for each in parsed.inputs)
    refuse_repeated_names(json_part, parsed, [each.parameters for each in parsed.inputs], with_data)
    return run_to_end(request_steps(parsed, tail, specs))


def refuse_repeated_names(
    json_part: memoryview, parsed: Body, parameters: Sequence[dict[str, Any] | None], with_data: int
) -> None:
    """Raise `RequestError` HF508 if the JSON part names a member twice.

    Parameters
    ----------
    json_part, parsed
        The JSON part, and its own members as they were decoded.
    parameters
        Those of each of its tensors.
    with_data
        How many of its tensors have data in the JSON part.
    """
    outputs = parsed.outputs or ()
    found = 1 + (parsed.id is not None) + (parsed.outputs is not None) + len(outputs)
    found += 3 * len(parameters) + with_data
    for each in (parsed.parameters, *(output.parameters for output in outputs), *parameters):
        if each is not None:
            found += 1 + len(each)
    if why := find_repeated_name(json_part, found):
        raise RequestError("HF508", why)


def request_steps(
    parsed: Body,
    tail: memoryview,
    specs: Mapping[str, tuple[str, ...]],
    tensors: Iterable[Tensor | None] | None = None,
) -> Generator[None, None, InferRequest]:
    """Read a parsed body; see `decode_request`. Stop at each None of `tensors`, which stand for the body's own."""
    parameters = parsed.parameters or {}
    probe = parameters.get("probe") is True
    rows, columns, facts = yield from _columns(parsed.inputs if tensors is None else tensors, tail, specs)
    if rows < 0:
        if not probe:
            raise RequestError("HF508", "there are no inputs")
        rows = 0
    return InferRequest(
        parsed.id or None,
        _unit(parameters.get("unit")),
        probe,
        rows,
        columns,
        _binary_output(parameters, parsed.outputs),
        facts or None,
    )


def run_to_end(steps: Generator[None, None, Result]) -> Result:
    """Return what a generator of steps returns."""
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]  # a generator's own result


def _columns(
    tensors: Iterable[Tensor | None], tail: memoryview, specs: Mapping[str, tuple[str, ...]]
) -> Generator[None, None, tuple[int, dict[str, list[Any]], dict[str, ColumnFacts]]]:
    """Return the number of rows (-1: no tensors), their values by column, and the facts that the tensors state.

    Stop at each None.
    """
    columns: dict[str, list[Any]] = {}
    facts: dict[str, ColumnFacts] = {}
    rows = -1
    used = 0
    for tensor in tensors:
        if tensor is None:
            yield
            continue
        name = tensor.name
        datatypes = specs.get(name)
        if datatypes is None or tensor.datatype not in datatypes:
            raise _unwanted(name, tensor.datatype, datatypes)
        if name in columns:
            raise RequestError("HF508", f"input {name!r} comes twice")
        shape, data = tensor.shape, tensor.data
        if (
            data is not None
            and len(shape) == 1
            and shape[0] == rows == len(data)
            and tensor.datatype == datatypes[0]
            and tensor.parameters is None
        ):
            columns[name] = data  # nearly every tensor, once the first has set the number of rows
            continue
        count = _row_count(tensor, name)
        if count != rows >= 0:
            raise RequestError("HF508", f"input {name!r} has {count} rows, others have {rows}")
        rows = count
        if data is not None:
            values = _json_values(tensor, data, count)
            # What a column's own datatype may hold is in the contract: its type, its exactness and its range.
            if tensor.datatype != datatypes[0] and (unfit := find_unfit(tensor.datatype, values)):
                raise RequestError("HF502", f"input {name!r}: {unfit[1]}", [f"{name}|{unfit[0]}"])
        else:
            begin, used = used, used + _tensor_size(tensor, len(tail) - used)
            values = _binary_values(tensor, tail[begin:used], count)
        is_timestamp = tensor.datatype == "INT64" and datatypes[0] == "BYTES"
        columns[name] = [_timestamp_text(name, value) for value in values] if is_timestamp else values
        if tensor.parameters and (stated := _facts(name, tensor.parameters)) is not None:
            facts[name] = stated
    if used != len(tail):
        raise RequestError(
            "HF508", f"{len(tail) - used} bytes behind the last binary tensor belong to no input"
        )
    return rows, columns, facts


def split_body(body: bytes | bytearray, header_length: bytes | None) -> tuple[memoryview, memoryview]:
    """Return the JSON part and the binary tensors behind it."""
    length = len(body)
    if header_length is not None:
        if not header_length.isdigit() or len(header_length) > 12 or int(header_length) > length:
            raise RequestError(
                "HF508", "Inference-Header-Content-Length is not the length of a part of the body"
            )
        length = int(header_length)
    view = memoryview(body)
    return view[:length], view[length:]


def decode_json(decode: Callable[[memoryview], Result], json_part: memoryview) -> Result:
    """Decode the JSON part; raise `RequestError` HF508 if it is no inference request."""
    try:
        return decode(json_part)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestError("HF508", f"the body is not an inference request: {error}") from None
    except RecursionError:
        raise RequestError("HF508", "the body is nested too deeply") from None


def _unwanted(name: str, datatype: str, datatypes: tuple[str, ...] | None) -> RequestError:
    if datatypes is None:
        return RequestError("HF502", f"the model has no input {name[:64]!r}", ["*|extra"])
    return RequestError(
        "HF502",
        f"input {name!r} is {datatypes[0]}, not {datatype[:16]!r}; it accepts {', '.join(datatypes)}, such as "
        f'"datatype": "{datatypes[0]}", "data": [{_example(datatypes)}]',
        [f"{name}|datatype"],
    )


def _example(datatypes: tuple[str, ...]) -> str:
    """Return a value in JSON as the first of `datatypes` has it; that of a timestamp if microseconds are accepted too."""
    examples = {"FP64": "2.5", "BOOL": "true", "BYTES": '"text"'}
    if datatypes == TIMESTAMP:
        return '"2026-01-31T12:00:00Z"'
    return examples.get(datatypes[0], "19")


def _row_count(tensor: Tensor, name: str) -> int:
    shape = tensor.shape
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        raise RequestError("HF508", f"input {name!r} must have the shape [rows] or [rows, 1]")
    if not 1 <= shape[0] <= MAX_ROWS:
        raise RequestError("HF508", f"input {name!r}: a request has 1 to {MAX_ROWS} rows")
    return shape[0]


def _json_values(tensor: Tensor, data: list[Any], count: int) -> list[Any]:
    if len(tensor.shape) == 2 and data and type(data[0]) is list:
        if any(type(row) is not list or len(row) != 1 for row in data):
            raise RequestError("HF508", f"input {tensor.name!r}: the data is not of its shape")
        data = [row[0] for row in data]
    if len(data) != count:
        raise RequestError("HF508", f"input {tensor.name!r} has {len(data)} values, its shape has {count}")
    return data


def _tensor_size(tensor: Tensor, left: int) -> int:
    size = (tensor.parameters or {}).get("binary_data_size")
    if type(size) is not int:
        raise RequestError("HF508", f"input {tensor.name!r} has neither data nor binary_data_size")
    if not 0 <= size <= left:
        raise RequestError("HF508", f"input {tensor.name!r}: binary_data_size is more than the body holds")
    return size


def _binary_values(tensor: Tensor, raw: memoryview, count: int) -> list[Any]:
    try:
        return read_tensor(tensor.datatype, raw, count)
    except ValueError as error:
        raise RequestError("HF508", f"input {tensor.name!r}: {error}") from None


def _timestamp_text(name: str, value: object) -> str | None:
    # A timestamp as a number is microseconds since 1970 UTC; it goes on as the text that the contract reads.
    if value is None:
        return None
    assert isinstance(value, int | float), "INT64 was found to hold it"
    value = int(value)
    if abs(value) < _YEAR_US:
        raise RequestError("HF502", f"input {name!r}: {_other_scale(value)}", [f"{name}|range"])
    try:
        return (EPOCH + timedelta(microseconds=value)).isoformat()
    except OverflowError:
        what = f"input {name!r}: {value} microseconds since 1970 is no timestamp; are they nanoseconds?"
        raise RequestError("HF502", what, [f"{name}|range"]) from None


def _other_scale(value: int) -> str:
    """Return why a number is hardly a timestamp in microseconds, and what it is in seconds or milliseconds.

    >>> _other_scale(1_700_000_000)
    '1700000000 microseconds since 1970 is 1970-01-01T00:28:20+00:00, in seconds it is 2023-11-14T22:13:20+00:00: send \
microseconds, or a timestamp of 1969 or 1970 as RFC 3339 text'
    """
    read = EPOCH + timedelta(microseconds=value)
    scale, factor = ("milliseconds", 1_000) if abs(value) >= _MOST_SECONDS else ("seconds", 1_000_000)
    meant = (
        f", in {scale} it is {(EPOCH + timedelta(microseconds=value * factor)).isoformat()}" if value else ""
    )
    return (
        f"{value} microseconds since 1970 is {read.isoformat()}{meant}: "
        "send microseconds, or a timestamp of 1969 or 1970 as RFC 3339 text"
    )


def _facts(name: str, parameters: dict[str, Any]) -> ColumnFacts | None:
    if parameters.get("content_type") == "base64":
        raise RequestError(
            "HF508", f"input {name!r}: content_type base64 is not offered; send the text itself"
        )
    stated = tuple(map(parameters.get, _STATED))
    if stated == (None,) * len(_STATED):
        return None
    for what, word in zip(_STATED, stated, strict=True):
        if word is not None and not (isinstance(word, str) and 0 < len(word) <= _WORD_CHARACTERS):
            raise RequestError(
                "HF508", f"input {name!r}: parameter {what!r} is a text of 1 to {_WORD_CHARACTERS} characters"
            )
    return ColumnFacts(*stated)


def _unit(unit: object) -> str | None:
    if unit is None:
        return None
    if type(unit) is int:
        unit = str(unit) if abs(unit) < 2**64 else ""
    if not isinstance(unit, str) or not 0 < len(unit) <= UNIT_CHARACTERS:
        raise RequestError(
            "HF508", f"parameter 'unit' is a text of 1 to {UNIT_CHARACTERS} characters, or an integer"
        )
    return unit


def _binary_output(parameters: dict[str, Any], outputs: list[RequestedOutput] | None) -> bool:
    as_tensors = parameters.get("binary_data_output") is True
    for number, output in enumerate(outputs or ()):
        if output.name != OUTPUT:
            raise RequestError("HF508", f"the model has no output {output.name[:64]!r}; it has {OUTPUT!r}")
        if number:
            raise RequestError("HF508", f"output {OUTPUT!r} is requested twice")
        wanted = output.parameters or {}
        for name in _NOT_OFFERED:
            if wanted.get(name):  # a 0 or null asks for nothing
                raise RequestError(
                    "HF508", f"output {OUTPUT!r}: the extension {name!r} is not offered; see GET /v2"
                )
        requested = wanted.get("binary_data")
        as_tensors = as_tensors if requested is None else requested is True
    return as_tensors


def encode_response(response: InferResponse, *, as_tensors: bool) -> tuple[bytes, int | None]:
    """Return the body and, with `as_tensors` (binary tensor data), the length of its JSON part."""
    probabilities = response.probabilities
    parameters = _Parameters(response.arm, response.prediction, response.plan)
    if not as_tensors:
        output = _Output(OUTPUT, "FP32", probabilities.shape, data=probabilities.tolist())
        return _encode(_Response(response.model, response.version, [output], parameters, response.id)), None
    raw = probabilities.astype("<f4", copy=False).tobytes()
    output = _Output(OUTPUT, "FP32", probabilities.shape, parameters={"binary_data_size": len(raw)})
    head = _encode(_Response(response.model, response.version, [output], parameters, response.id))
    return head + raw, len(head)
