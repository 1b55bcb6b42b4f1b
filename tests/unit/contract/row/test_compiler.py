"""What a row can hold and no frame can: wrong types, half a surrogate pair, a time without a zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from holdfast.contract import Boolean, Category, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.row.compiler import compile_row

CONTRACT = Contract(
    Text("id", max_length=8),
    Timestamp("at", tz="America/New_York"),
    Number("distance", unit="mi", low=0, high=6000),
    Number("delay", unit="min", missing="keep"),
    Integer("seats", low=1, high=900),
    Integer("big"),
    Category("carrier", values=("UA", "Ω"), unseen="reject"),
    Category("origin"),
    Text("tail", missing="keep"),
    Boolean("night"),
    key="id",
    event_time="at",
    label=Label("late", delay="12h"),
)
check = compile_row(CONTRACT, request=True)
GOOD: dict[str, object] = {
    "id": "UA1", "at": "2013-01-01T05:15:00-05:00", "distance": 1400.0, "delay": None, "seats": 150, "big": 0,
    "carrier": "UA", "origin": "EWR", "tail": "", "night": False,
}  # fmt: skip
NEW_YORK = ZoneInfo("America/New_York")


class NoOffset(tzinfo):
    """A zone that does not know its offset, so that the time is naive by the language's own rule."""

    def utcoffset(self, when: datetime | None) -> None:
        return None


def test_a_good_row_has_no_reason() -> None:
    assert check(GOOD) == ()


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("distance", "1400", "type"),
        ("distance", True, "type"),
        ("distance", 1400, None),
        ("distance", 10**400, "not_finite"),
        ("distance", -(10**400), "not_finite"),
        ("distance", float("nan"), "not_finite"),
        ("distance", float("inf"), "not_finite"),
        ("distance", -0.0, None),
        ("distance", 6000.000001, "range"),
        ("distance", 6001, "range"),
        ("distance", 1 + 0j, "type"),
        ("distance", [1400.0], "type"),
        ("distance", None, "missing"),
        ("delay", None, None),
        ("delay", float("nan"), "not_finite"),
        ("delay", 1.7976931348623157e308, None),
        ("seats", 150.0, "type"),
        ("seats", True, "type"),
        ("seats", "150", "type"),
        ("seats", 0, "range"),
        ("seats", 2**53 + 1, "not_exact"),
        ("big", 2**53, None),
        ("big", -(2**53) - 1, "not_exact"),
        ("big", 2**64, "not_exact"),
        ("big", 10**4000, "not_exact"),
        ("carrier", "Ω", None),
        ("carrier", "XX", "unseen"),
        ("carrier", "UA\0", "unseen"),
        ("carrier", "\ud83d", "not_unicode"),
        ("carrier", b"UA", "type"),
        ("carrier", "", "missing"),
        ("origin", "\0", None),
        ("origin", "🛫", None),
        ("origin", "\udfff", "not_unicode"),
        ("tail", None, None),
        ("tail", "\0", "nul"),
        ("tail", "🛫" * 256, None),
        ("tail", "🛫" * 257, "too_long"),
        ("tail", "\ud83d", "not_unicode"),
        ("id", "\0", "nul"),
        ("id", "", "missing"),
        ("night", 0, "type"),
        ("night", "false", "type"),
        ("night", None, "missing"),
        ("at", "2013-01-01T05:15:00", "zone"),
        ("at", "2013-01-01", "type"),
        ("at", "yesterday", "type"),
        ("at", "", "type"),
        ("at", 1357035300, "type"),
        ("at", date(2013, 1, 1), "type"),
        ("at", datetime(2013, 1, 1, 5, 15, tzinfo=UTC).replace(tzinfo=None), "zone"),
        ("at", datetime(2013, 1, 1, 5, 15, tzinfo=NoOffset()), "zone"),
        ("at", datetime(2013, 1, 1, 5, 15, tzinfo=UTC), None),
        ("at", datetime(2013, 3, 10, 2, 30, tzinfo=NEW_YORK), "gap"),
        ("at", datetime(2013, 3, 10, 2, 30, tzinfo=NEW_YORK, fold=1), "gap"),
        ("at", datetime(2013, 11, 3, 1, 30, tzinfo=NEW_YORK), None),
        ("at", datetime(2013, 11, 3, 1, 30, tzinfo=NEW_YORK, fold=1), None),
        ("at", datetime(1, 1, 1, tzinfo=UTC), "range"),
        ("at", datetime(9999, 12, 31, 23, 59, tzinfo=NEW_YORK), "range"),
        ("at", None, "missing"),
    ],
)
def test_each_value_has_its_reason(column: str, value: object, rule: str | None) -> None:
    """R20, R21, R23, R24, R25, R102: one rule a value, never an exception."""
    assert check({**GOOD, column: value}) == (() if rule is None else (f"{column}|{rule}",))


def test_an_absent_key_is_missing_and_a_strange_one_is_reported_without_repeating_it() -> None:
    row: dict[str, Any] = {**GOOD, "altitude\n": 1}
    del row["seats"]
    assert check(row) == ("seats|missing", "*|extra")


def test_a_request_brings_no_label_and_a_row_does() -> None:
    whole = compile_row(CONTRACT, request=False)
    assert check({**GOOD, "late": True}) == ("*|extra",)
    assert whole({**GOOD, "late": True}) == ()
    assert whole(GOOD) == ("late|missing",)
    assert whole({**GOOD, "late": 1}) == ("late|type",)


def test_reasons_come_in_the_order_of_the_contract() -> None:
    required = ("id", "at", "distance", "seats", "big", "carrier", "origin", "night")
    assert check({}) == tuple(f"{name}|missing" for name in required)
