"""A declaration whose parts contradict each other is refused, and the wrong thing is named (HF107)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import polars as pl
import pytest

from holdfast.contract import Boolean, Category, Constant, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.declaration import Model, Objective
from holdfast.errors import InputError
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
from holdfast.features.fitting import fit
from holdfast.features.input_rules import problems
from holdfast.feeds import Expectations, Feed, Granularity
from holdfast.qualify import GoldenQuery
from holdfast.rollout import Canary
from holdfast.rollout.model.drills import Drills
from holdfast.tables.selection import Selection, Weights
from holdfast.train import GroupMean, LightGBM

COLUMNS = (
    Category("carrier", unseen="other"),
    Number("distance", unit="mi", low=0),
    Timestamp("at", tz="America/New_York"),
)
FLIGHTS = Feed(
    "flights", Contract(Text("id"), *COLUMNS, key="id", event_time="at", label=Label("late", delay="1d"))
)
WEATHER = Feed(
    "weather",
    Contract(
        Category("carrier"),
        Text("note", missing="keep"),
        Number("wind", unit="mph"),
        Timestamp("seen_at", tz="UTC"),
        key=("carrier", "seen_at"),
        event_time="seen_at",
    ),
)
CONTRACT = Contract(*COLUMNS, key=("carrier", "at"), event_time="at", label=Label("late", delay="1d"))
WIND = Aggregate(
    "wind", over="weather", by="carrier", value="wind", known_at="seen_at", window="3h", every="1h"
)
ROW = {"carrier": "UA", "distance": 100.0, "at": datetime(2013, 1, 1, tzinfo=UTC)}
GOOD: dict[str, Any] = {
    "name": "delay",
    "examples": FLIGHTS,
    "feeds": (FLIGHTS, WEATHER),
    "contract": CONTRACT,
    "aggregates": (WIND,),
    "features": (Ordinal("carrier"), Log("distance"), Hour("at"), Passthrough("wind")),
    "learner": LightGBM(),
    "heuristic": GroupMean(by=(Ordinal("carrier"), Hour("at"))),
    "golden": (GoldenQuery("calm", ROW | {"wind": 1.0}, between=(0.0, 0.5)),),
    "objective": Objective("auc", at_least=0.7),
}


def with_column(column: object, *, unlike: str) -> Contract:
    columns = [column if given.name == unlike else given for given in COLUMNS]
    return Contract(*columns, key=("carrier", "at"), event_time="at", label=Label("late", delay="1d"))


def test_a_good_declaration_reports_what_it_means() -> None:
    model = Model(**GOOD)
    assert model.label == "late"
    assert model.holdout_span == timedelta(days=14)
    assert model.feed("weather") is WEATHER
    assert model.aggregates_read_by(model.features) == (WIND,)
    assert model.aggregates_read_by(model.heuristic_features) == ()
    assert replace(model, features=[Passthrough("wind")]).features == (Passthrough("wind"),)
    with pytest.raises(InputError, match="reads no feed 'sea'; it reads flights, weather"):
        model.feed("sea")


def test_other_words_for_the_unit_of_the_feed_mean_the_same() -> None:
    model = Model(**GOOD | {"contract": with_column(Number("distance", unit="mile"), unlike="distance")})
    assert model.contract.column("distance") == Number("distance", unit="mile")


def test_a_boolean_of_the_feed_may_be_the_label() -> None:
    rows = Feed("flights", Contract(Text("id"), *COLUMNS, Boolean("late"), key="id", event_time="at"))
    assert Model(**GOOD | {"examples": rows, "feeds": (rows, WEATHER)}).label == "late"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../x"}, "cannot name a model"),
        ({"feeds": (FLIGHTS, WEATHER, WEATHER)}, "two feeds are named 'weather'"),
        ({"feeds": (WEATHER,)}, "'flights', is not among its feeds weather"),
        ({"contract": Contract(*COLUMNS, key="at", event_time="at")}, "has no label"),
        (
            {"contract": with_column(Number("distance", unit="km"), unlike="distance")},
            "Number in km in the contract",
        ),
        (
            {"contract": with_column(Number("distance", unit="mi", semantic="price"), unlike="distance")},
            "'distance' is Number in mi, price in the contract and Number in mi in the feed 'flights'",
        ),
        (
            {"contract": with_column(Integer("distance", unit="mi"), unlike="distance")},
            "'distance' is Integer in mi",
        ),
        ({"contract": with_column(Number("miles", unit="mi"), unlike="distance")}, "has no column 'miles'"),
        (
            {"contract": with_column(Timestamp("at", tz="UTC"), unlike="at")},
            "Timestamp in UTC in the contract",
        ),
        ({"aggregates": (WIND, WIND)}, "two aggregates are named 'wind'"),
        ({"aggregates": (replace(WIND, name="distance"),)}, "the name of a column"),
        (
            {"aggregates": (replace(WIND, over="sea"),)},
            "over 'sea', which is none of the feeds flights, weather",
        ),
        (
            {"aggregates": (replace(WIND, value="gust"),)},
            "value is 'gust', and the feed 'weather' has no such",
        ),
        ({"aggregates": (replace(WIND, value="note"),)}, "value is 'note', which is Text"),
        ({"aggregates": (replace(WIND, known_at="wind"),)}, "known_at is 'wind', which is Number in mph"),
        ({"aggregates": (replace(WIND, by="wind"),)}, "by is 'wind', which is Number in mph"),
        ({"aggregates": (replace(WIND, by="note"),)}, "by 'note', which a request does not bring"),
        ({"features": ()}, "it has no features"),
        ({"features": ("distance",)}, "'distance' is no feature; write one such as Passthrough"),
        ({"features": (Passthrough("late"),)}, "reads the label"),
        ({"features": (Passthrough("wnid"),)}, "reads 'wnid'"),
        ({"features": (Passthrough("wind"), Passthrough("wind"))}, "two features are named 'wind'"),
        ({"heuristic": GroupMean(by=(Ordinal("career"),))}, "the heuristic, .* reads 'career'"),
        ({"holdout": "0h"}, "the holdout is 0:00:00"),
        ({"recover_within": "0h"}, "recover_within is 0:00:00; it must be positive"),
        ({"silent_after": "5s"}, "silent_after is 0:00:05; requests are counted by minute"),
        ({"snapshot_quality": 90}, "snapshot_quality is 90; it is a share"),
        (
            {
                "contract": Contract(
                    COLUMNS[0],
                    Number("distance", unit="mi", low=0, window="5min"),
                    COLUMNS[2],
                    key=("carrier", "at"),
                    event_time="at",
                    label=Label("late", delay="1d"),
                )
            },
            "'distance' is Number in mi, over 300s in the contract and Number in mi in the feed 'flights'",
        ),
        (
            {"rollout": Canary(slices=("carrier", "nostation"))},
            "by 'nostation', which a request does not bring; it brings carrier, distance, at",
        ),
        ({"rollout": Canary(slices=("late",))}, "slices of its rollout are by 'late'"),
        ({"golden": GOOD["golden"] * 2}, "two golden queries are named 'calm'"),
        (
            {"golden": (GoldenQuery("q", ROW | {"distance": -1.0}, between=(0, 1)),)},
            "'q' breaks the contract: distance",
        ),
        ({"golden": (GoldenQuery("q", ROW | {"late": True}, between=(0, 1)),)}, "'q' breaks the contract"),
        ({"golden": (GoldenQuery("q", ROW | {"wind": "x"}, between=(0, 1)),)}, "gives 'wind' as 'x'"),
    ],
)
def test_a_contradiction_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as wrong:
        Model(**GOOD | change)
    assert wrong.value.code == ("HF109" if words == "cannot name a model" else "HF107")


@pytest.mark.parametrize(
    ("declare", "named"),
    [
        (lambda: Canary(bake="2m"), "bake='2m'"),
        (lambda: Canary(timeout=3600), "timeout=3600"),
        (lambda: Label("late", delay="soon"), "delay='soon'"),
        (lambda: Drills(interval="weekly"), "interval='weekly'"),
        (lambda: Expectations(grace="1"), "grace='1'"),
    ],
)
def test_a_span_that_is_none_is_named(declare: Callable[[], object], named: str) -> None:
    with pytest.raises(InputError, match=f"HF109: {named} is not a duration"):
        declare()


LATE_BEFORE = Aggregate(
    "late_before", over="flights", by="carrier", value="late", known_at="at", window="7d", every="1h"
)


def with_aggregate(aggregate: Aggregate, rows: Feed = FLIGHTS) -> dict[str, Any]:
    return GOOD | {"examples": rows, "feeds": (rows, WEATHER), "aggregates": (WIND, aggregate)}


@pytest.mark.parametrize("wait", ["0s", "1h", "23h"])
@pytest.mark.parametrize("label", [(), (Boolean("late"),)], ids=["a label", "a boolean"])
def test_an_aggregate_over_the_label_waits_until_the_label_is_known(
    wait: str, label: tuple[Boolean, ...]
) -> None:
    """R55: with less, a row's own label would be among the rows that its feature is made of."""
    declared = {} if label else {"label": Label("late", delay="1d")}
    rows = Feed("flights", Contract(Text("id"), *COLUMNS, *label, key="id", event_time="at", **declared))
    with pytest.raises(
        InputError, match="'late_before' is of the label 'late', which is known 1 day, 0:00:00 after 'at'"
    ) as wrong:
        Model(**with_aggregate(replace(LATE_BEFORE, available_after=wait), rows))
    assert wrong.value.code == "HF107"
    assert Model(**with_aggregate(replace(LATE_BEFORE, available_after="1d"), rows))


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ({"window": "30min", "every": "30min"}, "has window 0:30:00"),
        ({"every": "10s", "window": "3h"}, "has every 0:00:10"),
        ({"every": "10min", "available_after": "15min"}, "has every 0:10:00"),
        ({"every": "30min", "available_after": "15min"}, None),
        ({"every": "1h"}, None),
    ],
)
def test_an_aggregate_is_no_finer_than_its_feed(spans: dict[str, str], words: str | None) -> None:
    """R44: hourly data reports nothing new every ten seconds."""
    hourly = replace(WEATHER, expects=Expectations(granularity=Granularity("1h", by="carrier")))
    given = GOOD | {"feeds": (FLIGHTS, hourly), "aggregates": (replace(WIND, **spans),)}
    if words is None:
        assert Model(**given)
        return
    with pytest.raises(InputError, match=f"HF107.*aggregate 'wind' {words}.*are 1:00:00 apart"):
        Model(**given)


