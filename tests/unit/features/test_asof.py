"""Point-in-time aggregates against a brute force that looks only at rows known at the time (R44, R45)."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.features import Aggregate, OnlineTable, aggregates_from_json, aggregates_to_json, entity_key
from holdfast.features.asof import aggregate_rows, first_changed_us, join_as_of
from tests.support.profile import examples

MINUTE = 60_000_000
START = 1_357_000_000_000_000 // (30 * MINUTE) * (30 * MINUTE)

Row = tuple[str | None, int | None, float | None]  # entity, known in microseconds, value


def aggregate(how: str = "mean", **changes: object) -> Aggregate:
    spans: dict[str, object] = {"window": "30min", "every": "10min", "available_after": "5min", **changes}
    return Aggregate("recent", over="flights", by="origin", value="delay", known_at="left", agg=how, **spans)  # type: ignore[arg-type]  # mixed by design of this test


def frame_of(rows: list[Row]) -> pl.DataFrame:
    entities, known, values = zip(*rows, strict=True) if rows else ((), (), ())
    return pl.DataFrame(
        {"origin": entities, "left": known, "delay": values},
        schema={"origin": pl.String, "left": pl.Int64, "delay": pl.Float64},
    ).with_columns(pl.col("left").cast(pl.Datetime("us", "America/New_York")))


def value_at(made: Aggregate, rows: list[Row], entity: str, timestamp: int) -> float | None:
    """The aggregate at a grid time, from the definition."""
    seen = sorted(
        (known + made.available_after_us, value)
        for at, known, value in rows
        if at == entity and known is not None and value is not None
        if timestamp - made.window_us < known + made.available_after_us <= timestamp
    )
    if not seen:
        return None
    match made.agg:
        case "count":
            return float(len(seen))
        case "last":
            return seen[-1][1]
        case _:
            return math.fsum(value for _, value in seen) / len(seen)


def read_at(made: Aggregate, rows: list[Row], entity: str | None, at: int | None) -> float | None:
    """What a reader at `at` gets: the newest grid time not after it that has a value, unless it is too
    old."""
    if entity is None or at is None:
        return None
    timestamp = at // made.every_us * made.every_us
    while at - timestamp <= made.window_us:
        value = value_at(
            made, [row for row in rows if row[1] is not None and row[1] <= at], entity, timestamp
        )
        if value is not None:
            return value
        timestamp -= made.every_us
    return None


def table_of(made: Aggregate, rows: pl.DataFrame) -> OnlineTable:
    table = OnlineTable()
    for entity, known_at_us, value in rows.iter_rows():
        table.add(made.name, entity, known_at_us, value)
    return table


# Steps of five minutes meet grid times, window edges and read times exactly; odd microseconds miss them by
# one.
timestamps = st.builds(
    lambda steps, off: START + steps * 5 * MINUTE + off,
    st.integers(-3, 40),
    st.sampled_from([0, 0, 0, -1, 1]),
)
known_rows = st.lists(
    st.tuples(
        st.sampled_from(["EWR", "JFK", "LGA", None, ""]),
        st.one_of(timestamps, st.none()),
        st.one_of(st.integers(-20, 200).map(lambda n: n / 4), st.none()),
    ),
    max_size=25,
)
readers = st.lists(
    st.tuples(st.sampled_from(["EWR", "JFK", "???", None]), st.one_of(timestamps, st.none())), max_size=15
)
hows = st.sampled_from(["mean", "last", "count"])
spans = st.sampled_from([("30min", "10min"), ("10min", "10min"), ("60min", "5min"), ("45min", "15min")])


@examples(75)
@given(known_rows, readers, hows, spans)
def test_readers_get_what_was_known_and_nothing_else(
    rows: list[Row], reads: list[tuple[str | None, int | None]], how: str, span: tuple[str, str]
) -> None:
    made = aggregate(how, window=span[0], every=span[1])
    table = aggregate_rows(made, frame_of(rows))
    online = table_of(made, table.sample(fraction=1, shuffle=True, seed=1))
    frame = pl.DataFrame(
        {"n": range(len(reads)), "origin": [entity for entity, _ in reads], "at": [at for _, at in reads]},
        schema={"n": pl.Int64, "origin": pl.String, "at": pl.Int64},
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    joined = join_as_of(frame, at="at", aggregate=made, rows=table)
    assert joined.drop("recent").equals(frame)  # order and columns are kept
    for (entity, at), trained in zip(reads, joined["recent"], strict=True):
        expected = read_at(made, rows, entity, at)
        assert trained == (None if expected is None else pytest.approx(expected))
        if at is not None:
            served = online.lookup("recent", entity_key(entity), at, made.window_us)
            assert served == trained or (trained is None and math.isnan(served))  # equal to the last bit


@examples(50)
@given(known_rows, hows, spans)
def test_rows_are_the_definition_at_every_grid_timestamp(
    rows: list[Row], how: str, span: tuple[str, str]
) -> None:
    made = aggregate(how, window=span[0], every=span[1])
    got = {
        (entity, known): value for entity, known, value in aggregate_rows(made, frame_of(rows)).iter_rows()
    }
    for entity in ("EWR", "JFK", "LGA"):
        for timestamp in range(START - 60 * MINUTE, START + 300 * MINUTE, made.every_us):
            expected = value_at(made, rows, entity, timestamp)
            assert got.pop((entity, timestamp), None) == (
                None if expected is None else pytest.approx(expected)
            )
    assert not got


@examples(50)
@given(
    known_rows,
    st.lists(st.tuples(st.just("EWR"), timestamps, st.floats(-1e6, 1e6)), min_size=1, max_size=8),
    hows,
)
def test_the_last_window_and_a_new_batch_give_what_all_rows_give(
    old: list[Row], new: list[Row], how: str
) -> None:
    made = aggregate(how)
    changed = first_changed_us(made, frame_of(new))
    assert changed is not None
    oldest_new = min(row[1] for row in new if row[1] is not None)
    history_us = made.history // timedelta(microseconds=1)
    recent = [row for row in old if row[1] is None or row[1] > oldest_new - history_us]
    whole = aggregate_rows(made, frame_of(old + new))
    update = aggregate_rows(made, frame_of(new[::-1] + recent), from_us=changed)
    assert update.equals(whole.filter(pl.col("known_at_us") >= changed))
    before = aggregate_rows(made, frame_of(old)).filter(pl.col("known_at_us") < changed)
    assert before.equals(whole.filter(pl.col("known_at_us") < changed))  # what was published stays true


@pytest.mark.parametrize("how", ["mean", "last", "count"])
def test_the_order_of_loading_does_not_change_a_bit(how: str) -> None:
    noise = np.random.default_rng(7)
    rows = pl.DataFrame(
        {
            "origin": noise.choice(["EWR", "JFK"], 2000),
            "left": START + noise.integers(0, 300, 2000) * MINUTE,
            "delay": noise.normal(size=2000) * 10.0 ** noise.integers(-8, 8, 2000),
        }
    ).with_columns(pl.col("left").cast(pl.Datetime("us", "UTC")))
    made = aggregate(how)
    assert aggregate_rows(made, rows).equals(
        aggregate_rows(made, rows.sample(fraction=1, shuffle=True, seed=3))
    )


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([1e308, 1e308], 1e308),
        ([1e308, 1e308, -1e308, -1e308], 0.0),
        ([1.7976931348623157e308] * 7, 1.7976931348623157e308),
        ([float("inf"), 1.0], 1.0),
    ],
)
def test_the_mean_of_finite_values_is_finite(values: list[float], mean: float) -> None:
    rows = frame_of([("EWR", START + place, value) for place, value in enumerate(values)])
    assert set(aggregate_rows(aggregate(), rows)["value"]) == {mean}
    apart = frame_of([("EWR", START + place * 10 * MINUTE, value) for place, value in enumerate(values)])
    assert aggregate_rows(aggregate(), apart)["value"].is_finite().all()


def test_a_value_is_known_from_its_very_time_on() -> None:
    made = aggregate("last")
    table = aggregate_rows(made, frame_of([("EWR", START, 5.0)]))
    assert table["known_at_us"].to_list() == [START + minutes * MINUTE for minutes in (10, 20, 30)]
    online = table_of(made, table)
    known = START + 10 * MINUTE  # five minutes until it reaches us, five more to the grid
    stale = START + 60 * MINUTE  # the last time of the grid with a value, and a window more
    reads = [known - 1, known, stale, stale + 1]
    served = [online.lookup("recent", "EWR", at, made.window_us) for at in reads]
    assert str(served) == "[nan, 5.0, 5.0, nan]"
    frame = pl.DataFrame({"origin": "EWR", "at": pl.Series(reads).cast(pl.Datetime("us", "UTC"))})
    assert join_as_of(frame, at="at", aggregate=made, rows=table)["recent"].to_list() == [
        None,
        5.0,
        5.0,
        None,
    ]


def test_integer_entities_and_boolean_values() -> None:
    rows = pl.DataFrame({"origin": [7, 7], "left": [START, START + 1], "delay": [True, False]}).with_columns(
        pl.col("left").cast(pl.Datetime("us", "UTC"))
    )
    made = aggregate()
    table = aggregate_rows(made, rows)
    assert set(table.select("entity", "value").iter_rows()) == {("7", 0.5)}
    at = pl.Series([START + 12 * MINUTE]).cast(pl.Datetime("us", "UTC"))
    joined = join_as_of(pl.DataFrame({"origin": [7], "at": at}), at="at", aggregate=made, rows=table)
    assert joined["recent"].to_list() == [0.5]
    assert table_of(made, table).lookup("recent", entity_key(7), START + 12 * MINUTE, made.window_us) == 0.5


def test_timestamps_of_another_unit_and_zone_are_the_same_timestamps() -> None:
    rows = frame_of([("EWR", START, 1.0)])
    other = rows.with_columns(pl.col("left").dt.cast_time_unit("ms").dt.convert_time_zone("Asia/Tokyo"))
    assert aggregate_rows(aggregate(), rows).equals(aggregate_rows(aggregate(), other))


def test_no_rows_make_no_rows() -> None:
    empty = aggregate_rows(aggregate(), frame_of([("EWR", START, None), (None, START, 1.0)]))
    assert empty.schema == {"entity": pl.String, "known_at_us": pl.Int64, "value": pl.Float64}
    assert empty.is_empty()
    assert first_changed_us(aggregate(), frame_of([])) is None


def test_wrong_frames_are_refused() -> None:
    rows = frame_of([("EWR", START, 1.0)])
    for wrong in (
        rows.drop("delay"),
        rows.with_columns(pl.col("left").dt.replace_time_zone(None)),
        rows.with_columns(delay=pl.lit("late")),
    ):
        with pytest.raises(InputError, match="HF408"):
            aggregate_rows(aggregate(), wrong)
    with pytest.raises(InputError, match="already"):
        join_as_of(
            rows.with_columns(recent=0.0),
            at="left",
            aggregate=aggregate(),
            rows=aggregate_rows(aggregate(), rows),
        )


@pytest.mark.parametrize(
    "wrong", [{"window": "25min"}, {"window": "0s"}, {"every": "1ms"}, {"agg": "median"}, {"name": "../x"}]
)
def test_declarations_that_cannot_be_meant_are_refused(wrong: dict[str, str]) -> None:
    declared = {
        "name": "a",
        "over": "f",
        "by": "b",
        "value": "v",
        "known_at": "k",
        "window": "30min",
        "every": "10min",
    }
    with pytest.raises(InputError, match=r"HF1(?:05|09|13)"):
        Aggregate(**{**declared, **wrong})  # type: ignore[arg-type]  # wrong on purpose


@given(hows, spans, st.integers(0, 10**12))
def test_a_declaration_survives_its_json(how: str, span: tuple[str, str], wait_us: int) -> None:
    made = aggregate(how, window=span[0], every=span[1], available_after=timedelta(microseconds=wait_us))
    assert aggregates_from_json(aggregates_to_json([made, aggregate("count")])) == (made, aggregate("count"))
