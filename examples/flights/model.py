"""Will this flight arrive late? The living specification of a Holdfast model.

Three feeds come in, one model comes out. Everything that Holdfast does with it is declared here.
"""

from holdfast import (
    Aggregate,
    Canary,
    Category,
    Code,
    Constant,
    Contract,
    Feed,
    Hour,
    Label,
    LightGBM,
    Log,
    Median,
    Model,
    Month,
    Number,
    Objective,
    Rate,
    Text,
    Timestamp,
    Value,
    Weekday,
)

NEW_YORK = "America/New_York"
AIRPORTS = ("EWR", "JFK", "LGA")

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
    ),
    group="airport",
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
    ),
    group="airport",
)

# --- what is known at the moment of the answer --------------------------------------------------------------------------


def newest(name: str, value: str) -> Aggregate:
    """The newest weather report of the airport, a quarter of an hour after it was taken."""
    return Aggregate(
        name,
        over="weather",
        by="origin",
        value=value,
        known="observed_at",
        window="6h",
        every="30min",
        available_after="15min",
        how="last",
    )


recent_delay = Aggregate(
    "recent_delay",
    over="departures",
    by="origin",
    value="departure_delay",
    known="left_at",
    window="3h",
    every="10min",
    available_after="15min",
    how="mean",
)

# --- the model ----------------------------------------------------------------------------------------------------------

model = Model(
    "flight-delay",
    rows=flights,
    feeds=(flights, departures, weather),
    contract=Contract(
        Category("carrier", unseen="other"),
        Category("origin", values=AIRPORTS, unseen="reject"),
        Category("destination", unseen="other"),
        Number("distance", unit="mi", low=0, high=6000),
        Timestamp("scheduled_departure", tz=NEW_YORK),
        # Whoever leans on this column learns from a figure that is written after the flight has left (see bad_push.py).
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
        Code("carrier"),
        Code("origin"),
        Code("destination"),
        Log("distance"),
        Hour("scheduled_departure"),
        Weekday("scheduled_departure"),
        Month("scheduled_departure"),
        Value("recent_delay"),
        Value("temperature"),
        Value("wind_speed"),
        Value("precipitation"),
        Value("visibility"),
        Value("humidity"),
    ),
    learner=LightGBM(trees=200, leaves=31, learning_rate=0.05, min_rows_per_leaf=100),
    heuristic=Rate(by=(Code("carrier"), Hour("scheduled_departure"))),
    holdout="14d",
    golden=(),
    # Nine hundred flights a day: a step may not ask for more than a few days can show.
    rollout=Canary(units_per_step=20, labelled_per_step=15),
    objective=Objective("auc", at_least=0.65),
)