def test_a_label_without_delay_is_not_known_to_its_own_row() -> None:
    prompt = Label("late", delay="0s")
    rows = Feed("flights", Contract(Text("id"), *COLUMNS, key="id", event_time="at", label=prompt))
    contract = Contract(*COLUMNS, key=("carrier", "at"), event_time="at", label=prompt)
    given = with_aggregate(LATE_BEFORE, rows) | {"contract": contract}
    with pytest.raises(InputError, match="takes it 0:00:00 after it"):
        Model(**given)
    assert Model(**given | {"aggregates": (WIND, replace(LATE_BEFORE, available_after="1s"))})


def test_a_label_may_be_aggregated_by_the_time_when_it_became_known() -> None:
    landed = Timestamp("landed_at", tz="UTC")
    rows = Feed(
        "flights",
        Contract(Text("id"), *COLUMNS, landed, key="id", event_time="at", label=Label("late", delay="1d")),
    )
    assert Model(**with_aggregate(replace(LATE_BEFORE, known_at="landed_at"), rows))


def test_the_label_of_another_feed_waits_too() -> None:
    claims = Feed(
        "claims",
        Contract(
            Text("id"),
            Category("carrier"),
            Timestamp("at", tz="UTC"),
            key="id",
            event_time="at",
            label=Label("paid", delay="3d"),
        ),
    )
    paid = replace(LATE_BEFORE, name="paid_before", over="claims", value="paid", available_after="2d")
    given = GOOD | {"feeds": (FLIGHTS, WEATHER, claims), "aggregates": (WIND, paid)}
    with pytest.raises(InputError, match="'paid_before' is of the label 'paid', which is known 3 days"):
        Model(**given)


