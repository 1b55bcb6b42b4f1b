"""Features: declarations, fitting, the feature graph and point-in-time aggregates.

`declarations.py` holds the declarations, `fitting.py` turns them into the constants of `fitted.py`, `graph.py` (with
`numeric_ops.py` and `datetime_ops.py`) builds the ONNX graph, and `tensors.py` makes its inputs from rows.
`aggregate.py` defines which rows are known when; `asof.py` applies it to frames, `online_table.py` to single
look-ups.

What needs Polars or spox is imported from its module, since a server needs only the rest.
"""

from holdfast.features.aggregate import Aggregate, aggregates_from_json, aggregates_to_json, entity_key
from holdfast.features.declarations import (
    Bucket,
    Clip,
    Difference,
    Feature,
    Hour,
    Impute,
    Log,
    Month,
    Ordinal,
    Passthrough,
    Ratio,
    Weekday,
    columns_read,
    feature_name,
)
from holdfast.features.fitted import FittedFeatures, Input
from holdfast.features.online_table import OnlineTable
from holdfast.features.tensors import tensors_from_frame, tensors_from_rows

__all__ = [
    "Aggregate",
    "Bucket",
    "Clip",
    "Difference",
    "Feature",
    "FittedFeatures",
    "Hour",
    "Impute",
    "Input",
    "Log",
    "Month",
    "OnlineTable",
    "Ordinal",
    "Passthrough",
    "Ratio",
    "Weekday",
    "aggregates_from_json",
    "aggregates_to_json",
    "columns_read",
    "entity_key",
    "feature_name",
    "tensors_from_frame",
    "tensors_from_rows",
]
