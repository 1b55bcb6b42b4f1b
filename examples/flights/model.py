"""Predict whether a flight arrives late: the complete declaration of a Holdfast model.

Three feeds, one model. Everything that Holdfast does with it is declared here.
"""

from datetime import datetime
from zoneinfo import ZoneInfo

from holdfast import (
    Aggregate,
    Canary,
    Category,
    Completeness,
    Constant,
    Contract,
    Expectations,
    Feed,
    GoldenQuery,
    Granularity,
    GroupMean,
    Hour,
    Label,
    LightGBM,
    Limits,
    Log,
    Median,
    Model,
    Number,
    Objective,
    Ordinal,
    Passthrough,
    Text,
    Timestamp,
    Volume,
    Weekday,
)

NEW_YORK = "America/New_York"
AIRPORTS = ("EWR", "JFK", "LGA")

# A batch of each feed is one day by New York's clocks. Up to one row in a hundred may break the contract without a word,
# and a batch with as many as one in twenty is not trained on before an operator has accepted it.
DROPPED = Limits(warning=0.02, error=0.05, critical=0.5)

# --- what comes in -----------------------------------------------------------------------------------------------------

flights = Feed(
    "flights",
    Contract(
        Text("flight_id", max_length=40),
        Category("carrier", unseen="other"),
        Category("origin", values=AIRPORTS, unseen="reject"),
        Category("destination", unseen="other"),
        Number("distance", unit="mi", low=0, high=6000),
        Timestamp("scheduled_departure", tz=NEW_YORK),
        Number("reported_delay", unit="min", low=-120, high=2000, missing=Constant(0.0)),
        key="flight_id",
        event_time="scheduled_departure",
        label=Label("late", delay="1d"),
        slices=("origin",),
    ),
    expects=Expectations(
        invalid_rows=DROPPED,
        rows=Volume(at_least=300, at_most=2000, deviation=Limits(warning=0.4, error=0.6), weekdays=True),
        interval="1d",
        completeness=Completeness(max_gap="4h", quiet_hours=(0, 6), daily=True),
        early_labels="refuse",
        duplicates="stale",
        drift=True,
    ),
)

departures = Feed(
    "departures",
    Contract(
        Text("flight_id", max_length=40),
        Category("origin", values=AIRPORTS, unseen="reject"),
        Timestamp("left_at", tz=NEW_YORK),
        Number("departure_delay", unit="min", low=-120, high=2000),
        key="flight_id",
        event_time="left_at",
        slices=("origin",),
    ),
    group="airport",
    expects=Expectations(
        invalid_rows=DROPPED,
        rows=Volume(at_least=100, at_most=2000, deviation=Limits(warning=0.5, error=0.9), weekdays=True),
        interval="1d",
        completeness=Completeness(max_gap="9h", quiet_hours=(0, 6), daily=True),
        duplicates="stale",
        drift=True,
    ),
)

weather = Feed(
    "weather",
    Contract(
        Category("origin", values=AIRPORTS, unseen="reject"),
        Timestamp("observed_at", tz=NEW_YORK),
        Number("temperature", unit="degF", low=-40, high=130, missing=Median()),
        Number("wind_speed", unit="mph", low=0, high=200, missing=Median()),
        Number("precipitation", unit="in", low=0, high=10, missing=Constant(0.0)),
        Number("visibility", unit="mi", low=0, high=10, missing=Median()),
        Number("humidity", unit="%", low=0, high=100, missing=Median()),
        key=("origin", "observed_at"),
        event_time="observed_at",
        slices=("origin",),
    ),
    group="airport",
    expects=Expectations(
        invalid_rows=DROPPED,
        rows=Volume(at_least=54, at_most=75),
        interval="1d",
        completeness=Completeness(max_gap="6h", by="origin", daily=True),
        granularity=Granularity(step="1h", by="origin"),
        duplicates="stale",
        drift=True,
    ),
)

# --- what is known at the time of the prediction ------------------------------------------------------------------------


def newest(name: str, value: str) -> Aggregate:
    """Declare the newest weather report of the airport, known a quarter of an hour after the measurement."""
    return Aggregate(
        name,
        over="weather",
        by="origin",
        value=value,
        known_at="observed_at",
        window="6h",
        every="30min",
        available_after="15min",
        agg="last",
    )


recent_delay = Aggregate(
    "recent_delay",
    over="departures",
    by="origin",
    value="departure_delay",
    known_at="left_at",
    window="3h",
    every="10min",
    available_after="15min",
    agg="mean",
)

