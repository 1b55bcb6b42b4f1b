"""Holdfast keeps a machine-learning model trustworthy in production.

The names here are what a project's model file needs. They are imported when they are first used, so that importing one part
of Holdfast does not import them all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.contract import (
        Boolean,
        Category,
        Constant,
        Contract,
        Integer,
        Keep,
        Label,
        Mean,
        Median,
        Number,
        Reject,
        Rule,
        Text,
        Timestamp,
        col,
    )
    from holdfast.declaration import Model
    from holdfast.features import (
        Aggregate,
        Bucket,
        Clip,
        Difference,
        Hour,
        Impute,
        Log,
        Month,
        Ordinal,
        Passthrough,
        Ratio,
        Weekday,
    )
    from holdfast.feeds import (
        Completeness,
        Composition,
        Csv,
        Expectations,
        Feed,
        Granularity,
        Limits,
        PostgresQuery,
        Reference,
        TopValueShare,
        Volume,
    )
    from holdfast.qualify import Gates, GoldenQuery, Objective
    from holdfast.rollout import Canary, Hook, Shadow
    from holdfast.rollout.model.drills import Drills
    from holdfast.tables.selection import (
        Cap,
        DiscardBudget,
        Filter,
        Forbidden,
        Quota,
        Sample,
        Selection,
        Source,
        Weights,
    )
    from holdfast.train import GroupMean, LightGBM, LogisticRegression

__version__ = "0.1.0"

_WHERE = {
    "holdfast.contract": (
        "Boolean Category Constant Contract Integer Keep Label Mean Median Number Reject Rule Text Timestamp col"
    ),
    "holdfast.features": "Aggregate Bucket Clip Difference Hour Impute Log Month Ordinal Passthrough Ratio Weekday",
    "holdfast.feeds": (
        "Completeness Composition Csv Expectations Feed Granularity Limits PostgresQuery Reference TopValueShare Volume"
    ),
    "holdfast.declaration": "Model",
    "holdfast.qualify": "Gates GoldenQuery Objective",
    "holdfast.rollout": "Canary Hook Shadow",
    "holdfast.rollout.model.drills": "Drills",
    "holdfast.tables.selection": "Cap DiscardBudget Filter Forbidden Quota Sample Selection Source Weights",
    "holdfast.train": "GroupMean LightGBM LogisticRegression",
}
_HOME = {name: module for module, names in _WHERE.items() for name in names.split()}

__all__ = [  # noqa: RUF022 - in the order of the data
    "Feed", "Csv", "Expectations", "Limits", "Volume", "Completeness", "Granularity", "Reference", "Composition",
    "TopValueShare", "PostgresQuery",
    "Contract", "Boolean", "Category", "Integer", "Label", "Number", "Text", "Timestamp",
    "Reject", "Constant", "Mean", "Median", "Keep", "Rule", "col",
    "Model", "Aggregate", "Bucket", "Clip", "Difference", "Hour", "Impute", "Log", "Month", "Ordinal",
    "Passthrough", "Ratio", "Weekday",
    "Selection", "Filter", "Forbidden", "DiscardBudget", "Sample", "Cap", "Quota", "Weights", "Source",
    "LightGBM", "LogisticRegression", "GroupMean", "Gates", "GoldenQuery", "Objective", "Canary",
    "Shadow", "Hook", "Drills",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
