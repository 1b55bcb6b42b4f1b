"""A version's file carries its history, and nothing else is taken for one (R94; reliability A1, A2, A7)."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from holdfast.errors import IntegrityError
from holdfast.train.artifact import METADATA_KEY, VersionMetadata, open_version, pack_version, read_metadata
from tests.support.profile import examples

ABOUT = VersionMetadata(
    model="flights",
    role="candidate",
    contract_json='{"a":1}',
    contract_hash="c" * 64,
    features_json="{}",
    features_hash="f" * 64,
    aggregates_json="[]",
    snapshot="s1",
    learner="group_mean",
    parameters={"weight": 20.0, "by": ["Zürich", "🛫"]},
    seed=2**40,
    environment={"python": "3.11.2"},
    rows=100,
    trained_before_us=1_362_000_000_000_000,
)


def graph() -> onnx.ModelProto:
    given_ = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 2])
    made = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])
    weights = numpy_helper.from_array(np.array([0.5, -0.5], np.float32), "weights")
    nodes = [helper.make_node("MatMul", ["features", "weights"], ["probability"])]
    body = helper.make_graph(nodes, "g", [given_], [made], [weights])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_was_packed_is_read_back() -> None:
    data = pack_version(graph(), ABOUT)
    opened, about = open_version(data)
    assert about == ABOUT
    assert opened.graph == graph().graph
    assert pack_version(opened, about) == data
    onnx.checker.check_model(opened)


def test_packing_leaves_the_graph_as_it_was() -> None:
    one = graph()
    pack_version(one, ABOUT)
    assert one == graph()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps({}))
    return buffer.getvalue()


def external() -> bytes:
    model = graph()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="../secret")
    return pack_version(model, ABOUT)


def external_in_a_branch() -> bytes:
    model = graph()
    outside = onnx.TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL
    )
    made = helper.make_tensor_value_info("w", TensorProto.FLOAT, [1])
    branch = helper.make_graph([], "branch", [], [made], [outside])
    model.graph.node.append(helper.make_node("If", ["c"], ["r"], then_branch=branch, else_branch=branch))
    return pack_version(model, ABOUT)


def foreign() -> bytes:
    model = graph()
    model.opset_import.append(helper.make_opsetid("com.microsoft.extensions", 1))
    return pack_version(model, ABOUT)


def twice() -> bytes:
    model = graph()
    for _ in range(2):
        model.metadata_props.add(key=METADATA_KEY, value="{}")
    return model.SerializeToString(deterministic=True)


def strange_metadata() -> bytes:
    model = graph()
    model.metadata_props.add(key=METADATA_KEY, value='{"model": "flights"}')
    return model.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "begins with nothing"),
        (pickle.dumps({"a": 1}), "it is not an ONNX file"),
        (pickle.dumps({"a": 1}, protocol=0), "it is not an ONNX file"),
        (zipped(), "it is not an ONNX file"),
        (b"\x89HDF\r\n\x1a\n", "it is not an ONNX file"),
        (b"tree\nversion=v4\n", "it is not an ONNX file"),
        (b"\x08\x08" + pickle.dumps({"a": 1}), "cannot be parsed|0 entries"),
        (graph().SerializeToString(), "0 entries"),
        (twice(), "2 entries"),
        (strange_metadata(), "cannot be read"),
        (external(), "external data"),
        (external_in_a_branch(), "external data"),
        (foreign(), "operators of com.microsoft.extensions"),
    ],
)
def test_anything_else_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(IntegrityError, match=words) as refused:
        read_metadata(data)
    assert refused.value.code == "HF301"


PACKED = pack_version(graph(), ABOUT)


@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255), st.booleans())
@examples(150)
def test_damage_is_refused_or_harmless_to_the_reader(at: int, change: int, snapshot: bool) -> None:
    """Whatever was done to the bytes, reading ends in metadata or in HF301, never in another exception."""
    damaged = PACKED[:at] if snapshot else PACKED[:at] + bytes([PACKED[at] ^ change]) + PACKED[at + 1 :]
    try:
        open_version(damaged)
    except IntegrityError as error:
        assert error.code == "HF301"  # noqa: PT017 - most damage is refused, and some bits change nothing that is read
