"""Features: declarations, fitting, the feature graph and point-in-time aggregates.

`declarations.py` holds the declarations, `fitting.py` turns them into the constants of `fitted.py`, `graph.py` (with
`numeric_ops.py` and `datetime_ops.py`) builds the ONNX graph, and `tensors.py` makes its inputs from rows.
`aggregate.py` defines which rows are known when; `asof.py` applies it to frames, `online_table.py` to single
look-ups.

Names that need Polars or spox are imported on first use, since a server needs only the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

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
from holdfast.features.fitted import MISSING_US, FittedFeatures, Input, InputType
from holdfast.features.online_table import OnlineTable
from holdfast.features.tensors import tensors_from_frame, tensors_from_rows

if TYPE_CHECKING:
    from holdfast.features.asof import aggregate_rows, first_changed_us, join_as_of
    from holdfast.features.fitting import fit
    from holdfast.features.graph import compose, feature_graph

__all__ = [
    "MISSING_US",
    "Aggregate",
    "Bucket",
    "Clip",
    "Difference",
    "Feature",
    "FittedFeatures",
    "Hour",
    "Impute",
    "Input",
    "InputType",
    "Log",
    "Month",
    "OnlineTable",
    "Ordinal",
    "Passthrough",
    "Ratio",
    "Weekday",
    "aggregate_rows",
    "aggregates_from_json",
    "aggregates_to_json",
    "columns_read",
    "compose",
    "entity_key",
    "feature_graph",
    "feature_name",
    "first_changed_us",
    "fit",
    "join_as_of",
    "tensors_from_frame",
    "tensors_from_rows",
]

_LAZY_MODULES: Final = {
    "aggregate_rows": "asof",
    "first_changed_us": "asof",
    "join_as_of": "asof",
    "fit": "fitting",
    "compose": "graph",
    "feature_graph": "graph",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY_MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_LAZY_MODULES[name]}"), name)
    return value