# --- predictions that an expert vouches for -----------------------------------------------------------------------------


def at(month: int, day: int, hour: int, minute: int = 0) -> datetime:
    """Return a timestamp of 2013 in New York's time zone."""
    return datetime(2013, month, day, hour, minute, tzinfo=ZoneInfo(NEW_YORK))


# These rows are copied from the table, so they carry `reported_delay` as the table holds it: filled in after the flight had
# left. A request never has it. A version that leans on it (bad_push.py) therefore predicts all of them well and passes:
# a golden query is no better than its row.
OWNER = "Network operations"
golden = (
    GoldenQuery(
        "first shuttle of a calm morning",
        {
            "carrier": "US",
            "origin": "LGA",
            "destination": "DCA",
            "distance": 214.0,
            "scheduled_departure": at(2, 12, 6),
            "reported_delay": -4.0,
            "temperature": 38.0,
            "wind_speed": 5.0,
            "precipitation": 0.0,
            "visibility": 10.0,
            "humidity": 50.0,
        },
        between=(0.0, 0.25),
        owner=OWNER,
    ),
    GoldenQuery(
        "noon flight on a day like most",
        {
            "carrier": "UA",
            "origin": "EWR",
            "destination": "LAX",
            "distance": 2454.0,
            "scheduled_departure": at(2, 14, 12),
            "reported_delay": -2.0,
            "recent_delay": 8.0,
            "temperature": 45.0,
            "wind_speed": 9.0,
            "precipitation": 0.0,
            "visibility": 10.0,
            "humidity": 55.0,
        },
        between=(0.0, 0.4),
        owner=OWNER,
    ),
    GoldenQuery(
        "evening flight in a storm, when all leave late",
        {
            "carrier": "EV",
            "origin": "EWR",
            "destination": "ORD",
            "distance": 719.0,
            "scheduled_departure": at(3, 8, 19, 30),
            "reported_delay": 80.0,
            "recent_delay": 75.0,
            "temperature": 34.0,
            "wind_speed": 30.0,
            "precipitation": 0.1,
            "visibility": 1.5,
            "humidity": 93.0,
        },
        between=(0.6, 1.0),
        owner=OWNER,
    ),
)

# --- the model ----------------------------------------------------------------------------------------------------------

model = Model(
    "flight-delay",
    examples=flights,
    feeds=(flights, departures, weather),
    contract=Contract(
        Category("carrier", unseen="other"),
        Category("origin", values=AIRPORTS, unseen="reject"),
        Category("destination", unseen="other"),
        Number("distance", unit="mi", low=0, high=6000),
        Timestamp("scheduled_departure", tz=NEW_YORK),
        # A version that reads this column is trained on a figure that is written after the flight has left (see bad_push.py).
        Number("reported_delay", unit="min", low=-120, high=2000, missing=Constant(0.0)),
        key=("carrier", "origin", "destination", "scheduled_departure"),
        event_time="scheduled_departure",
        label=Label("late", delay="1d"),
        slices=("origin",),
    ),
    aggregates=(
        recent_delay,
        newest("temperature", "temperature"),
        newest("wind_speed", "wind_speed"),
        newest("precipitation", "precipitation"),
        newest("visibility", "visibility"),
        newest("humidity", "humidity"),
    ),
    features=(
        Ordinal("carrier"),
        Ordinal("origin"),
        Ordinal("destination"),
        Log("distance"),
        Hour("scheduled_departure"),
        # No Month(): a version that was shown the first two days of April knows April by those two alone, and falls behind
        # one that never heard of it (AUC -0.011 on the two weeks after). Months help once there are years of them.
        Weekday("scheduled_departure"),
        Passthrough("recent_delay"),
        Passthrough("temperature"),
        Passthrough("wind_speed"),
        Passthrough("precipitation"),
        Passthrough("visibility"),
        Passthrough("humidity"),
    ),
    learner=LightGBM(trees=200, leaves=31, learning_rate=0.05, min_rows_per_leaf=100),
    heuristic=GroupMean(by=(Ordinal("carrier"), Hour("scheduled_departure"))),
    holdout="14d",
    golden=golden,
    # Nine hundred flights a day: a step may not ask for more than a few days can show. A machine that is busy with other work
    # needs a few milliseconds more for a request now and then, whatever version serves it.
    rollout=Canary(units_per_step=20, labels_per_step=15, latency_slack="20ms"),
    objective=Objective("auc", at_least=0.65),
)