def test_the_label_is_due_at_one_time_only() -> None:
    rows = Feed(
        "flights", Contract(Text("id"), *COLUMNS, key="id", event_time="at", label=Label("late", delay="2d"))
    )
    with pytest.raises(
        InputError, match="'late' is known after 1 day, 0:00:00 in the contract and after 2 days"
    ):
        Model(**GOOD | {"examples": rows, "feeds": (rows, WEATHER)})


@pytest.mark.parametrize(
    "given",
    [
        {"metric": "accuracy", "at_least": 0.7},
        {"metric": "auc"},
        {"metric": "auc", "at_most": 0.7},
        {"metric": "auc", "at_least": 1.7},
        {"metric": "brier", "at_least": 0.1},
    ],
)
def test_an_objective_that_cannot_be_met_or_missed_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"[Oo]bjective"):
        Objective(**given)


EVERY_KIND = Contract(
    Text("id"),
    Number("number", unit="1"),
    Integer("whole", unit="1"),
    Boolean("flag"),
    Category("word"),
    Timestamp("at", tz="UTC"),
    key="id",
    event_time="at",
    label=Label("late", delay="1d"),
)
MEAN = replace(WIND, over="rows", by="word", value="number", known_at="at", name="mean")
ROWS = pl.DataFrame(
    {
        "number": [1.0, 2.0], "whole": [1, 2], "flag": [True, False], "word": ["a", "b"],
        "at": [datetime(2026, 1, 1, tzinfo=UTC)] * 2, "id": ["a", "b"], "late": [True, False], "mean": [1.0, None],
    }
)  # fmt: skip
MAKERS: list[Callable[[str], Any]] = [
    Passthrough, Ordinal, Log, Hour, Weekday, Month, Impute,
    lambda name: Clip(name, low=0.0),
    lambda name: Bucket(name, edges=(1.0,)),
    lambda name: Ratio(name, "number"),
    lambda name: Difference("number", name, name="other"),
    lambda name: Impute(name, missing=Constant("x")),
    lambda name: Impute(name, missing="median"),
    lambda name: Impute(name, missing="reject"),
]  # fmt: skip


