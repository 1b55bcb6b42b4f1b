"""The declared features, their fitting and their one graph; point-in-time aggregates.

`declarations.py` is what a user writes, `fitting.py` turns it into the constants of `fitted.py`, `graph.py`
(with `arithmetic.py` and `clocks.py`) into ONNX, and `tensors.py` makes the graph's inputs of rows.
`aggregate.py` holds the rule of what was known when; `asof.py` applies it to frames, `online.py` to single
look-ups.

Names that need Polars or spox are loaded when first used: a server reads only the rest.
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
from holdfast.features.fitted import MISSING_US, FittedFeatures, Input, Kind
from holdfast.features.online_table import OnlineTable
from holdfast.features.tensors import feed_from_frame, feed_from_rows

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
    "Kind",
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
    "feed_from_frame",
    "feed_from_rows",
    "first_changed_us",
    "fit",
    "join_as_of",
]

_WHERE: Final = {
    "aggregate_rows": "asof",
    "first_changed_us": "asof",
    "join_as_of": "asof",
    "fit": "fitting",
    "compose": "graph",
    "feature_graph": "graph",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    return value
