"""Selections: which rows are trained on, counted, and the same ones every time (R28-R31, R39, R43, R50, R54)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from holdfast.contract import Boolean, Category, Contract, Integer, Label, Number, Timestamp, col
from holdfast.contract.batch.compiler import dtypes
from holdfast.errors import InputError, RefusedError
from holdfast.tables.row_selection import SelectedRows, select_rows
from holdfast.tables.selection import (
    Cap,
    DiscardBudget,
    Filter,
    Forbidden,
    Quota,
    Sample,
    Selection,
    Weights,
    selectable_columns,
)

CONTRACT = Contract(
    Integer("id"),
    Category("site", values=("north", "south", "west")),
    Boolean("robot"),
    Number("amount", unit="USD", missing="keep"),
    Timestamp("at", tz="UTC"),
    key="id",
    event_time="at",
    label=Label("bought", delay="1h"),
    slices=("site",),
)
COLUMNS = selectable_columns(CONTRACT.columns, aggregates=["visits"])


def rows(count: int = 1000) -> pl.DataFrame:
    """Six of ten rows are of the north, four of the south, none of the west; each tenth is a robot's."""
    start = datetime(2013, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "id": range(count),
            "site": ["north" if n % 10 < 6 else "south" for n in range(count)],
            "robot": [n % 10 == 9 for n in range(count)],
            "amount": [None if n % 4 == 0 else float(n) for n in range(count)],
            "at": [start + timedelta(minutes=n) for n in range(count)],
            "bought": [n % 3 == 0 for n in range(count)],
        },
        schema=dtypes(CONTRACT),
    )


def chosen(
    selection: Selection, frame: pl.DataFrame | None = None, seed: int = 0, **more: object
) -> SelectedRows:
    given = rows() if frame is None else frame
    return select_rows(
        given, selection, seed, columns=COLUMNS, key=CONTRACT.key, slices=CONTRACT.slices, **more
    )  # type: ignore[arg-type]  # only `rejected` is given so


def test_a_selection_of_nothing_changes_nothing():
    found = chosen(Selection())
    assert found.frame.equals(rows())
    assert (found.weights, found.counts, found.warnings) == (None, {}, ())
    assert [(each.value, each.found, each.kept) for each in found.slices] == [
        ("north", 600, 600),
        ("south", 400, 400),
    ]


def test_filters_are_counted_in_their_order_and_keep_what_they_cannot_judge():
    """R29, R43: no row leaves without a name for it."""
    found = chosen(
        Selection(filters=(Filter("no_robots", ~col("robot")), Filter("large", col("amount") >= 500)))
    )
    assert found.counts == {"filter:no_robots": 100, "filter:large": found.counts["filter:large"]}
    assert found.frame["amount"].null_count() == 250
    assert found.frame.height == 1000 - sum(found.counts.values())


def test_one_forbidden_row_refuses_and_is_named():
    """R50."""
    selection = Selection(
        filters=(Filter("no_robots", ~col("robot")),), forbidden=(Forbidden("machines", col("robot")),)
    )
    assert chosen(selection).frame.height == 900
    with pytest.raises(RefusedError, match=r"100 of 1,000 training rows are 'machines'.*id=9") as refused:
        chosen(Selection(forbidden=(Forbidden("machines", col("robot")),)))
    assert refused.value.code == "HF407"


def test_a_cap_keeps_the_same_rows_in_any_order_and_when_rows_are_added():
    """R31, R39: bit for bit."""
    selection = Selection(caps=(Cap("site", 100),))
    once = chosen(selection)
    shuffled = chosen(selection, rows().sample(fraction=1.0, shuffle=True, seed=5))
    assert once.frame["site"].value_counts().sort("site")["count"].to_list() == [100, 100]
    assert sorted(shuffled.frame["id"]) == once.frame["id"].to_list()
    assert once.frame.equals(chosen(selection).frame)
    assert once.counts == {"cap:site": 800}
    assert chosen(selection, seed=1).frame["id"].to_list() != once.frame["id"].to_list()
    more = set(chosen(selection, rows(1100)).frame["id"])
    assert len(more & set(once.frame["id"])) > 150


