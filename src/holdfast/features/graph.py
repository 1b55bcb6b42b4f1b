"""The feature graph: fitted features as one ONNX model, and an estimator composed behind it.

Training, qualification, serving and audits run this same graph (R45, R49); there is no second implementation
of a feature that could differ. The operator sets, ai.onnx 17 and ai.onnx.ml 3, are the newest in which the
converters of LightGBM and scikit-learn still find their tree and linear operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias, assert_never

import numpy as np
import onnx
import spox.opset.ai.onnx.ml.v3 as ml
import spox.opset.ai.onnx.v17 as op
from spox import Tensor, Var, argument, build, inline

from holdfast.errors import InputError
from holdfast.features.datetime_ops import clocks
from holdfast.features.fitted import (
    CODE_FIRST,
    CODE_UNSEEN,
    AnyFitted,
    Clocked,
    Coded,
    FittedFeatures,
    Flagged,
    Input,
    Kind,
)
from holdfast.features.numeric_ops import Numbers, OnNumbers, constant, stack

FEATURES: Final = "features"
"""The output of the feature graph and the input of every estimator: float32 of shape (N, F)."""

PROBABILITY: Final = "probability"
"""The output of every estimator and of the composed model: float32 of shape (N,)."""

_Made: TypeAlias = list[tuple[list[AnyFitted], Var]]
"""Features, and their values as float32 of shape (features, N)."""


def feature_graph(fitted: FittedFeatures) -> onnx.ModelProto:
    """The graph of the features: from the inputs, each of shape (N,), to `features`, float32 of shape (N, F).

    Inputs are float64 (number, boolean; NaN is missing), string (category; "" is missing) or int64
    (timestamp; microseconds UTC). The same features give the same bytes.

    Raises
    ------
    InputError
        HF105 when there is no feature.
    """
    arguments = {part.name: _argument(part) for part in fitted.inputs}
    return build(arguments, {FEATURES: _matrix(fitted, arguments)})


def compose(fitted: FittedFeatures, estimator: onnx.ModelProto) -> onnx.ModelProto:
    """One model from the inputs of the features to `probability`, float32 of shape (N,): the graph with
    `estimator` behind it.

    Raises
    ------
    InputError
        HF402 when the estimator does not map `features` of as many columns as there are features to
        `probability`.
    """
    _check_estimator(fitted, estimator)
    arguments = {part.name: _argument(part) for part in fitted.inputs}
    answer = inline(estimator)(**{FEATURES: _matrix(fitted, arguments)})
    return build(arguments, {PROBABILITY: answer[PROBABILITY]})


def _argument(part: Input) -> Var:
    match part.kind:
        case Kind.NUMBER | Kind.BOOLEAN:
            return argument(Tensor(np.float64, ("N",)))
        case Kind.CATEGORY:
            return argument(Tensor(np.str_, ("N",)))
        case Kind.TIMESTAMP:
            return argument(Tensor(np.int64, ("N",)))
        case _:
            assert_never(part.kind)


def _matrix(fitted: FittedFeatures, arguments: Mapping[str, Var]) -> Var:
    if not fitted.features:
        raise InputError("HF105", "a model needs at least one feature")
    kinds = {part.name: part.kind for part in fitted.inputs}
    numbers = {name: arguments[name] for name, kind in kinds.items() if kind in (Kind.NUMBER, Kind.BOOLEAN)}
    made = [
        *_from_numbers(fitted, numbers),
        *_from_words(fitted, arguments, numbers),
        *_from_clocks(fitted, arguments),
    ]
    have = [feature.name for features, _ in made for feature in features]
    values = stack([part for _, part in made])
    order = [have.index(name) for name in fitted.names]
    # Putting the columns in order comes last even when they are, so that no estimator begins right behind a
    # Transpose: the two would be fused, and ONNX Runtime 1.31 multiplies a transposed matrix by a vector
    # wrongly.
    return op.gather(op.transpose(values, perm=[1, 0]), constant(order, np.int64), axis=1)


def _from_numbers(fitted: FittedFeatures, numbers: Mapping[str, Var]) -> _Made:
    if not numbers:
        return []
    stacked, made = Numbers(numbers), _Made()
    arithmetic = [feature for feature in fitted.features if isinstance(feature, OnNumbers)]
    if arithmetic:
        ordered, values = stacked.matrix(arithmetic)
        made.append((list(ordered), values))
    flags = [
        feature for feature in fitted.features if isinstance(feature, Flagged) and feature.column in numbers
    ]
    if flags:
        made.append((list(flags), stacked.flags(flags)))
    return made


def _from_words(fitted: FittedFeatures, arguments: Mapping[str, Var], numbers: Mapping[str, Var]) -> _Made:
    features: list[AnyFitted] = []
    codes: list[Var] = []
    for feature in fitted.features:
        match feature:
            case Coded(_, column, values, missing):
                words = ["", *values]
                places = [float(missing), *(float(place + CODE_FIRST) for place in range(len(values)))]
                other = float(CODE_UNSEEN)
            case Flagged(_, column) if column not in numbers:
                words, places, other = [""], [1.0], 0.0
            case _:
                continue
        features.append(feature)
        codes.append(
            ml.label_encoder(arguments[column], keys_strings=words, values_floats=places, default_float=other)
        )
    if not codes:
        return []
    return [(features, op.reshape(stack(codes), constant([len(codes), -1], np.int64)))]


def _from_clocks(fitted: FittedFeatures, arguments: Mapping[str, Var]) -> _Made:
    zones = {zone.name: zone for zone in fitted.zones}
    by_column: dict[str, list[Clocked]] = {}
    for feature in fitted.features:
        if isinstance(feature, Clocked):
            by_column.setdefault(feature.column, []).append(feature)
    return [
        (
            list(features),
            clocks(arguments[column], zones[features[0].zone], [feature.part for feature in features]),
        )
        for column, features in by_column.items()
    ]


def _check_estimator(fitted: FittedFeatures, estimator: onnx.ModelProto) -> None:
    inputs = {part.name: _shape(part) for part in estimator.graph.input}
    outputs = {part.name: _shape(part) for part in estimator.graph.output}
    if list(inputs) != [FEATURES] or PROBABILITY not in outputs:
        raise InputError(
            "HF402",
            f"an estimator maps {FEATURES!r} to {PROBABILITY!r}; this one has {[*inputs]} and {[*outputs]}",
        )
    taken, given = inputs[FEATURES], outputs[PROBABILITY]
    if taken is not None and (len(taken) != 2 or taken[1] not in (0, len(fitted.features))):
        raise InputError(
            "HF402", f"the estimator takes features of shape {taken}, and there are {len(fitted.features)}"
        )
    if given is not None and len(given) != 1:
        raise InputError(
            "HF402", f"the estimator's probability has {len(given)} axes instead of one, the rows"
        )


def _shape(part: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """The sizes of the axes, 0 for one of any size; None when not even their number is known."""
    tensor = part.type.tensor_type
    return tuple(axis.dim_value for axis in tensor.shape.dim) if tensor.HasField("shape") else None
