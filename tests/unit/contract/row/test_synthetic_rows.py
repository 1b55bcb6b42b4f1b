"""Rows made from a contract are rows of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import Boolean, Category, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.row.compiler import compile_row
from holdfast.contract.row.synthetic_rows import synthetic_rows
from tests.support.profile import examples

CONTRACT = Contract(
    Text("id", max_length=6),
    Category("carrier", values=("AA", "UA"), unseen="reject"),
    Number("distance", unit="mi", low=10),
    Integer("seats", high=900),
    Boolean("international"),
    Timestamp("booked", tz="UTC", low="1999-12-30", high="2000-01-01"),
    Timestamp("paid", tz="UTC", low="2021-01-01"),
    Timestamp("scheduled", tz="America/New_York"),
    key="id",
    event_time="scheduled",
    label=Label("late", delay="12h"),
)


@examples(25)
@given(st.integers(0, 10**6), st.integers(0, 40))
def test_each_is_let_through(seed: int, count: int) -> None:
    check = compile_row(CONTRACT, request=True)
    made = synthetic_rows(CONTRACT, count, seed=seed)
    assert len(made) == count
    assert not any(check(row) for row in made)
    assert made == synthetic_rows(CONTRACT, count, seed=seed)
    assert len({row["id"] for row in made}) == count
