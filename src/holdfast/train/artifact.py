"""The file of a version: an ONNX graph that contains its own metadata.

Nothing is unpickled. A file is identified by the SHA-256 of its bytes. The same snapshot, seed, declaration and
environment give the same bytes, so training again makes no second version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import onnx
from google.protobuf.message import DecodeError

from holdfast.errors import IntegrityError
from holdfast.records import canonical_json, sha256_hex

METADATA_KEY: Final = "holdfast"
LARGEST_FILE_BYTES: Final = 2**31 - 1
"""The limit of protocol buffers."""

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Operator domains that ONNX Runtime contains; any other needs a foreign library."""

_KNOWN_IR_VERSIONS: Final = range(3, 20)

UntrainedLoad: TypeAlias = tuple[str, str, int, int]
"""Feed, batch and epoch of a load without a training row, and the number of its held-out rows."""

Role = Literal["candidate", "heuristic"]


@dataclass(frozen=True, slots=True)
class VersionMetadata:
    """The origin of a version: everything needed to make it again (R67, R94).

    Parameters
    ----------
    model
        The model's name.
    role
        A candidate may be rolled out; a heuristic is the baseline and the fallback.
    contract_json, contract_hash
        The contract of the rows that it predicts.
    features_json, features_hash
        The fitted features whose graph is part of the file.
    aggregates_json
        The aggregates that its inputs are joined with, as a JSON list.
    snapshot
        The snapshot that it was trained on.
    learner, parameters, seed
        The learner and its settings.
    environment
        Versions of Python and of the packages used, by name.
    rows
        The number of labelled rows that it was trained on.
    trained_before_us
        Every training row is older than this (microseconds since 1970, UTC).
    selection_json
        The selection of the snapshot's training rows, and their weights; empty for none.
    untrained_loads
        Loads of the snapshot that no training row, or label of one, is from: feed, batch, epoch, and how many held-out rows
        are from it. Of the other loads, and of all of them in files of earlier releases, that is not known.
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
    untrained_loads: Sequence[UntrainedLoad] = ()

    def __post_init__(self) -> None:
        # JSON has lists for them.
        object.__setattr__(self, "untrained_loads", tuple(map(tuple, self.untrained_loads)))


def pack_version(graph: onnx.ModelProto, metadata: VersionMetadata) -> bytes:
    """Return the bytes of a version: `graph` with `metadata` inside; equal arguments give equal bytes.

    The given graph is not changed.
    """
    packed = onnx.ModelProto()
    packed.CopyFrom(graph)
    del packed.metadata_props[:]
    packed.metadata_props.add(key=METADATA_KEY, value=canonical_json(metadata))
    data: bytes = packed.SerializeToString(deterministic=True)
    return data


def training_digest(graph: onnx.ModelProto, metadata: VersionMetadata, rows_digest: str) -> str:
    """Return the SHA-256 of a version without the snapshot, and of its training and held-out rows.

    Two versions with the same digest differ in the names of their snapshots alone: declaration, seed, environment, rows and
    graph are the same. `rows_digest` is of the rows.
    """
    data = pack_version(graph, replace(metadata, snapshot="", untrained_loads=()))
    return sha256_hex(f"{sha256_hex(data)} {rows_digest}")


def open_version(data: bytes) -> tuple[onnx.ModelProto, VersionMetadata]:
    """Return the graph and the metadata of a version's bytes.

    Raises `IntegrityError` HF301 if `data` is not an ONNX file (a pickle, an archive, a truncated file), needs a
    foreign operator library or data outside the file, or contains no metadata of Holdfast.
    """
    _check_header(data)
    graph = onnx.ModelProto()
    try:
        graph.ParseFromString(data)
    except DecodeError as error:
        raise _damaged_error(f"the file cannot be parsed as ONNX: {error}") from error
    _refuse_external_parts(graph)
    found = [entry.value for entry in graph.metadata_props if entry.key == METADATA_KEY]
    if len(found) != 1:
        raise _damaged_error(f"the file contains {len(found)} entries of Holdfast metadata instead of one")
    try:
        return graph, VersionMetadata(**json.loads(found[0]))
    except (TypeError, ValueError) as error:
        raise _damaged_error(f"the file's metadata cannot be read: {error}") from error


def read_metadata(data: bytes) -> VersionMetadata:
    """Return the metadata of a version's bytes. Raises as `open_version` does."""
    return open_version(data)[1]


def _check_header(data: bytes) -> None:
    # An allow-list, checked before any parser runs: field 1 (the IR version) comes first in what `pack_version` writes.
    if len(data) < 2 or data[0] != 0x08 or data[1] not in _KNOWN_IR_VERSIONS:
        raise _damaged_error(f"the file begins with {data[:4].hex() or 'nothing'}: it is not an ONNX file")
    if len(data) > LARGEST_FILE_BYTES:
        raise _damaged_error(f"the file has {len(data)} bytes, more than ONNX can hold")


def _refuse_external_parts(graph: onnx.ModelProto) -> None:
    own = {function.domain for function in graph.functions}
    foreign = {entry.domain for entry in graph.opset_import} - STANDARD_DOMAINS - own
    if foreign:
        raise _damaged_error(f"the file needs operators of {', '.join(sorted(foreign))}")
    if any(_external_tensors(graph.graph)) or any(
        _has_external_tensors(node) for function in graph.functions for node in function.node
    ):
        raise _damaged_error("the file refers to external data")


def _external_tensors(graph: onnx.GraphProto) -> list[bool]:
    outside = [tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer]
    outside += [
        sparse.values.data_location == onnx.TensorProto.EXTERNAL for sparse in graph.sparse_initializer
    ]
    return outside + [_has_external_tensors(node) for node in graph.node]


def _has_external_tensors(node: onnx.NodeProto) -> bool:
    return any(
        attribute.t.data_location == onnx.TensorProto.EXTERNAL
        or any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in attribute.tensors)
        or any(_external_tensors(attribute.g))
        or any(any(_external_tensors(inner)) for inner in attribute.graphs)
        for attribute in node.attribute
    )


def _damaged_error(what: str) -> IntegrityError:
    return IntegrityError("HF301", what, state="it was not loaded")
