"""Names of feeds become names of tables: they must fit, and never be mistaken for a quarantine."""

from __future__ import annotations

import pytest

from holdfast.contract import Category, Contract, Integer, Timestamp
from holdfast.errors import InputError
from holdfast.feeds import Feed, quarantine_table
from holdfast.feeds.expectations import Composition, Expectations

CONTRACT = Contract(Integer("id"), Timestamp("at", tz="UTC"), key="id", event_time="at")


def test_a_feed_names_its_tables() -> None:
    feed = Feed("a" * 51, CONTRACT, group="airport")
    assert len(quarantine_table(feed.name)) == 63


@pytest.mark.parametrize("name", ["a" * 52, "flights__quarantine", "Flights", "a b", ""])
def test_a_name_that_cannot_be_a_table_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"HF10[69]"):
        Feed(name, CONTRACT)


def test_a_group_has_a_name_too() -> None:
    with pytest.raises(InputError, match="group of feeds"):
        Feed("flights", CONTRACT, group="../")
    with pytest.raises(InputError, match=r"HF113.*missing_words"):
        Feed("flights", CONTRACT, missing_words="NA")  # type: ignore[arg-type] # the slip that is tested
    assert (
        Feed("flights", CONTRACT).missing_words,
        Feed("a", CONTRACT, missing_words=("NA",)).missing_words,
    ) == (
        ("",),
        ("NA",),
    )


def test_a_header_is_mapped_to_one_column_of_the_contract() -> None:
    assert Feed("a", CONTRACT, headers={"Trip No": "id"}).headers == {"Trip No": "id"}
    with pytest.raises(InputError, match=r"HF106.*maps 'x' to 'y', which"):
        Feed("a", CONTRACT, headers={"x": "y"})
    with pytest.raises(InputError, match=r"HF106.*several columns to 'id'"):
        Feed("a", CONTRACT, headers={"x": "id", "y": "id"})


def test_an_alias_is_named_nowhere_in_the_place_of_a_word() -> None:
    """A text delivery would read it as missing, or no value would ever be equal to it."""
    town = Category("town", aliases={"NA": "Namibia"}, missing="keep")
    contract = Contract(Integer("id"), Timestamp("at", tz="UTC"), town, key="id", event_time="at")
    with pytest.raises(InputError, match=r"HF106.*missing_words has 'NA', an alias of 'Namibia' in 'town'"):
        Feed("a", contract, missing_words=("", "NA"))
    for bounds in ({"at_most": {"NA": 0.2}}, {"at_least": {"NA": 0.2}}):
        with pytest.raises(
            InputError, match=r"HF106.*composition of 'town' names 'NA', an alias of 'Namibia'"
        ):
            Feed("a", contract, expects=Expectations(composition=(Composition("town", **bounds),)))
    named = Expectations(composition=(Composition("town", at_most={"Namibia": 0.2}),))
    assert Feed("a", contract, expects=named).expects == named
