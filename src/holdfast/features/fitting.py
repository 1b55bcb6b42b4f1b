"""Fitting: declarations and a training snapshot become constants.

Everything that is learned from data is learned here, from the frame that is given and nothing else (R26), so
a caller that gives the training part of a time split cannot leak the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
    as_policy,
    fill_values,
)
from holdfast.errors import InputError
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
    AnyFitted,
    Bucketed,
    Clipped,
    Clock,
    Clocked,
    Coded,
    FittedFeatures,
    Flagged,
    Input,
    Kind,
    Logarithm,
    Plain,
    Quotient,
    Subtracted,
)
from holdfast.features.timezone_tables import zone_of


def fit(
    features: Sequence[Feature], aggregates: Sequence[Aggregate], contract: Contract, frame: pl.DataFrame
) -> FittedFeatures:
    """Fit every feature on a snapshot.

    Parameters
    ----------
    features
        In the order of the matrix. The flag of a missing value follows the feature that asks for it.
    aggregates
        What is joined to the rows. One that no feature reads becomes the last feature, as `Passthrough` would make
        it.
    contract
        What the rows are.
    frame
        The valid rows to learn from, with a column for each aggregate (`join_as_of`).

    Raises
    ------
    InputError
        HF105 when a declaration does not fit the contract: an unknown column, the wrong type, the label, a
        name twice. HF408 when the frame lacks a column that is read. HF401 when it has no row, or no value to
        learn a constant from.
    """
    read = {column for feature in features for column in columns_read(feature)}
    every = [
        *features,
        *(Passthrough(aggregate.name) for aggregate in aggregates if aggregate.name not in read),
    ]
    fitting = _Fitting(aggregates, contract, frame, read)
    fitted = tuple(part for feature in every for part in fitting.fit(feature))
    names = [part.name for part in fitted]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError("HF105", f"two features are named {twice[0]!r}; give one of them a name of its own")
    zones = {part.zone for part in fitted if isinstance(part, Clocked)}
    return FittedFeatures(
        contract.hash,
        fitting.inputs,
        fitted,
        tuple(zone_of(zone) for zone in sorted(zones)),
        tuple(aggregates),
    )


class _Fitting:
    def __init__(
        self, aggregates: Sequence[Aggregate], contract: Contract, frame: pl.DataFrame, read: Iterable[str]
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
        wanted = {*read, *self.aggregates}
        inputs = [
            _input(column)
            for column in contract.columns
            if column.name in wanted and not isinstance(column, Text)
        ]
        self.inputs = (*inputs, *(Input(aggregate.name, Kind.NUMBER) for aggregate in aggregates))
        self._require_rows(sorted(wanted & {part.name for part in self.inputs}))
        policies = {
            column.name: as_policy(column.missing) for column in contract.columns if column.name in wanted
        }
        fills = fill_values(policies, frame)
        self.fills = {name: float(value) for name, value in fills.items() if not isinstance(value, str)}

    def fit(self, feature: Feature) -> tuple[AnyFitted, ...]:
        name = feature_name(feature)
        match feature:
            case Passthrough(column):
                self._number(column)
                return (Plain(name, column, None),)
            case Impute(column, _, missing):
                return self._imputed(name, column, missing)
            case Ordinal(column):
                return self._coded(name, feature)
            case Log(column):
                return (Logarithm(name, column, self._fill(column), self._floor(column)),)
            case Clip(column, low, high):
                return (Clipped(name, column, self._fill(column), _real(low), _real(high)),)
            case Bucket(column):
                return (
                    Bucketed(name, column, self._fill(column), feature.edges or self._quantiles(feature)),
                )
            case Hour(column):
                return (Clocked(name, column, Clock.HOUR, self._zone(column)),)
            case Weekday(column):
                return (Clocked(name, column, Clock.WEEKDAY, self._zone(column)),)
            case Month(column):
                return (Clocked(name, column, Clock.MONTH, self._zone(column)),)
            case Ratio(above, below, by_zero):
                return (Quotient(name, above, self._fill(above), below, self._fill(below), float(by_zero)),)
            case Difference(left, right):
                return (Subtracted(name, left, self._fill(left), right, self._fill(right)),)
            case _:
                assert_never(feature)

    def _imputed(self, name: str, column: str, missing: Missing | str | None) -> tuple[AnyFitted, ...]:
        self._number(column)
        if missing is not None:
            assert not isinstance(missing, str)  # the declaration has resolved the shorthand
            policy, fill = missing, self._own_fill(column, missing)
        elif column in self.aggregates:
            raise InputError(
                "HF105",
                f"Impute({column!r}): an aggregate has no policy of its own; give it one, or use Passthrough",
            )
        else:
            policy, fill = self._policy(column), self.fills.get(column)
        flag = () if isinstance(policy, Reject) or not policy.flag else (Flagged(f"{name}_missing", column),)
        return (Plain(name, column, fill), *flag)

    def _own_fill(self, column: str, policy: Missing) -> float | None:
        match policy:
            case Constant(value):
                if isinstance(value, str):
                    raise InputError("HF105", f"Impute({column!r}): {value!r} is not a number")
                return float(value)
            case Median():
                return self._learned(column, self._finite(column).median())
            case Mean():
                return self._learned(column, self._finite(column).mean())
            case Keep():
                return None
            case Reject():
                raise InputError(
                    "HF105", f"Impute({column!r}): to reject rows is the contract's word, not a feature's"
                )
            case _:
                assert_never(policy)

    def _coded(self, name: str, feature: Ordinal) -> tuple[AnyFitted, ...]:
        column = self._column(feature.column)
        if not isinstance(column, Category):
            raise InputError(
                "HF105",
                f"Ordinal({feature.column!r}): the column is a {type(column).__name__}, not a Category",
            )
        seen = self.frame[column.name].drop_nulls().value_counts(name="rows")
        frequent = set(seen.filter(pl.col("rows") >= feature.at_least)[column.name])
        listed = frequent if column.values is None else set(column.values)
        known = listed & frequent if feature.at_least > 1 else listed
        values = tuple(sorted(known - {""}))
        missing, policy = CODE_MISSING, self._policy(column.name)
        if isinstance(policy, Constant):
            word = str(policy.value)
            values = tuple(sorted({*values, word}))  # a word that rows are given is a known word
            missing = values.index(word) + CODE_FIRST
        flag = (
            ()
            if isinstance(policy, Reject) or not policy.flag
            else (Flagged(f"{name}_missing", column.name),)
        )
        return (Coded(name, column.name, values, missing), *flag)

    def _floor(self, column: str) -> float:
        values = self._finite(column)
        return self._learned(column, values.filter(values > 0).min(), "positive ")

    def _quantiles(self, feature: Bucket) -> tuple[float, ...]:
        values = self._finite(feature.column)
        shares = [part / feature.quantiles for part in range(1, feature.quantiles)]
        cuts = {self._learned(feature.column, values.quantile(share, "linear")) for share in shares}
        return tuple(sorted(cuts))

    def _fill(self, column: str) -> float | None:
        self._number(column)
        return self.fills.get(column)

    def _number(self, name: str) -> None:
        if name in self.aggregates:
            return
        column = self._column(name)
        if not isinstance(column, (Number, Integer, Boolean)):
            raise InputError(
                "HF105",
                f"column {name!r} is a {type(column).__name__}, and this feature needs a number or boolean",
            )

    def _zone(self, name: str) -> str:
        column = self._column(name)
        if not isinstance(column, Timestamp):
            raise InputError(
                "HF105", f"column {name!r} is a {type(column).__name__}, and this feature needs a Timestamp"
            )
        return column.tz

    def _column(self, name: str) -> Column:
        if name in self.aggregates:
            raise InputError(
                "HF105",
                f"{name!r} is an aggregate, which is a number; this feature needs a column of another type",
            )
        column = self.contract.column(name)
        if isinstance(column, Label):
            raise InputError("HF105", f"{name!r} is the label: no feature may read what is to be foretold")
        return column

    def _policy(self, name: str) -> Missing:
        policy = self.contract.column(name).missing
        assert not isinstance(policy, str)  # the column has resolved the shorthand
        return policy

    def _finite(self, column: str) -> pl.Series:
        values = self.frame[column].cast(pl.Float64).drop_nulls()
        return values.filter(values.is_finite())

    def _learned(self, column: str, value: object, what: str = "") -> float:
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(
                "HF401",
                f"no row has a {what}value of {column!r} to learn from",
                state="nothing was fitted",
                next_command="train on a snapshot that has such rows, or leave the feature out",
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


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)  # 0 and 0.0 are one bound, and must have one hash


def _input(column: Column) -> Input:
    match column:
        case Number() | Integer():
            return Input(column.name, Kind.NUMBER)
        case Boolean() | Label():
            return Input(column.name, Kind.BOOLEAN)
        case Timestamp():
            return Input(column.name, Kind.TIMESTAMP, column.tz, column.naive == "local")
        case Category():
            return Input(column.name, Kind.CATEGORY)
        case Text():
            raise AssertionError("a text is never an input")  # no feature reads one, so this is our fault
        case _:
            assert_never(column)
