"""The feature graph: fitted features as one ONNX model, and an estimator composed behind it.

Training, qualification, serving and audits run this same graph (R45, R49); there is no second implementation of a
feature. The operator sets, ai.onnx 17 and ai.onnx.ml 3, are the newest that the converters of LightGBM and
scikit-learn support.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import numpy as np
import onnx
import spox.opset.ai.onnx.ml.v3 as ml
import spox.opset.ai.onnx.v17 as op
from spox import Tensor, Var, argument, build, inline

from holdfast.errors import InputError
from holdfast.features.datetime_ops import datetime_parts
from holdfast.features.fitted import (
    CODE_FIRST,
    CODE_UNSEEN,
    FittedDatetime,
    FittedFeature,
    FittedFeatures,
    FittedOrdinal,
    Input,
    InputType,
    MissingFlag,
)
from holdfast.features.numeric_ops import NumberFeature, NumberMatrix, constant, stack

FEATURES: Final = "features"
"""The output of the feature graph and the input of every estimator: float32 of shape (N, F)."""

PROBABILITY: Final = "probability"
"""The output of every estimator and of the composed model: float32 of shape (N,)."""

_Columns: TypeAlias = list[tuple[list[FittedFeature], Var]]
"""Features, and their values as float32 of shape (features, N)."""


def feature_graph(fitted: FittedFeatures) -> onnx.ModelProto:
    """Build the graph from the inputs, each of shape (N,), to `features`, float32 of shape (N, F).

    Inputs are float64 (number, boolean; NaN is missing), string (category; "" is missing) or int64 (timestamp;
    microseconds UTC). The same features give the same bytes.

    Raises
    ------
    InputError
        HF105 if there is no feature.
    """
    arguments = {part.name: _make_argument(part) for part in fitted.inputs}
    return build(arguments, {FEATURES: _feature_matrix(fitted, arguments)})


def compose(fitted: FittedFeatures, estimator: onnx.ModelProto) -> onnx.ModelProto:
    """Build one model from the inputs of the features to `probability`, float32 of shape (N,).

    Raises
    ------
    InputError
        HF402 if the estimator does not map `features`, of the same number of columns, to `probability`.
    """
    check_estimator(fitted, estimator)
    arguments = {part.name: _make_argument(part) for part in fitted.inputs}
    prediction = inline(estimator)(**{FEATURES: _feature_matrix(fitted, arguments)})
    return build(arguments, {PROBABILITY: prediction[PROBABILITY]})


_DTYPES: Final = {
    InputType.NUMBER: np.float64,
    InputType.BOOLEAN: np.float64,
    InputType.CATEGORY: np.str_,
    InputType.TIMESTAMP: np.int64,
}


def _make_argument(part: Input) -> Var:
    return argument(Tensor(_DTYPES[part.kind], ("N",)))


def _feature_matrix(fitted: FittedFeatures, arguments: Mapping[str, Var]) -> Var:
    if not fitted.features:
        raise InputError("HF105", "a model needs at least one feature")
    kinds = {part.name: part.kind for part in fitted.inputs}
    numbers = {
        name: arguments[name] for name, kind in kinds.items() if kind in (InputType.NUMBER, InputType.BOOLEAN)
    }
    made = [
        *_number_columns(fitted, numbers),
        *_word_columns(fitted, arguments, numbers),
        *_datetime_columns(fitted, arguments),
    ]
    have = [feature.name for features, _ in made for feature in features]
    values = stack([part for _, part in made])
    order = [have.index(name) for name in fitted.names]
    # The gather stays even if the columns are in order, so that no estimator follows a Transpose directly: the
    # two would be fused, and ONNX Runtime 1.31 multiplies a transposed matrix by a vector wrongly.
    return op.gather(op.transpose(values, perm=[1, 0]), constant(order, np.int64), axis=1)


def _number_columns(fitted: FittedFeatures, numbers: Mapping[str, Var]) -> _Columns:
    if not numbers:
        return []
    stacked, made = NumberMatrix(numbers), _Columns()
    arithmetic = [feature for feature in fitted.features if isinstance(feature, NumberFeature)]
    if arithmetic:
        ordered, values = stacked.matrix(arithmetic)
        made.append((list(ordered), values))
    flags = [
        feature
        for feature in fitted.features
        if isinstance(feature, MissingFlag) and feature.column in numbers
    ]
    if flags:
        made.append((list(flags), stacked.flags(flags)))
    return made


def _word_columns(
    fitted: FittedFeatures, arguments: Mapping[str, Var], numbers: Mapping[str, Var]
) -> _Columns:
    features: list[FittedFeature] = []
    codes: list[Var] = []
    for feature in fitted.features:
        match feature:
            case FittedOrdinal(_, column, values, missing):
                words = ["", *values]
                places = [float(missing), *(float(place + CODE_FIRST) for place in range(len(values)))]
                other = float(CODE_UNSEEN)
            case MissingFlag(_, column) if column not in numbers:
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


def _datetime_columns(fitted: FittedFeatures, arguments: Mapping[str, Var]) -> _Columns:
    zones = {zone.name: zone for zone in fitted.zones}
    by_column: dict[str, list[FittedDatetime]] = {}
    for feature in fitted.features:
        if isinstance(feature, FittedDatetime):
            by_column.setdefault(feature.column, []).append(feature)
    return [
        (
            list(features),
            datetime_parts(
                arguments[column], zones[features[0].zone], [feature.part for feature in features]
            ),
        )
        for column, features in by_column.items()
    ]


def check_estimator(fitted: FittedFeatures, estimator: onnx.ModelProto) -> None:
    """Raise `InputError` HF402 if `estimator` does not map `features`, of the number of `fitted`, to `probability`."""
    inputs = {part.name: _shape_of(part) for part in estimator.graph.input}
    outputs = {part.name: _shape_of(part) for part in estimator.graph.output}
    if list(inputs) != [FEATURES] or PROBABILITY not in outputs:
        raise InputError(
            "HF402",
            f"an estimator maps {FEATURES!r} to {PROBABILITY!r}; this one has {[*inputs]} and {[*outputs]}",
        )
    input_shape, output_shape = inputs[FEATURES], outputs[PROBABILITY]
    if input_shape is not None and (len(input_shape) != 2 or input_shape[1] not in (0, len(fitted.features))):
        raise InputError(
            "HF402",
            f"the estimator takes features of shape {input_shape}, but there are {len(fitted.features)}",
        )
    if output_shape is not None and len(output_shape) != 1:
        raise InputError(
            "HF402", f"the estimator's probability has {len(output_shape)} axes instead of one, the rows"
        )


def _shape_of(part: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """Return the sizes of the axes, 0 for one of any size; None if their number is unknown."""
    tensor = part.type.tensor_type
    return tuple(axis.dim_value for axis in tensor.shape.dim) if tensor.HasField("shape") else None