def test_the_rows_that_a_seed_chooses_are_the_same_in_every_release():
    found = chosen(Selection(sample=Sample(0.01)), seed=7)
    assert found.frame["id"].to_list() == [61, 110, 145, 242, 385, 580]


@pytest.mark.parametrize("share", [0.3, 0.34, 0.5, 0.8, 0.95])
def test_a_cap_as_a_share_holds_of_the_rows_that_are_left(share):
    """R31: 0.3 of rows that were 83 % oslo left 64 % oslo. The number of rows is the largest that brute force finds."""
    towns = [830, 90, 50, 20, 10]
    frame = rows(1000).with_columns(
        carrier=pl.Series([f"t{place}" for place, count in enumerate(towns) for _ in range(count)])
    )
    kept = (
        chosen(Selection(caps=(Cap("carrier", share),)), frame)
        .frame["carrier"]
        .value_counts()["count"]
        .to_list()
    )
    assert max(kept) <= share * sum(kept) + 1e-9
    capped = [[min(count, most) for count in towns] for most in range(1, 831)]
    assert sum(kept) == max(sum(left) for left in capped if max(left) <= share * sum(left) + 1e-9)


def test_a_share_that_so_few_values_cannot_hold_is_refused():
    with pytest.raises(InputError, match="2 values of site") as refused:
        chosen(Selection(caps=(Cap("site", 0.3),)))
    assert refused.value.code == "HF401"
    assert "0.5 or more" in (refused.value.next_command or "")


def test_shares_of_two_caps_hold_together():
    found = chosen(Selection(caps=(Cap(("site", "robot"), 0.48), Cap("site", 0.55))))
    shares = found.frame.group_by("site").len()["len"] / found.frame.height
    pairs = found.frame.group_by("site", "robot").len()["len"] / found.frame.height
    assert shares.max() <= 0.55
    assert pairs.max() <= 0.48


def test_a_cap_as_a_share_of_combinations():
    found = chosen(Selection(caps=(Cap(("site", "robot"), 0.4),)))
    counts = {row[:2]: row[2] for row in found.frame.group_by("site", "robot").len().rows()}
    assert counts == {("north", False): 200, ("south", False): 200, ("south", True): 100}


def test_a_sample_has_nearly_its_share_and_a_larger_one_holds_the_smaller():
    few, many = chosen(Selection(sample=Sample(0.3))), chosen(Selection(sample=Sample(0.5)))
    assert 240 < few.frame.height < 360
    assert set(few.frame["id"]) < set(many.frame["id"])


def test_a_quota_counts_values_that_no_row_has():
    """R30: a slice that vanished is not one row short, it is not there."""
    with pytest.raises(InputError, match="site=west has 0 rows; its quota is 50") as refused:
        chosen(Selection(quotas=(Quota("site", 50),)))
    assert refused.value.code == "HF401"
    reported = chosen(Selection(quotas=(Quota("site", 500, otherwise="warn"),)))
    assert reported.warnings == (
        "site=south has 400 rows; its quota is 500",
        "site=west has 0 rows; its quota is 500",
    )
    assert reported.frame.height == 1000


def test_weights_multiply_and_have_the_mean_one():
    """R54: the composition of the traffic."""
    found = chosen(
        Selection(weights=(Weights("site", {"north": 2.0}), Weights("robot", {True: 0.0}, default=1.0)))
    )
    assert found.weights is not None
    assert found.weights.mean() == pytest.approx(1.0)
    north, robot = found.frame["site"].to_numpy() == "north", found.frame["robot"].to_numpy()
    assert (found.weights[robot] == 0.0).all()
    ratio = found.weights[north].mean() / found.weights[~north & ~robot].mean()
    assert ratio == pytest.approx(2.0)
    assert np.ptp(found.weights[north]) == 0.0


