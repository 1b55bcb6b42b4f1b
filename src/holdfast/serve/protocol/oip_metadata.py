"""Metadata of the Open Inference Protocol v2: names, tensors, datatypes and units of a server and its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from holdfast.contract import Boolean, Category, Column, ColumnFacts, Integer, Label, Number, Text, Timestamp
from holdfast.serve.protocol.oip import INTEGERS, OUTPUT

PLATFORM: Final = "onnx_onnxv1"

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The wire form of a column: its own datatype first, then the others that are accepted."""

    name: str
    datatypes: tuple[str, ...]
    facts: ColumnFacts
    """Facts of the contract: part of the metadata, and compared with the facts that a request states."""


def input_spec(column: Column) -> InputSpec:
    """Return the tensor that carries `column`.

    >>> input_spec(Category("carrier")).datatypes
    ('BYTES',)
    """
    facts = ColumnFacts(getattr(column, "unit", None), column.semantic)
    match column:
        case Number():
            return InputSpec(column.name, ("FP64", "FP32", *INTEGERS), facts)
        case Integer():
            return InputSpec(column.name, ("INT64", *(each for each in INTEGERS if each != "INT64")), facts)
        case Category() | Text():
            return InputSpec(column.name, ("BYTES",), facts)
        case Timestamp():
            return InputSpec(column.name, ("BYTES", "INT64"), facts)
        case Boolean() | Label():
            return InputSpec(column.name, ("BOOL",), facts)


def model_metadata(
    name: str, versions: Sequence[str], specs: Sequence[InputSpec], facts: Mapping[str, str]
) -> bytes:
    """Return the response to `GET v2/models/<name>`: inputs and outputs with datatype, shape, unit and semantic."""
    return _encode(
        {
            "name": name,
            "versions": list(versions),
            "platform": PLATFORM,
            "inputs": [_described(spec) for spec in specs],
            "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1]}],
            "parameters": dict(facts),
        }
    )


def _described(spec: InputSpec) -> dict[str, Any]:
    pairs = (("unit", spec.facts.unit), ("semantic", spec.facts.semantic))
    stated = {what: word for what, word in pairs if word is not None}
    parameters = {"parameters": stated} if stated else {}
    return {"name": spec.name, "datatype": spec.datatypes[0], "shape": [-1], **parameters}


def server_metadata(version: str) -> bytes:
    """Return the response to `GET v2`."""
    return _encode({"name": "holdfast", "version": version, "extensions": ["binary_tensor_data"]})
