"""Plans are read by their content, a few rows each, however many there are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, insert

from holdfast.store.db import schema
from holdfast.store.rollout import traffic_plans

COUNT = itertools.count()


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    """A ledger in memory whose rows may refer to nothing: what a plan names is not looked up here."""
    engine = create_engine("sqlite://")
    schema.METADATA.create_all(engine)
    with engine.connect() as made:
        yield made
    engine.dispose()


def put(connection: Connection, model: str, named: list[str | None]) -> list[int]:
    values = {"model": model, "champion": "v1", "share_ppm": 0, "shadow_ppm": 0, "committed_at_us": 1}
    made = [
        connection.execute(insert(schema.traffic_plans).values(**values, serving_config=each))
        for each in named
    ]
    return [each.inserted_primary_key[0] for each in made]


@given(named=st.lists(st.sampled_from([None, "c-a", "c-b", "c-c"]), max_size=14))
def test_what_is_in_force_is_the_last_two_periods(connection: Connection, named: list[str | None]) -> None:
    model = f"m{next(COUNT)}"
    numbers = put(connection, model, named)
    put(connection, "other", ["c-c", "c-a"])
    requested = [(number, each) for number, each in zip(numbers, named, strict=True) if each is not None]
    periods = [next(period) for _, period in itertools.groupby(requested, key=lambda pair: pair[1])]
    assert traffic_plans.in_force(connection, model, "serving_config") == tuple(reversed(periods[-2:]))


def test_one_serving_config_that_was_ever_named_is_found_without_reading_every_plan(
    connection: Connection,
) -> None:
    first, *_ = put(connection, "old", ["c-a"] * 500)
    rows: list[tuple[object, ...]] = []
    raw = connection.connection.dbapi_connection
    assert raw is not None
    raw.row_factory = lambda _cursor, row: rows.append(row) or row
    try:
        assert traffic_plans.in_force(connection, "old", "serving_config") == ((first, "c-a"),)
    finally:
        raw.row_factory = None
    assert 0 < len(rows) <= 4
