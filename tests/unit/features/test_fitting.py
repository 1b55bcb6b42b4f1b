"""What fitting learns, what it refuses, and that its outcome survives JSON unchanged (R22, R26, R27)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from holdfast.contract import (
    Boolean,
    Category,
    Constant,
    Contract,
    Keep,
    Label,
    Mean,
    Median,
    Number,
    Text,
    Timestamp,
)
from holdfast.errors import InputError, IntegrityError
from holdfast.features import (
    Aggregate,
    Bucket,
    Clip,
    Difference,
    FittedFeatures,
    Hour,
    Impute,
    Input,
    Log,
    Ordinal,
    Passthrough,
    Ratio,
    feature_name,
)
from holdfast.features.fitted import FittedBucket, FittedLog, FittedNumber, FittedOrdinal, InputType
from holdfast.features.fitting import fit


def contract(**changes: Any) -> Contract:
    return Contract(
        Text("id"),
        Category("carrier", **changes.get("carrier", {})),
        Number("distance", unit=changes.get("unit", "mi"), missing=changes.get("distance", "reject")),
        Boolean("hub"),
        Timestamp("leaves", tz=changes.get("tz", "America/New_York"), naive=changes.get("naive", "reject")),
        key="id",
        event_time="leaves",
        label=Label("late", "12h"),
    )


def snapshot(*distances: float | None, carriers: list[str | None] | None = None) -> pl.DataFrame:
    rows = len(distances)
    return pl.DataFrame(
        {
            "carrier": carriers or ["UA"] * rows,
            "distance": pl.Series(distances, dtype=pl.Float64),
            "hub": [True] * rows,
            "leaves": pl.Series([datetime(2013, 1, 1, tzinfo=UTC)] * rows, dtype=pl.Datetime("us", "UTC")),
            "late": [False] * rows,
            "recent": pl.Series([float(row) for row in range(rows)], dtype=pl.Float64),
        }
    )


RECENT = Aggregate(
    "recent", over="f", by="carrier", value="delay", known_at="left", window="1h", every="10min"
)


def only(feature: Any, made: Contract, frame: pl.DataFrame) -> Any:
    return fit([feature], [], made, frame).features[0]


@pytest.mark.parametrize(
    ("policy", "fill"),
    [("median", 3.0), ("mean", 26.5), (Constant(7.0), 7.0), ("keep", None), ("reject", None)],
)
def test_the_fill_is_learned_from_the_rows_that_have_the_value(policy: Any, fill: float | None) -> None:
    made = contract(distance=policy)
    frame = snapshot(1.0, 2.0, None, 4.0, 99.0)
    assert only(Impute("distance"), made, frame) == FittedNumber("distance", "distance", fill)
    assert only(Log("distance"), made, frame) == FittedLog("distance_log", "distance", fill, 1.0)
    assert only(Passthrough("distance"), made, frame) == FittedNumber("distance", "distance", None)


@pytest.mark.parametrize("policy", [Median(flag=True), Keep(flag=True), Mean(), Median()])
def test_the_flag_follows_when_the_policy_asks(policy: Any) -> None:
    fitted = fit([Impute("distance"), Passthrough("hub")], [], contract(distance=policy), snapshot(1.0, None))
    assert fitted.names == (("distance", "distance_missing", "hub") if policy.flag else ("distance", "hub"))


def test_an_aggregate_that_no_feature_reads_becomes_the_last_feature() -> None:
    fitted = fit([Passthrough("distance")], [RECENT], contract(), snapshot(1.0, 2.0))
    assert fitted.names == ("distance", "recent")
    assert fitted.inputs == (Input("distance", InputType.NUMBER), Input("recent", InputType.NUMBER))
    assert fit([Log("recent")], [RECENT], contract(), snapshot(1.0, 2.0)).names == ("recent_log",)
    filled = fit([Impute("recent", missing="median")], [RECENT], contract(), snapshot(1.0, 2.0))
    assert filled.features == (FittedNumber("recent", "recent", 0.5),)


def test_words_are_those_of_the_contract_or_of_the_snapshot() -> None:
    frame = snapshot(1.0, 2.0, 3.0, 4.0, carriers=["UA", "DL", "UA", None])
    assert only(Ordinal("carrier"), contract(), frame) == FittedOrdinal(
        "carrier_ordinal", "carrier", ("DL", "UA"), 0
    )
    assert only(Ordinal("carrier", at_least=2), contract(), frame).values == ("UA",)
    declared = contract(carrier={"values": ("UA", "B6")})
    assert only(Ordinal("carrier"), declared, frame).values == ("B6", "UA")
    filled = contract(carrier={"missing": Constant("ZZ")})
    assert only(Ordinal("carrier"), filled, frame) == FittedOrdinal(
        "carrier_ordinal", "carrier", ("DL", "UA", "ZZ"), 4
    )


def test_quantile_edges_truncated_the_snapshot_evenly_and_equal_snapshots_are_one() -> None:
    spread = snapshot(*[float(n) for n in range(101)])
    made = only(Bucket("distance", quantiles=4), contract(), spread)
    assert made == FittedBucket("distance_bucket", "distance", None, (25.0, 50.0, 75.0))
    same = only(Bucket("distance", quantiles=4), contract(), snapshot(*[5.0] * 9))
    assert same.edges == (5.0,)


def test_fitted_features_survive_their_json_and_their_hash_is_its() -> None:
    features = [
        Ordinal("carrier"),
        Impute("distance"),
        Hour("leaves"),
        Ratio("distance", "recent"),
        Clip("distance", 0),
    ]
    made = contract(distance=Median(flag=True), naive="local")
    fitted = fit(features, [RECENT], made, snapshot(1.0, None, 0.1))
    again = FittedFeatures.from_json(fitted.to_json())
    assert again == fitted
    assert again.hash == fitted.hash
    assert again.aggregates == (RECENT,)
    assert again.contract_hash == made.hash


@pytest.mark.parametrize(
    "changed",
    [
        {"unit": "km"},
        {"tz": "UTC"},
        {"distance": "mean"},
        {"naive": "local"},
    ],
)
def test_another_contract_is_another_hash(changed: dict[str, Any]) -> None:
    features, frame = [Passthrough("distance"), Hour("leaves")], snapshot(1.0, 2.0)
    assert fit(features, [], contract(**changed), frame).hash != fit(features, [], contract(), frame).hash


def test_other_data_is_another_hash_only_where_it_was_learned_from() -> None:
    made = contract(distance="median")
    small, large = snapshot(1.0, 2.0), snapshot(1.0, 3.0)
    assert fit([Impute("distance")], [], made, small).hash != fit([Impute("distance")], [], made, large).hash
    assert (
        fit([Passthrough("distance")], [], made, small).hash
        == fit([Passthrough("distance")], [], made, large).hash
    )


@pytest.mark.parametrize("damage", ["", "{}", "[]", "null", '{"format":1}'])
def test_damaged_json_is_refused(damage: str) -> None:
    with pytest.raises(IntegrityError, match="HF301"):
        FittedFeatures.from_json(damage)


def test_json_of_a_newer_format_is_refused() -> None:
    document = json.loads(fit([Passthrough("distance")], [], contract(), snapshot(1.0)).to_json())
    with pytest.raises(IntegrityError, match="format 2"):
        FittedFeatures.from_json(json.dumps({**document, "format": 2}))


@pytest.mark.parametrize(
    ("features", "because"),
    [
        ([Passthrough("speed")], "'speed': neither in the contract"),
        ([Passthrough("carrier")], "Category"),
        ([Passthrough("leaves")], "Timestamp"),
        ([Passthrough("id")], "Text"),
        ([Ordinal("distance")], "Number"),
        ([Ordinal("recent")], "aggregate"),
        ([Hour("carrier")], "Category"),
        ([Passthrough("late")], "label"),
        ([Log("late")], "label"),
        ([Passthrough("distance"), Impute("distance")], "two features"),
        ([Impute("recent")], "no policy of its own"),
        ([Impute("distance", missing="reject")], "reject"),
        ([Impute("distance", missing=Constant("far"))], "not a number"),
        ([Passthrough("distance", name="../x")], "cannot name"),
    ],
)
def test_declarations_that_the_contract_denies_are_refused(features: list[Any], because: str) -> None:
    with pytest.raises(InputError, match=f"HF10[459].*{because}"):
        fit(features, [RECENT], contract(), snapshot(1.0, 2.0))


def test_an_aggregate_named_like_a_column_is_refused() -> None:
    clash = Aggregate(
        "hub", over="f", by="carrier", value="delay", known_at="left", window="1h", every="10min"
    )
    for aggregates in ([clash], [RECENT, RECENT]):
        with pytest.raises(InputError, match="HF105"):
            fit([], aggregates, contract(), snapshot(1.0))


@pytest.mark.parametrize(
    ("feature", "frame", "code"),
    [
        (Passthrough("distance"), snapshot(1.0).drop("distance"), "HF408"),
        (Passthrough("distance"), snapshot(), "HF401"),
        (Impute("distance"), snapshot(None, None), "HF401"),
        (Log("distance"), snapshot(-1.0, 0.0), "HF401"),
        (Bucket("distance", quantiles=3), snapshot(None), "HF401"),
    ],
)
def test_snapshots_that_train_nothing_are_refused(feature: Any, frame: pl.DataFrame, code: str) -> None:
    with pytest.raises(InputError, match=code):
        fit([feature], [], contract(distance="median"), frame)


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Clip("x"),
        lambda: Clip("x", 2, 1),
        lambda: Clip("x", low=float("nan")),
        lambda: Bucket("x"),
        lambda: Bucket("x", edges=(1, 1)),
        lambda: Bucket("x", edges=(1, 2), quantiles=3),
        lambda: Bucket("x", quantiles=1),
        lambda: Bucket("x", quantiles=101),
        lambda: Bucket("x", edges=range(100)),
        lambda: Ordinal("x", at_least=0),
        lambda: Ratio("x", "y", by_zero=float("inf")),
        lambda: Impute("x", missing="guess"),
    ],
)
def test_declarations_that_cannot_be_meant_are_refused(declare: Any) -> None:
    with pytest.raises(InputError, match=r"HF10[45]"):
        declare()


def test_natural_names() -> None:
    named = [
        Passthrough("a"),
        Impute("a"),
        Ordinal("a"),
        Log("a"),
        Clip("a", 0),
        Bucket("a", (1,)),
        Hour("a"),
        Ratio("a", "b"),
    ]
    assert [feature_name(feature) for feature in [*named, Difference("a", "b")]] == [
        "a", "a", "a_ordinal", "a_log", "a_clip", "a_bucket", "a_hour", "a_per_b", "a_minus_b",
    ]  # fmt: skip
