"""Fit declarations on a training snapshot: everything learned from data becomes a constant here.

Only the given frame is used (R26), so a caller that passes the training part of a time split cannot leak the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

import polars as pl

from holdfast.contract import (
    Boolean,
    Category,
    Column,
    Constant,
    Contract,
    Integer,
    Keep,
    Label,
    Mean,
    Median,
    Missing,
    Number,
    Reject,
    Text,
    Timestamp,
)
from holdfast.contract.schema.missing import as_policy, fill_values
from holdfast.errors import InputError
from holdfast.features import input_rules
from holdfast.features.aggregate import Aggregate
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
from holdfast.features.fitted import (
    CODE_FIRST,
    CODE_MISSING,
    DatetimePart,
    FittedBucket,
    FittedClip,
    FittedDatetime,
    FittedDifference,
    FittedFeature,
    FittedFeatures,
    FittedLog,
    FittedNumber,
    FittedOrdinal,
    FittedRatio,
    Input,
    InputType,
    MissingFlag,
)
from holdfast.features.timezone_tables import load_zone


def fit(
    features: Sequence[Feature], aggregates: Sequence[Aggregate], contract: Contract, frame: pl.DataFrame
) -> FittedFeatures:
    """Fit every feature on a snapshot.

    Parameters
    ----------
    features
        In the order of the matrix. The flag of a missing value follows the feature that declares it.
    aggregates
        The aggregates joined to the rows. One that no feature reads becomes the last feature, as `Passthrough`.
    contract
        The contract of the rows.
    frame
        The valid rows to train on, with a column for each aggregate (`join_as_of`).

    Raises
    ------
    InputError
        HF105 if a declaration does not fit the contract: an unknown column, the wrong type, the label, or a
        duplicate name. HF408 if the frame lacks a column that is read. HF401 if it has no row, or no value to
        fit a constant to.
    """
    columns = {column for feature in features for column in columns_read(feature)}
    all_features = [
        *features,
        *(Passthrough(aggregate.name) for aggregate in aggregates if aggregate.name not in columns),
    ]
    for problem in input_rules.problems(all_features, [aggregate.name for aggregate in aggregates], contract):
        raise InputError(
            "HF105",
            problem,
            state="nothing was fitted",
            next_command="correct the model file, then holdfast check",
        )
    fitting = _Fitter(aggregates, contract, frame, columns)
    fitted = tuple(part for feature in all_features for part in fitting.fit(feature))
    zones = {part.zone for part in fitted if isinstance(part, FittedDatetime)}
    return FittedFeatures(
        contract.hash,
        fitting.inputs,
        fitted,
        tuple(load_zone(zone) for zone in sorted(zones)),
        tuple(aggregates),
    )


class _Fitter:
    def __init__(
        self, aggregates: Sequence[Aggregate], contract: Contract, frame: pl.DataFrame, columns: Iterable[str]
    ) -> None:
        self.contract = contract
        self.frame = frame
        self.aggregates = {aggregate.name for aggregate in aggregates}
        clash = sorted(self.aggregates.intersection(column.name for column in contract.columns))
        if clash or len(self.aggregates) < len(aggregates):
            raise InputError(
                "HF105",
                f"an aggregate is named like a column or like another: {clash or sorted(self.aggregates)}",
            )
        wanted = {*columns, *self.aggregates}
        inputs = [
            _input_of(column)
            for column in contract.columns
            if column.name in wanted and not isinstance(column, Text)
        ]
        self.inputs = (*inputs, *(Input(aggregate.name, InputType.NUMBER) for aggregate in aggregates))
        self._require_rows(sorted(wanted & {part.name for part in self.inputs}))
        policies = {
            column.name: as_policy(column.missing) for column in contract.columns if column.name in wanted
        }
        fills = fill_values(policies, frame)
        self.fills = {name: float(value) for name, value in fills.items() if not isinstance(value, str)}

    def fit(self, feature: Feature) -> Iterator[FittedFeature]:
        name = feature_name(feature)
        match feature:
            case Passthrough(column):
                yield FittedNumber(name, column, None)
            case Impute(column, _, missing):
                policy, fill = self._fit_impute(column, missing)
                yield FittedNumber(name, column, fill)
                yield from _flag(name, column, policy)
            case Ordinal(column):
                yield self._fit_ordinal(name, feature)
                yield from _flag(name, column, self._policy_of(column))
            case Log(column):
                yield FittedLog(name, column, self._fill_of(column), self._fit_floor(column))
            case Clip(column, low, high):
                yield FittedClip(name, column, self._fill_of(column), _as_float(low), _as_float(high))
            case Bucket(column):
                fill = self._fill_of(column)
                yield FittedBucket(name, column, fill, feature.edges or self._fit_edges(feature))
            case Hour(column) | Weekday(column) | Month(column):
                part = DatetimePart(type(feature).__name__.lower())
                yield FittedDatetime(name, column, part, self._zone_of(column))
            case Ratio(above, below, by_zero):
                fill = self._fill_of(above)
                yield FittedRatio(name, above, fill, below, self._fill_of(below), float(by_zero))
            case Difference(left, right):
                yield FittedDifference(name, left, self._fill_of(left), right, self._fill_of(right))
            case _:
                assert_never(feature)

    def _fit_impute(self, column: str, missing: Missing | str | None) -> tuple[Missing, float | None]:
        if missing is not None:
            assert not isinstance(missing, str)  # the declaration has resolved the shorthand
            return missing, self._fit_fill(column, missing)
        return self._policy_of(column), self.fills.get(column)

    def _fit_fill(self, column: str, policy: Missing) -> float | None:
        match policy:
            case Constant(value):
                return float(value)
            case Median():
                return self._require_finite(column, self._finite_values(column).median())
            case Mean():
                return self._require_finite(column, self._finite_values(column).mean())
            case Keep():
                return None
            case Reject():
                raise AssertionError("the rules of inputs have refused it")
            case _:
                assert_never(policy)

    def _fit_ordinal(self, name: str, feature: Ordinal) -> FittedOrdinal:
        column = self.contract.column(feature.column)
        assert isinstance(column, Category)
        seen = self.frame[column.name].drop_nulls().value_counts(name="rows")
        frequent = set(seen.filter(pl.col("rows") >= feature.at_least)[column.name])
        listed = frequent if column.values is None else set(column.values)
        known = listed & frequent if feature.at_least > 1 else listed
        values = tuple(sorted(known - {""}))
        missing, policy = CODE_MISSING, self._policy_of(column.name)
        if isinstance(policy, Constant):
            word = str(policy.value)
            values = tuple(sorted({*values, word}))  # the replacement word is a known word
            missing = values.index(word) + CODE_FIRST
        return FittedOrdinal(name, column.name, values, missing)

    def _fit_floor(self, column: str) -> float:
        values = self._finite_values(column)
        return self._require_finite(column, values.filter(values > 0).min(), "positive ")

    def _fit_edges(self, feature: Bucket) -> tuple[float, ...]:
        values = self._finite_values(feature.column)
        shares = [part / feature.quantiles for part in range(1, feature.quantiles)]
        edges = {self._require_finite(feature.column, values.quantile(share, "linear")) for share in shares}
        return tuple(sorted(edges))

    def _fill_of(self, column: str) -> float | None:
        return self.fills.get(column)

    def _zone_of(self, name: str) -> str:
        column = self.contract.column(name)
        assert isinstance(column, Timestamp)
        return column.tz

    def _policy_of(self, name: str) -> Missing:
        policy = self.contract.column(name).missing
        assert not isinstance(policy, str)  # the column has resolved the shorthand
        return policy

    def _finite_values(self, column: str) -> pl.Series:
        values = self.frame[column].cast(pl.Float64).drop_nulls()
        return values.filter(values.is_finite())

    def _require_finite(self, column: str, value: object, what: str = "") -> float:
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(
                "HF401",
                f"no row has a {what}value of {column!r} to fit a constant to",
                state="nothing was fitted",
                next_command="train on a snapshot that has such rows, or remove the feature",
            )
        return float(value)

    def _require_rows(self, columns: list[str]) -> None:
        absent = [column for column in columns if column not in self.frame.columns]
        if absent:
            raise InputError(
                "HF408",
                f"the rows lack {', '.join(absent)}, which the features read",
                state="nothing was fitted",
            )
        if not self.frame.height:
            raise InputError("HF401", "there is no row to fit features on", state="nothing was fitted")


def _flag(name: str, column: str, policy: Missing) -> Iterator[MissingFlag]:
    if not isinstance(policy, Reject) and policy.flag:
        yield MissingFlag(f"{name}_missing", column)


def _as_float(value: float | None) -> float | None:
    return None if value is None else float(value)  # 0 and 0.0 are the same bound and need the same hash


def _input_of(column: Column) -> Input:
    match column:
        case Number() | Integer():
            return Input(column.name, InputType.NUMBER)
        case Boolean() | Label():
            return Input(column.name, InputType.BOOLEAN)
        case Timestamp():
            return Input(column.name, InputType.TIMESTAMP, column.tz, column.naive == "local")
        case Category():
            return Input(column.name, InputType.CATEGORY)
        case Text():
            raise AssertionError("a text is never an input")
        case _:
            assert_never(column)
