"""The one file that a version is: an ONNX graph that carries its own history.

Nothing here unpickles anything. A file is known by the SHA-256 of its bytes; the same snapshot, seed,
declaration and environment give the same bytes, so training again makes no second version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal

import onnx
from google.protobuf.message import DecodeError

from holdfast.errors import IntegrityError
from holdfast.records import canonical_json

METADATA_KEY: Final = "holdfast"
LARGEST_FILE_BYTES: Final = 2**31 - 1
"""Protocol buffers cannot hold more."""

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Operators that ONNX Runtime brings itself; any other domain would need a foreign library."""

_KNOWN_IR_VERSIONS: Final = range(3, 20)

Role = Literal["candidate", "heuristic"]


@dataclass(frozen=True, slots=True)
class VersionMetadata:
    """Where a version comes from; everything needed to make it again (R67, R94).

    Parameters
    ----------
    model
        The model's name.
    role
        A candidate may be rolled out; a heuristic is the baseline and the fallback.
    contract_json, contract_hash
        The contract whose rows it answers for.
    features_json, features_hash
        The fitted features whose graph is composed into the file.
    aggregates_json
        The aggregates that its inputs are joined with, as a JSON list.
    snapshot
        The snapshot that it learnt from.
    learner, parameters, seed
        What learnt, and with which choices.
    environment
        Versions of Python and of the packages that took part, by name.
    rows
        Labelled rows it was trained on.
    trained_before_us
        Every training row is older than this (microseconds since 1970, UTC).
    selection_json
        Which of the snapshot's training rows taught, and with which weights; empty for versions made before there was a
        choice.
    """

    model: str
    role: Role
    contract_json: str
    contract_hash: str
    features_json: str
    features_hash: str
    aggregates_json: str
    snapshot: str
    learner: str
    parameters: Mapping[str, object]
    seed: int
    environment: Mapping[str, str]
    rows: int
    trained_before_us: int
    selection_json: str = ""


def seal(graph: onnx.ModelProto, metadata: VersionMetadata) -> bytes:
    """The bytes of a version: `graph` with `metadata` inside; equal arguments give equal bytes.

    The graph that was given is left as it was.
    """
    sealed = onnx.ModelProto()
    sealed.CopyFrom(graph)
    del sealed.metadata_props[:]
    sealed.metadata_props.add(key=METADATA_KEY, value=canonical_json(asdict(metadata)))
    data: bytes = sealed.SerializeToString(deterministic=True)
    return data


def open_sealed(data: bytes) -> tuple[onnx.ModelProto, VersionMetadata]:
    """The graph and the metadata of a version's bytes.

    Raises `IntegrityError` HF301 when `data` is not an ONNX file (a pickle, an archive, a truncated file),
    wants a foreign operator library or data outside the file, or carries no metadata of Holdfast.
    """
    _refuse_foreign(data)
    graph = onnx.ModelProto()
    try:
        graph.ParseFromString(data)
    except DecodeError as error:
        raise _damaged(f"the file cannot be parsed as ONNX: {error}") from error
    _refuse_outside_parts(graph)
    found = [entry.value for entry in graph.metadata_props if entry.key == METADATA_KEY]
    if len(found) != 1:
        raise _damaged(f"the file carries {len(found)} entries of Holdfast metadata, not one")
    try:
        return graph, VersionMetadata(**json.loads(found[0]))
    except (TypeError, ValueError) as error:
        raise _damaged(f"the file's metadata cannot be read: {error}") from error


def read_metadata(data: bytes) -> VersionMetadata:
    """The metadata of a version's bytes; raises as `open_sealed` does."""
    return open_sealed(data)[1]


def _refuse_foreign(data: bytes) -> None:
    # An allow-list, looked at before any parser: field 1 (the IR version) comes first in what `seal` writes.
    if len(data) < 2 or data[0] != 0x08 or data[1] not in _KNOWN_IR_VERSIONS:
        raise _damaged(f"the file begins with {data[:4].hex() or 'nothing'}: it is not an ONNX file")
    if len(data) > LARGEST_FILE_BYTES:
        raise _damaged(f"the file has {len(data)} bytes, more than ONNX can hold")


def _refuse_outside_parts(graph: onnx.ModelProto) -> None:
    own = {function.domain for function in graph.functions}
    foreign = {entry.domain for entry in graph.opset_import} - STANDARD_DOMAINS - own
    if foreign:
        raise _damaged(f"the file needs operators of {', '.join(sorted(foreign))}")
    if any(_tensors_outside(graph.graph)) or any(
        _node_tensors_outside(node) for function in graph.functions for node in function.node
    ):
        raise _damaged("the file points at data outside itself")


def _tensors_outside(graph: onnx.GraphProto) -> list[bool]:
    outside = [tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer]
    outside += [
        sparse.values.data_location == onnx.TensorProto.EXTERNAL for sparse in graph.sparse_initializer
    ]
    return outside + [_node_tensors_outside(node) for node in graph.node]


def _node_tensors_outside(node: onnx.NodeProto) -> bool:
    return any(
        attribute.t.data_location == onnx.TensorProto.EXTERNAL
        or any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in attribute.tensors)
        or any(_tensors_outside(attribute.g))
        or any(any(_tensors_outside(inner)) for inner in attribute.graphs)
        for attribute in node.attribute
    )


def _damaged(what: str) -> IntegrityError:
    return IntegrityError("HF301", what, state="it was not loaded")
