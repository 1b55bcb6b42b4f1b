"""The graph against a second, plain reading of each feature's sentence; frames and rows; hostile input
(R24-R27, R45, R49)."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import (
    Boolean,
    Category,
    Constant,
    Contract,
    Integer,
    Keep,
    Label,
    Median,
    Number,
    Text,
    Timestamp,
)
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
    tensors_from_frame,
    tensors_from_rows,
)
from holdfast.features.fitting import fit
from holdfast.features.graph import feature_graph
from tests.support.profile import examples

ZONE = ZoneInfo("America/New_York")
CONTRACT = Contract(
    Text("flight"),
    Category("carrier", missing="keep"),
    Category("origin", values=("EWR", "JFK"), missing=Constant("JFK", flag=True)),
    Number("distance", unit="mi", missing=Median(flag=True)),
    Number("wind", unit="mph", missing=Keep(flag=True)),
    Integer("seats", missing="mean"),
    Boolean("hub", missing="keep"),
    Timestamp("leaves", tz="America/New_York"),
    Timestamp("lands", tz="Asia/Kolkata", missing="keep"),
    key="flight",
    event_time="leaves",
    label=Label("late", "12h"),
)
RECENT = Aggregate(
    "recent", over="f", by="origin", value="delay", known_at="left", window="1h", every="10min"
)
FEATURES = (
    Hour("lands"),
    Ordinal("carrier"),
    Log("distance"),
    Ordinal("origin"),
    Passthrough("wind"),
    Impute("wind", name="wind0"),
    Impute("distance"),
    Clip("wind", high=20),
    Clip("seats", 10, 100),
    Bucket("wind", edges=(-5, 0, 12.5)),
    Bucket("distance", quantiles=4),
    Weekday("leaves"),
    Month("leaves"),
    Month("lands"),
    Hour("leaves"),
    Ratio("distance", "seats"),
    Ratio("wind", "wind", by_zero=-1.0, name="self"),
    Difference("distance", "wind"),
    Passthrough("hub"),
    Impute("recent", missing=Constant(-1.0)),
)
SNAPSHOT = pl.DataFrame(
    {
        "carrier": ["UA", "AA", None, "UA", "\U0001f6eb", "U\0A"],
        "origin": ["EWR", "JFK", None, "JFK", "LGA", "EWR"],
        "distance": [0.0, 100.0, 200.0, None, 400.0, -3.0],
        "wind": [1.5, None, -2.0, 0.0, 30.0, 8.0],
        "seats": [50, 0, None, 100, 150, 200],
        "hub": [True, None, False, True, True, False],
        "leaves": [datetime(2013, month, 10, 7, 30, tzinfo=ZONE) for month in range(1, 7)],
        "lands": [datetime(2013, 1, 1, tzinfo=UTC), None, *[datetime(2013, 7, 1, tzinfo=UTC)] * 4],
        "recent": [1.0, None, 2.0, 3.0, 4.0, 5.0],
    }
).with_columns(
    pl.col("leaves").cast(pl.Datetime("us", "America/New_York")),
    pl.col("lands").cast(pl.Datetime("us", "Asia/Kolkata")),
)
MEDIAN, MEAN, FLOOR = 100.0, 100.0, 100.0  # of the snapshot's distance, seats, and positive distance
SNAPSHOTS = [0.0, 100.0, 200.0]
NAN = math.nan


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


FITTED = fit(FEATURES, [RECENT], CONTRACT, SNAPSHOT)
SESSION = session(feature_graph(FITTED))


def matrix(tensors: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    (made,) = SESSION.run(None, tensors)
    assert made.dtype == np.float32
    return made


def expected(row: dict[str, Any]) -> dict[str, float]:
    """One row, feature by feature, in plain Python."""

    def code(word: str | None, words: list[str], missing: int) -> float:
        return missing if not word else words.index(word) + 2 if word in words else 1

    def under(value: float, edges: list[float]) -> float:
        return NAN if math.isnan(value) else sum(edge <= value for edge in edges)

    distance = MEDIAN if row["distance"] is None else row["distance"]
    seats = MEAN if row["seats"] is None else row["seats"]
    wind = NAN if row["wind"] is None else row["wind"]
    leaves = row["leaves"].astimezone(ZONE)
    lands = row["lands"] and row["lands"].astimezone(ZoneInfo("Asia/Kolkata"))
    return {
        "lands_hour": NAN if lands is None else lands.hour,
        "carrier_ordinal": code(row["carrier"], ["AA", "UA", "U\0A", "\U0001f6eb"], 0)
        if row["carrier"] not in ("UA", "U\0A")
        else {"U\0A": 3, "UA": 4}[row["carrier"]],
        "distance_log": math.log(max(distance, FLOOR)),
        "origin_ordinal": code(row["origin"], ["EWR", "JFK"], 3),
        "origin_ordinal_missing": float(not row["origin"]),
        "wind": wind,
        "wind0": wind,
        "wind0_missing": float(row["wind"] is None),
        "distance": distance,
        "distance_missing": float(row["distance"] is None),
        "wind_clip": wind if math.isnan(wind) else min(wind, 20),
        "seats_clip": min(max(seats, 10), 100),
        "wind_bucket": under(wind, [-5, 0, 12.5]),
        "distance_bucket": under(distance, SNAPSHOTS),
        "leaves_weekday": leaves.weekday(),
        "leaves_month": leaves.month,
        "lands_month": NAN if lands is None else lands.month,
        "leaves_hour": leaves.hour,
        "distance_per_seats": 0.0 if seats == 0 else distance / seats,
        "self": NAN if math.isnan(wind) else -1.0 if wind == 0 else 1.0,
        "distance_minus_wind": distance - wind,
        "hub": NAN if row["hub"] is None else float(row["hub"]),
        "recent": -1.0 if row["recent"] is None else row["recent"],
    }


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


timestamps = st.datetimes(datetime(1970, 1, 2), datetime(2099, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001  # the strategy wants naive bounds
numbers = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, 12.5, 100.0, 200.0, 1e-300]))
words = st.one_of(
    st.sampled_from(["UA", "AA", "U\0A", "UA\0", "\U0001f6eb", "", "EWR", "JFK"]), st.text(max_size=4)
)
rows_of_contract = st.lists(
    st.fixed_dictionaries(
        {
            "carrier": optional(words),
            "origin": optional(words),
            "distance": optional(numbers),
            "wind": optional(numbers),
            "seats": optional(st.integers(0, 300)),
            "hub": optional(st.booleans()),
            "leaves": timestamps,
            "lands": optional(timestamps),
            "recent": optional(numbers),
        }
    ),
    min_size=1,
    max_size=12,
)


@examples(75)
@given(rows_of_contract)
def test_every_feature_is_its_sentence_and_one_for_frames_and_rows(rows: list[dict[str, Any]]) -> None:
    of_rows = matrix(tensors_from_rows(FITTED.inputs, rows))
    names = [name for name in FITTED.names if name]
    want = np.array([[expected(row)[name] for name in names] for row in rows], np.float32)
    np.testing.assert_allclose(of_rows, want, rtol=1e-6)
    frame = pl.DataFrame(rows, schema=SNAPSHOT.schema)
    np.testing.assert_array_equal(
        matrix(tensors_from_frame(FITTED.inputs, frame)), of_rows
    )  # to the last bit
    alone = np.vstack([matrix(tensors_from_rows(FITTED.inputs, [row])) for row in rows])
    np.testing.assert_array_equal(alone, of_rows)


def test_names_stand_in_the_order_of_the_declaration_with_each_flag_behind_its_feature() -> None:
    assert set(FITTED.names) == set(expected(SNAPSHOT.row(0, named=True)))
    assert FITTED.names[:6] == (
        "lands_hour",
        "carrier_ordinal",
        "distance_log",
        "origin_ordinal",
        "origin_ordinal_missing",
        "wind",
    )
    assert FITTED.names[-1] == "recent"


def test_texts_of_timestamps_are_the_timestamps() -> None:
    row = SNAPSHOT.row(0, named=True)
    as_text = {**row, "leaves": "2013-01-10T12:30:00Z", "lands": "2013-01-01T05:30:00.000+05:30"}
    as_count = {**row, "leaves": 1_357_821_000_000_000}
    both = matrix(tensors_from_rows(FITTED.inputs, [row, as_text, as_count]))
    np.testing.assert_array_equal(both[0], both[1])
    np.testing.assert_array_equal(both[0], both[2])


def test_an_absent_key_is_missing() -> None:
    row = SNAPSHOT.row(0, named=True)
    with_none = matrix(tensors_from_rows(FITTED.inputs, [{**row, "wind": None, "origin": None}]))
    without = {name: value for name, value in row.items() if name not in ("wind", "origin")}
    np.testing.assert_array_equal(matrix(tensors_from_rows(FITTED.inputs, [without])), with_none)


def test_no_rows_make_no_rows() -> None:
    assert matrix(tensors_from_rows(FITTED.inputs, [])).shape == (0, len(FITTED.names))
    assert matrix(tensors_from_frame(FITTED.inputs, SNAPSHOT.head(0))).shape == (0, len(FITTED.names))


def test_long_columns_keep_their_missing_values() -> None:
    """A vectorised kernel that loses NaN would show only beyond a few rows."""
    frame = pl.concat([SNAPSHOT] * 997)
    made = matrix(tensors_from_frame(FITTED.inputs, frame))
    np.testing.assert_array_equal(made, np.tile(made[:6], (997, 1)))


@pytest.mark.parametrize(
    "word", ["UA\0", "\0", "\U0001f6eb\U0001f6eb", "\ud800", "x" * 100_000, "' OR 1=1 --"]
)
def test_a_hostile_word_is_an_unknown_word(word: str) -> None:
    row = {**SNAPSHOT.row(0, named=True), "carrier": word}
    assert matrix(tensors_from_rows(FITTED.inputs, [row]))[0, FITTED.names.index("carrier_ordinal")] == 1


def test_no_feature_is_infinite() -> None:
    row = {**SNAPSHOT.row(0, named=True), "distance": 1e308, "wind": -1e308, "seats": 1}
    made = matrix(tensors_from_rows(FITTED.inputs, [row]))
    assert np.isfinite(made).all()


@pytest.mark.parametrize(
    ("column", "value"),
    [("wind", "1.5"), ("wind", [1.0]), ("wind", 10**400), ("carrier", 7), ("leaves", "yesterday"),
     ("leaves", True),
     ("leaves", datetime(2013, 1, 1)), ("leaves", "2013-01-01T00:00:00")],  # noqa: DTZ001  # without a zone on purpose
)  # fmt: skip
def test_values_that_the_contract_refuses_are_errors_and_not_guesses(column: str, value: object) -> None:
    row = {**SNAPSHOT.row(0, named=True), column: value}
    with pytest.raises(Exception, match="HF502"):
        tensors_from_rows(FITTED.inputs, [row])


def test_frames_without_what_is_read_are_refused() -> None:
    with pytest.raises(Exception, match=r"HF408.*wind"):
        tensors_from_frame(FITTED.inputs, SNAPSHOT.drop("wind"))
    with pytest.raises(Exception, match=r"HF408.*leaves"):
        tensors_from_frame(FITTED.inputs, SNAPSHOT.with_columns(pl.col("leaves").dt.replace_time_zone(None)))


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: f"{type(feature).__name__}-{feature.name}")
def test_a_graph_of_one_feature_is_that_column_of_the_whole(feature: Any) -> None:
    aggregates = [RECENT] if getattr(feature, "column", "") == "recent" else []
    fitted = fit([feature], aggregates, CONTRACT, SNAPSHOT)
    (made,) = session(feature_graph(fitted)).run(None, tensors_from_frame(fitted.inputs, SNAPSHOT))
    whole = matrix(tensors_from_frame(FITTED.inputs, SNAPSHOT))
    np.testing.assert_array_equal(made, whole[:, [FITTED.names.index(name) for name in fitted.names]])


def test_the_same_features_give_the_same_bytes() -> None:
    model = feature_graph(FITTED)
    assert (
        model.SerializeToString()
        == feature_graph(fit(FEATURES, [RECENT], CONTRACT, SNAPSHOT)).SerializeToString()
    )
    onnx.checker.check_model(model, full_check=True)
    assert [(part.name, part.kind) for part in FITTED.inputs][-2:] == [
        ("lands", "timestamp"),
        ("recent", "number"),
    ]