@pytest.mark.parametrize("column", [*EVERY_KIND.names, "mean", "absent"])
@pytest.mark.parametrize("make", MAKERS)
def test_what_the_declaration_accepts_can_be_fitted(make: Callable[[str], Any], column: str) -> None:
    """Each kind of feature of each kind of column, for the learner and for the heuristic."""
    feature = make(column)
    feed = Feed("rows", EVERY_KIND)
    whole = GOOD | {
        "examples": feed,
        "feeds": (feed,),
        "contract": EVERY_KIND,
        "aggregates": (MEAN,),
        "golden": (),
    }
    passes = Passthrough("number")
    refused = [*problems((feature,), ("mean",), EVERY_KIND)]
    if not refused:
        Model(**whole | {"features": (feature,), "heuristic": GroupMean(by=(feature,))})
        assert fit((feature,), (MEAN,), EVERY_KIND, ROWS).features
        return
    with pytest.raises(InputError, match="HF105"):
        fit((feature,), (MEAN,), EVERY_KIND, ROWS)
    for features, by in (((feature,), (passes,)), ((passes,), (feature,))):
        with pytest.raises(InputError, match=r"HF107: model 'delay': (a feature|the heuristic), "):
            Model(**whole | {"features": features, "heuristic": GroupMean(by=by)})


class Own:
    name = "own"
    parameters: ClassVar = {"depth": 3}

    def fit(self, x: object, y: object, names: object, *, seed: int) -> None:
        """A learner of one's own that knows no weights."""


class Foreign:
    def fit(self, x: object, y: object) -> None:
        """The form of other libraries."""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learner": Foreign()}, "learner=Foreign has no name"),
        ({"learner": "model.pkl"}, "learner=str cannot be trained"),
        ({"learner": LightGBM}, "learner=LightGBM cannot be trained"),
        ({"learner": type("Odd", (Own,), {"fit": Foreign.fit})()}, r"its fit\(\) takes other arguments"),
        ({"learner": type("Odd", (Own,), {"parameters": {"f": print}})()}, "has no parameters"),
        (
            {"learner": Own(), "selection": Selection(weights=(Weights("carrier", {"UA": 2.0}),))},
            r"fit\(x, y, names, seed=..., weights=...\)",
        ),
    ],
)
def test_a_learner_that_training_cannot_call_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Model(**GOOD | change)
    Model(**GOOD | {"learner": Own()})


def test_a_label_is_true_or_false() -> None:
    with pytest.raises(InputError, match=r"HF104: label=.*regression and several classes: not yet"):
        Contract(*COLUMNS, key=("carrier", "at"), event_time="at", label=Number("late", unit="1"))  # type: ignore[arg-type]
