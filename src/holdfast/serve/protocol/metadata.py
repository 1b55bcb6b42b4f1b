"""The metadata of the Open Inference Protocol v2: what a server and a model are, and what a request may send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from holdfast.contract import Boolean, Category, Column, ColumnFacts, Integer, Label, Number, Text, Timestamp
from holdfast.contract.row.explain import describe, known_words
from holdfast.serve.protocol.datatypes import INTEGERS, TIMESTAMP
from holdfast.serve.protocol.oip import OUTPUT

PLATFORM: Final = "onnx_onnxv1"
_NO_WORDS: Final[Mapping[str, Sequence[str]]] = {}
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The wire form of a column: its own datatype first, then the others that are accepted."""

    name: str
    datatypes: tuple[str, ...]
    facts: ColumnFacts
    """Facts of the contract, compared with the facts that a request states."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What the contract allows: part of the metadata."""


def input_spec(column: Column) -> InputSpec:
    """Return the tensor that carries `column`.

    >>> input_spec(Category("carrier")).datatypes
    ('BYTES',)
    """
    facts = ColumnFacts.of(column)
    return InputSpec(column.name, _datatypes(column), facts, describe(column))


def _datatypes(column: Column) -> tuple[str, ...]:
    match column:
        case Number():
            return ("FP64", "FP32", *INTEGERS)
        case Integer():
            return ("INT64", *(each for each in INTEGERS if each != "INT64"), "FP64")
        case Category() | Text():
            return ("BYTES",)
        case Timestamp():
            return TIMESTAMP
        case Boolean() | Label():
            return ("BOOL",)


def model_metadata(
    name: str,
    versions: Sequence[str],
    specs: Sequence[InputSpec],
    facts: Mapping[str, str],
    words: Mapping[str, Sequence[str]] = _NO_WORDS,
) -> bytes:
    """Return the response to `GET v2/models/<name>`: inputs and outputs with datatype, shape, and what they allow.

    Parameters
    ----------
    name
        The model.
    versions
        Its versions that a request may name.
    specs
        Its inputs.
    facts
        Parameters of the model.
    words
        By column, the words that the version has a code for. They are stated where the contract declares none.
    """
    return _encode(
        {
            "name": name,
            "versions": list(versions),
            "platform": PLATFORM,
            "inputs": [_described(spec, words.get(spec.name)) for spec in specs],
            "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1]}],
            "parameters": dict(facts),
        }
    )


def _described(spec: InputSpec, words: Sequence[str] | None) -> dict[str, Any]:
    declared = "values" in spec.parameters
    allowed = {"accepts": list(spec.datatypes), **known_words(None if declared else words), **spec.parameters}
    if "INT64" in spec.datatypes and spec.datatypes[0] == "BYTES":
        allowed["INT64"] = "microseconds since 1970 UTC"
    return {"name": spec.name, "datatype": spec.datatypes[0], "shape": [-1], "parameters": allowed}


def server_metadata(version: str) -> bytes:
    """Return the response to `GET v2`."""
    return _encode({"name": "holdfast", "version": version, "extensions": ["binary_tensor_data"]})
