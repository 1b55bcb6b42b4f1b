"""Hour, weekday and month inside ONNX against zoneinfo, across every change of the clocks (R23)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spox import Tensor, argument, build

from holdfast.features.datetime_ops import datetime_parts
from holdfast.features.fitted import MISSING_US, DatetimePart
from holdfast.features.timezone_tables import END_SECOND, load_zone
from tests.support.profile import examples

# Half-hour and 45-minute offsets, half-hour changes, changes around Ramadan, a day left out, none at all.
ZONES = [
    "America/New_York", "Europe/London", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Africa/Monrovia", "Pacific/Apia", "America/Sao_Paulo", "America/Boa_Vista", "Asia/Gaza", "UTC",
]  # fmt: skip
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000


@lru_cache
def session(name: str, parts: tuple[DatetimePart, ...] = tuple(DatetimePart)) -> onnxruntime.InferenceSession:
    at = argument(Tensor(np.int64, ("N",)))
    model = build({"at": at}, {"shown": datetime_parts(at, load_zone(name), parts)})
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def shown(name: str, timestamps: list[int]) -> list[list[float]]:
    (made,) = session(name).run(None, {"at": np.array(timestamps, np.int64)})
    return [list(column) for column in made.T]


def on_the_wall(name: str, at_us: int) -> list[float]:
    local = (EPOCH + timedelta(microseconds=at_us)).astimezone(ZoneInfo(name))
    return [local.hour, local.weekday(), local.month]


@examples(100)
@given(st.sampled_from(ZONES), st.lists(st.integers(0, END_SECOND * SECOND - 1), min_size=1, max_size=30))
def test_any_timestamp(name: str, timestamps: list[int]) -> None:
    assert shown(name, timestamps) == [on_the_wall(name, at) for at in timestamps]


@pytest.mark.parametrize("name", ZONES)
def test_the_microsecond_before_and_after_every_change(name: str) -> None:
    starts = [start * SECOND for start in load_zone(name).starts_seconds[1:]]
    timestamps = [start + off for start in starts for off in (-3600 * SECOND, -1, 0, 1, 3600 * SECOND)] + [0]
    assert shown(name, timestamps) == [on_the_wall(name, at) for at in timestamps]


@pytest.mark.parametrize("name", ["America/New_York", "Asia/Tokyo"])
def test_every_day_from_1970_to_2099(name: str) -> None:
    timestamps = [day * 86_400 * SECOND + 18_000 * SECOND for day in range(0, END_SECOND // 86_400, 3)]
    assert shown(name, timestamps) == [on_the_wall(name, at) for at in timestamps]


def test_timestamps_that_a_vectorised_comparison_of_halves_gets_wrong() -> None:
    """Clip and Max of ONNX Runtime 1.31 on int64 take these for smaller than 0, four at a time but not
    one."""
    timestamps = [2**31 + off for off in range(-4, 5)] + [
        2**32 - 1,
        2**32,
        3 * 2**31,
        END_SECOND * SECOND - 2**31,
    ] * 3
    assert shown("America/New_York", timestamps) == [on_the_wall("America/New_York", at) for at in timestamps]


def test_timestamps_beyond_the_tables_are_missing_and_not_guessed() -> None:
    beyond = [MISSING_US, -1, END_SECOND * SECOND, 2**63 - 1]
    assert np.isnan(shown("America/New_York", beyond)).all()
    assert not np.isnan(shown("America/New_York", [0, END_SECOND * SECOND - 1])).any()


@pytest.mark.parametrize(
    "parts",
    [
        (DatetimePart.MONTH,),
        (DatetimePart.WEEKDAY, DatetimePart.HOUR),
        (DatetimePart.HOUR, DatetimePart.HOUR),
    ],
)
def test_any_choice_of_parts(parts: tuple[DatetimePart, ...]) -> None:
    at = 1_362_899_000 * SECOND
    (made,) = session("Europe/London", parts).run(None, {"at": np.array([at], np.int64)})
    wall = dict(zip(DatetimePart, on_the_wall("Europe/London", at), strict=True))
    assert made[:, 0].tolist() == [wall[part] for part in parts]