def test_the_discard_budget_holds_overall_and_in_each_slice():
    """R28: a rule that strikes a quarter of one site is no cleaning."""
    robots = Filter("no_robots", ~col("robot"))
    assert chosen(Selection(filters=(robots,), discard=(DiscardBudget(0.1),))).frame.height == 900
    with pytest.raises(
        RefusedError, match=r"100 of 400 rows of site=south \(25.0 %\) were discarded"
    ) as refused:
        chosen(Selection(filters=(robots,), discard=(DiscardBudget(0.1), DiscardBudget(0.2, by="site"))))
    assert refused.value.code == "HF405"
    with pytest.raises(RefusedError, match="900 rows are left; the minimum is 950"):
        chosen(Selection(filters=(robots,), discard=(DiscardBudget(1.0, at_least_rows=950),)))
    rejected = rows(200).with_columns(id=pl.col("id") + 5000)
    with pytest.raises(RefusedError, match=r"200 of 1,200 rows \(16.7 %\)"):
        chosen(Selection(discard=(DiscardBudget(0.1),)), rejected=rejected)


def test_a_selection_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match="leaves no row"):
        chosen(Selection(filters=(Filter("none", col("id") < 0),)))
    with pytest.raises(InputError, match="weight 0"):
        chosen(Selection(weights=(Weights("site", {"elsewhere": 1.0}, default=0.0),)))


def test_a_cap_of_a_span_keeps_no_hour_from_being_full() -> None:
    """R31: 940 of 1,000 rows are of one hour, that of the match; no column names it."""
    start = datetime(2013, 1, 1, tzinfo=UTC)
    times = [
        start + timedelta(seconds=n) if n < 940 else start + timedelta(hours=n - 939) for n in range(1000)
    ]
    frame = rows().with_columns(pl.Series("at", times, dtype=rows().schema["at"]))
    found = chosen(Selection(caps=(Cap("at", 100, every="1h"),)), frame)
    assert found.frame.height == 160
    assert found.counts == {"cap:at": 840}
    again = chosen(
        Selection(caps=(Cap("at", 100, every="1h"),)), frame.sample(fraction=1, shuffle=True, seed=1)
    )
    assert sorted(again.frame["id"]) == sorted(found.frame["id"])
    by_site = chosen(Selection(caps=(Cap(("site", "at"), 100, every="60min"),)), frame)
    assert by_site.frame.height == 260


def test_a_span_is_of_the_hour_in_the_zone_of_the_column() -> None:
    times = [
        datetime(2013, 1, 1, hour, 0, tzinfo=UTC) for hour in (18, 19)
    ]  # midnight is between them in Kolkata
    zoned = rows(2).with_columns(at=pl.Series(times).dt.convert_time_zone("Asia/Kolkata"))
    assert chosen(Selection(caps=(Cap("at", 1, every="1d"),)), zoned).frame.height == 2


def test_a_cap_without_a_span_has_the_hash_that_it_had() -> None:
    assert '"caps":[[["site"],100]]' in Selection(caps=(Cap("site", 100),)).to_json()
    one, other = (Selection(caps=(Cap("at", 100, every=each),)) for each in ("1h", "2h"))
    assert one.hash != other.hash


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Sample(0.0),
        lambda: Cap("site", 0),
        lambda: Cap("at", 5, every="0s"),
        lambda: Cap("at", 5, every="often"),
        lambda: Selection(caps=(Cap("site", 5, every="1h"),)).check(COLUMNS),
        lambda: Cap("site", 1.5),
        lambda: Cap((), 5),
        lambda: Quota("site", 0),
        lambda: Weights("site", {"a": -1.0}),
        lambda: Weights("site", {"a": float("nan")}),
        lambda: DiscardBudget(1.2),
        lambda: Filter("Not A Name", col("robot")),
        lambda: Selection(filters=(Filter("a", col("robot")),), forbidden=(Forbidden("a", col("robot")),)),
        lambda: Selection(filters=(Filter("a", col("elsewhere") > 1),)).check(COLUMNS),
        lambda: Selection(filters=(Filter("a", col("amount") + 1),)).check(COLUMNS),
        lambda: Selection(quotas=(Quota("amount", 1),)).check(COLUMNS),
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_declared(wrong):
    with pytest.raises(InputError, match=r"HF10[49]|HF107"):
        wrong()


def test_equal_selections_have_equal_json_and_may_read_aggregates():
    def make() -> Selection:
        return Selection(
            filters=[Filter("busy", col("visits") > 2)], weights=Weights("site", {"south": 2.0, "north": 1.0})
        )

    assert make().to_json() == make().to_json()
    assert make().hash == make().hash
    make().check(COLUMNS)
    assert make().columns == ("visits", "site")
