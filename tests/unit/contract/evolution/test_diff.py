"""R92, R93: what a change of a contract breaks is reported, and what is called compatible breaks nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.contract import (
    Boolean,
    Category,
    Constant,
    Contract,
    Integer,
    Label,
    Number,
    Rule,
    Text,
    Timestamp,
    col,
)
from holdfast.contract.evolution.compatibility import (
    Boundary,
    Compatibility,
    Difference,
    describe_changes,
    worst,
)
from holdfast.contract.evolution.diff import compare
from holdfast.contract.row.compiler import compile_row
from holdfast.contract.schema.columns import Column
from tests.support.profile import examples

ID, AT = Text("id"), Timestamp("at", tz="UTC")
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def contract(*columns: Column, **facts: Any) -> Contract:
    return Contract(ID, AT, *columns, **{"key": "id", "event_time": "at"} | facts)


def whats(old: Contract, new: Contract) -> set[Difference]:
    return {change.what for change in compare(old, new).changes}


V = Number("v", unit="mi", low=0, high=10)
WORD = Category("w", values=("a", "b"), unseen="reject")
OPEN = Category("w", values=("a", "b"), unseen="other")
TEXT = Text("t", max_length=4)
LATE = Label("late", delay="12h")
WALL = Timestamp("seen", tz="Europe/Oslo", naive="local")

HARMLESS = [
    (V, replace(V, high=11), Difference.BOUND_WIDENED),
    (V, replace(V, low=None), Difference.BOUND_WIDENED),
    (V, replace(V, missing="keep"), Difference.MISSING_ALLOWED),
    (replace(V, missing="median"), replace(V, missing=Constant(3.0, flag=True)), Difference.MISSING_FILLED),
    (WORD, replace(WORD, values=("a", "b", "c")), Difference.WORDS_ADDED),
    (WORD, replace(WORD, values=("b", "a")), Difference.REORDERED),
    (WORD, replace(WORD, unseen="other"), Difference.UNSEEN_ALLOWED),
    (OPEN, replace(OPEN, values=("c",)), Difference.WORDS_CHANGED),
    (OPEN, replace(OPEN, values=None), Difference.WORDS_CHANGED),
    (WORD, replace(WORD, aliases={"A": "a"}), Difference.ALIAS_ADDED),
    (OPEN, replace(OPEN, aliases={"A": "a"}), Difference.ALIAS_ADDED),
    (TEXT, replace(TEXT, max_length=5), Difference.LENGTH_RAISED),
    (replace(TEXT, pattern="a+"), TEXT, Difference.PATTERN_REMOVED),
    (replace(WALL, naive="reject"), WALL, Difference.LOCAL_TIMES_READ),
    (replace(WALL, low="2013-01-01"), replace(WALL, low="2012-12-31T22:59:59Z"), Difference.BOUND_WIDENED),
    (replace(WALL, high="2013-01-01"), WALL, Difference.BOUND_WIDENED),
]


@pytest.mark.parametrize(("old", "new", "what"), HARMLESS)
def test_what_only_lets_more_through_is_compatible(old: Column, new: Column, what: Difference) -> None:
    evolution = compare(contract(old), contract(new))
    assert (evolution.kind, [change.what for change in evolution.changes]) == (
        Compatibility.COMPATIBLE,
        [what],
    )


BROKEN = [
    (V, replace(V, high=9), Difference.BOUND_NARROWED, 9.5),
    (V, replace(V, low=1), Difference.BOUND_NARROWED, 0.5),
    (replace(V, high=None), V, Difference.BOUND_NARROWED, 11.0),
    (replace(V, missing="keep"), V, Difference.MISSING_REFUSED, None),
    (WORD, replace(WORD, values=("a",)), Difference.WORDS_REMOVED, "b"),
    (OPEN, WORD, Difference.UNSEEN_REFUSED, "z"),
    (replace(WORD, aliases={"A": "a"}), WORD, Difference.ALIAS_REMOVED, "A"),
    (TEXT, replace(TEXT, max_length=3), Difference.LENGTH_LOWERED, "abcd"),
    (TEXT, replace(TEXT, pattern="a+"), Difference.PATTERN_CHANGED, "b"),
    (WALL, replace(WALL, naive="reject"), Difference.LOCAL_TIMES_REFUSED, "2026-01-01 00:00:00"),
    (WALL, replace(WALL, low="2013-01-01"), Difference.BOUND_NARROWED, "1970-01-01 00:00:00"),
    (Integer("i"), Boolean("i"), Difference.TYPE, 1),
    (Number("i", unit="1"), Integer("i"), Difference.TYPE, 1.5),
]


@pytest.mark.parametrize(("old", "new", "what", "witness"), BROKEN)
def test_what_refuses_a_valid_row_is_breaking(
    old: Column, new: Column, what: Difference, witness: object
) -> None:
    before, after = contract(old), contract(new)
    evolution = compare(before, after)
    assert (evolution.kind, [change.what for change in evolution.changes]) == (Compatibility.BREAKING, [what])
    row = {"id": "x", "at": WHEN, old.name: witness}
    assert compile_row(before, request=True)(row) == ()
    assert compile_row(after, request=True)(row) != ()


MEANINGS = [
    (replace(WORD, aliases={"A": "a"}), replace(WORD, aliases={"A": "b"}), Difference.ALIAS_CHANGED),
    (V, replace(V, unit="km"), Difference.UNIT),
    (Integer("n", unit="s"), Integer("n", unit="ms"), Difference.UNIT),
    (WALL, replace(WALL, tz="Europe/London"), Difference.ZONE),
]


@pytest.mark.parametrize(("old", "new", "what"), MEANINGS)
def test_what_gives_the_same_value_another_meaning_is_breaking_for_everybody(
    old: Column, new: Column, what: Difference
) -> None:
    """R20 to R23: no row shows it, so it can only be reported from the contracts."""
    evolution = compare(contract(old), contract(new))
    assert what in {change.what for change in evolution.changes}
    assert {evolution.at(boundary) for boundary in Boundary} == {Compatibility.BREAKING}


def test_what_several_changes_mean_is_reported_once() -> None:
    old = [Number(name, unit="1", high=10) for name in "ab"]
    changes = compare(contract(*old), contract(*(replace(each, high=9) for each in old))).changes
    reported = describe_changes(changes)
    assert reported.startswith("a: bound narrowed (10.0 -> 9.0), b: bound narrowed (10.0 -> 9.0), breaking: ")
    assert reported.count(changes[0].why) == 1
    assert describe_changes(()) == ""


def test_a_renamed_column_is_found_and_its_way_named() -> None:
    """R54: in one step it leaves rows, callers and models behind; the steps that do not are reported."""
    evolution = compare(contract(V), contract(replace(V, name="miles")))
    (change,) = evolution.changes
    assert (change.what, change.before, change.after) == (Difference.RENAMED, "v", "miles")
    assert change.kind is Compatibility.BREAKING
    assert "add the new column as optional" in change.why


def test_the_named_way_of_a_rename_has_no_breaking_step() -> None:
    way = [
        contract(V),
        contract(replace(V, missing="keep"), replace(V, name="miles", missing="keep")),
        contract(replace(V, name="miles", missing="keep")),
    ]
    kinds = [compare(old, new).kind for old, new in pairwise(way)]
    assert kinds == [Compatibility.EXPAND_CONTRACT, Compatibility.EXPAND_CONTRACT]


def test_columns_that_two_could_be_the_heir_of_are_not_called_renamed() -> None:
    one, two = replace(V, name="p"), replace(V, name="q")
    assert whats(contract(V), contract(one, two)) == {Difference.REMOVED_REQUIRED, Difference.ADDED_REQUIRED}


def test_columns_that_come_and_go() -> None:
    keep = replace(V, missing="keep")
    assert compare(contract(), contract(keep)).kind is Compatibility.EXPAND_CONTRACT
    assert compare(contract(), contract(keep)).at(Boundary.CALLERS) is Compatibility.COMPATIBLE
    assert compare(contract(), contract(V)).kind is Compatibility.BREAKING
    assert compare(contract(keep), contract()).kind is Compatibility.EXPAND_CONTRACT
    assert compare(contract(V), contract()).kind is Compatibility.BREAKING


def test_the_whole_row() -> None:
    """R93: key, event time, label and its delay."""
    n, seen = Integer("n"), Timestamp("seen", tz="UTC")
    assert whats(contract(n), contract(n, key=("id", "n"))) == {Difference.KEY}
    assert whats(contract(n, key=("id", "n")), contract(n, key=("n", "id"))) == {Difference.REORDERED}
    assert whats(contract(seen), contract(seen, event_time="seen")) == {Difference.EVENT_TIME}
    assert whats(contract(label=LATE), contract(label=replace(LATE, delay="1d"))) == {Difference.LABEL_DELAY}
    assert whats(contract(), contract(label=LATE)) == {Difference.LABEL}
    assert whats(contract(label=LATE), contract(Boolean("late"))) == {Difference.LABEL}
    assert compare(contract(label=LATE), contract(Boolean("late"))).kind is Compatibility.BREAKING
    assert whats(contract(n), contract(n, slices="n")) == {Difference.SLICES}
    assert compare(contract(V, n), contract(n, V)).kind is Compatibility.COMPATIBLE


def test_every_change_has_a_rule_and_reports_why() -> None:
    assert all(difference.effect.why for difference in Difference)


def test_worst_is_the_order_of_the_kinds() -> None:
    assert worst([]) is Compatibility.COMPATIBLE
    assert worst([Compatibility.EXPAND_CONTRACT, Compatibility.COMPATIBLE]) is Compatibility.EXPAND_CONTRACT


# --- any two contracts ------------------------------------------------------------------------------------------------

POLICIES = st.sampled_from(["reject", "keep"])
NUMBERS = st.builds(
    lambda unit, low, wide, missing: Number(
        "n", unit=unit, low=low, high=None if wide is None else (low or 0) + wide, missing=missing
    ),
    st.sampled_from(["mi", "mi", "mi", "km"]),
    st.sampled_from([None, -1.0, 0.0, 1.0]),
    st.sampled_from([None, 0.0, 2.0, 3.0]),
    POLICIES,
)
CATEGORIES = st.one_of(
    st.builds(
        lambda values, missing, aliases: Category(
            "c",
            values=tuple(values),
            unseen="reject",
            missing=missing,
            aliases=dict.fromkeys(aliases, values[0]),
        ),
        st.lists(st.sampled_from("abcd"), min_size=1, unique=True),
        POLICIES,
        st.sets(st.sampled_from("zy\0"), max_size=2),
    ),
    st.builds(
        lambda values, missing, aliases: Category("c", values=values, missing=missing, aliases=aliases),
        st.sampled_from([None, ("a",), ("a", "b")]),
        POLICIES,
        st.sampled_from([{}, {"z": "a"}, {"z": "a", "d": "a"}]),
    ),
)
TEXTS = st.builds(
    lambda longest, pattern, missing: Text("t", max_length=longest, pattern=pattern, missing=missing),
    st.integers(1, 3),
    st.sampled_from([None, "a*", "[ab]+"]),
    POLICIES,
)
TIMES = st.builds(
    lambda tz, naive, missing, low: Timestamp("s", tz=tz, naive=naive, missing=missing, low=low),
    st.sampled_from(["UTC", "UTC", "Europe/Oslo"]),
    st.sampled_from(["reject", "local"]),
    POLICIES,
    st.sampled_from([None, "2025-12-31", "2026-01-01", "2026-01-02"]),
)
CONTRACTS = st.builds(
    lambda columns, label: contract(*(column for column in columns if column), label=label),
    st.tuples(*(st.one_of(st.none(), kind) for kind in (NUMBERS, CATEGORIES, TEXTS, TIMES))),
    st.sampled_from([None, LATE, replace(LATE, missing="keep"), replace(LATE, delay="1h")]),
)
ROWS = st.fixed_dictionaries(
    {"id": st.just("x"), "at": st.just(WHEN)},
    optional={
        "n": st.sampled_from([None, -1.0, 0.0, 0.5, 1.0, 2, 3.0, 4.0]),
        "c": st.sampled_from([None, "", "a", "b", "d", "z", "\0"]),
        "t": st.sampled_from([None, "", "a", "ab", "abb", "zz"]),
        "s": st.sampled_from([None, WHEN, "2026-01-01 00:00:00", "2026-01-01T00:00:00Z"]),
        "late": st.sampled_from([None, True, False]),
    },
)


@examples(100)
@given(CONTRACTS, CONTRACTS, st.lists(ROWS, max_size=12))
def test_a_compatible_change_refuses_nothing_that_was_valid(
    old: Contract, new: Contract, rows: list[dict[str, Any]]
) -> None:
    evolution = compare(old, new)
    for boundary, request in ((Boundary.ROWS, False), (Boundary.CALLERS, True)):
        if evolution.at(boundary) is Compatibility.COMPATIBLE:
            before, after = compile_row(old, request=request), compile_row(new, request=request)
            for row in rows:
                assert before(row) or not after(row)


@examples(50)
@given(CONTRACTS, CONTRACTS)
def test_only_equal_contracts_do_not_differ(old: Contract, new: Contract) -> None:
    assert (compare(old, new).changes == ()) == (old.hash == new.hash)
    assert compare(old, old).changes == ()


# --- rules, uniqueness, meanings --------------------------------------------------------------------------------------

SHORT = Rule("short", col("v") <= 5)


def test_rules_and_uniqueness() -> None:
    n = Integer("n")
    assert compare(contract(V), contract(V, rules=(SHORT,))).kind is Compatibility.BREAKING
    assert whats(contract(V, rules=(SHORT,)), contract(V)) == {Difference.RULE_REMOVED}
    assert whats(contract(V, rules=(SHORT,)), contract(V, rules=(Rule("short", col("v") <= 6),))) == {
        Difference.RULE_ADDED
    }
    assert whats(contract(n), contract(n, unique=("n",))) == {Difference.UNIQUE_ADDED}
    assert compare(contract(n, unique=("n",)), contract(n)).kind is Compatibility.COMPATIBLE
    row = {"id": "x", "at": WHEN, "v": 6.0}
    assert compile_row(contract(V), request=True)(row) == ()
    assert compile_row(contract(V, rules=(SHORT,)), request=True)(row) == ("short|rule",)


def test_aliases() -> None:
    """An alias that no loaded row can contradict is compatible; one that changes what rows mean is not."""
    known = replace(WORD, aliases={"A": "a"})
    assert compare(contract(WORD), contract(known)).kind is Compatibility.COMPATIBLE
    removed = compare(contract(known), contract(WORD))
    assert (removed.kind, removed.misreadings) == (Compatibility.BREAKING, ())
    changed = compare(contract(known), contract(replace(WORD, aliases={"A": "b"})))
    assert [change.what for change in changed.misreadings] == [Difference.ALIAS_CHANGED]
    assert changed.changes[0].difference == "w: alias stands for another word ('A' is 'a' -> 'A' is 'b')"
    # A word that was one of its own: two become one.
    assert whats(
        contract(WORD), contract(Category("w", values=("a",), unseen="reject", aliases={"b": "a"}))
    ) == {Difference.WORDS_MERGED}
    # What is compared word by word may refuse or repeat what was valid.
    open_alias = replace(OPEN, aliases={"A": "a"})
    rules = (Rule("no_a", col("w") != "a"),)
    assert whats(contract(OPEN, rules=rules), contract(open_alias, rules=rules)) == {Difference.WORDS_MERGED}
    assert whats(contract(OPEN, unique="w"), contract(open_alias, unique="w")) == {Difference.WORDS_MERGED}
    keys = {"key": ("id", "w")}
    assert whats(contract(OPEN, **keys), contract(open_alias, **keys)) == {Difference.KEY}
    assert whats(contract(WORD, **keys), contract(known, **keys)) == {Difference.ALIAS_ADDED}


def test_what_a_column_means() -> None:
    """R20: a zip code that becomes a cost has no row that shows it."""
    zip_code, cost = replace(V, semantic="postal_code"), replace(V, semantic="price")
    assert compare(contract(zip_code), contract(cost)).kind is Compatibility.BREAKING
    assert compare(contract(V), contract(cost)).kind is Compatibility.EXPAND_CONTRACT
    assert compare(contract(cost), contract(V)).kind is Compatibility.COMPATIBLE
