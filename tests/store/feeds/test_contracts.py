"""R92, R93: every contract that judged a row is kept, and a changed one is reported, warned of or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.contract import Contract, Integer, Number, Timestamp
from holdfast.contract.evolution.compatibility import Compatibility, Difference
from holdfast.control.ingest import contract_changes as changing
from holdfast.control.ingest import ingest as loading
from holdfast.control.ingest.admit import AdmittedBatch
from holdfast.control.ingest.ingest import ingest
from holdfast.control.ingest.outcome import LoadResult, Retry
from holdfast.errors import NotFoundError, RefusedError
from holdfast.feeds import Feed
from holdfast.records import Level
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.feeds import contracts

pytestmark = pytest.mark.usefixtures("each_ledger")

V = Number("v", unit="mi", low=0, high=10, semantic="trip")
KEEP = replace(V, name="w", missing="keep")


def feed(*columns: Number | Integer, key: tuple[str, ...] = ("id",), tz: str = "UTC") -> Feed:
    return Feed("pings", Contract(Integer("id"), Timestamp("at", tz=tz), *columns, key=key, event_time="at"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one batch of pings, loaded under the contract whose one number is V."""
    store = Store.open(tmp_path / "store")
    data = tmp_path / "one.csv"
    data.write_text("id,at,v\n1,2026-01-01T00:00:00Z,1.5\n")
    ingest(store, feed(V), "one", data, now_us=1)
    with store.ledger.write() as connection:
        contracts.put(connection, feed(V).contract, now_us=1)
    return store


def checked(store: Store, changed: Feed) -> changing.ContractChange | None:
    with store.ledger.read() as connection:
        return changing.check(connection, changed)


def test_the_same_contract_and_the_first_one_are_no_change(store: Store, tmp_path: Path) -> None:
    assert checked(store, feed(V)) is None
    assert checked(Store.open(tmp_path / "empty"), feed(KEEP)) is None


def test_a_compatible_change_goes_on_and_is_reported(store: Store) -> None:
    wider = feed(replace(V, high=11))
    change = checked(store, wider)
    assert change is not None
    assert (change.evolution and change.evolution.kind, change.violations) == (Compatibility.COMPATIBLE, ())
    with store.ledger.write() as connection:
        changing.record(connection, wider.contract, change, now_us=2)
        changing.record(connection, wider.contract, None, now_us=3)
        (reported,) = events.newest(connection, kind=changing.CHANGED)
        assert [row.first_used_at_us for row in contracts.everything(connection)] == [1, 2]
    assert (reported.subject, "bound widened" in reported.explanation) == ("pings", True)


def test_a_change_that_senders_must_follow_goes_on_with_a_warning(store: Store) -> None:
    change = checked(store, feed(V, KEEP))
    assert change is not None
    (violation,) = change.violations
    assert (violation.check, violation.subject, violation.level) == ("contract", "w", Level.WARNING)


def test_a_breaking_change_is_refused_until_a_person_accepts_it(store: Store) -> None:
    """HF210 names every difference and the command; what was accepted is this change and no other."""
    narrower = feed(replace(V, high=9))
    with pytest.raises(
        RefusedError, match=r"HF210.*v: bound narrowed \(10\.0 -> 9\.0\).*contract accept pings"
    ):
        checked(store, narrower)
    changing.accept(store, narrower, reason="the sensor ends at 9", actor="ann", now_us=5)
    change = checked(store, narrower)
    assert change is not None
    assert (change.accepted, [violation.level for violation in change.violations]) == (True, [Level.WARNING])
    assert change.violations[0].explanation == "v: bound narrowed (10.0 -> 9.0), accepted by an operator"
    with store.ledger.read() as connection:
        (reported,) = events.newest(connection, kind=contracts.ACCEPTED)
    assert (reported.actor, reported.explanation.startswith("the sensor ends at 9; contract")) == (
        "ann",
        True,
    )
    with pytest.raises(RefusedError, match="HF210"):
        checked(store, feed(replace(V, high=8)))


MISREAD = {
    "unit": feed(replace(V, unit="km")),
    "meaning": feed(replace(V, semantic="detour")),
    "type": feed(Integer("v", unit="mi", low=0, high=10)),
    "name": feed(replace(V, name="w")),
    "a column that every row has": feed(V, replace(V, name="w")),
    "key": feed(V, key=("id", "at")),
}


@pytest.mark.parametrize("changed", MISREAD.values(), ids=MISREAD)
def test_no_person_accepts_that_live_rows_are_read_wrongly(store: Store, changed: Feed) -> None:
    """HF210 reports how many rows of which batches; once those are gone, nothing needs to be accepted."""
    wrong = r"HF210.*'pings' would read 1 live rows wrongly, those of one under contract [0-9a-f]{12}: "
    for _ in range(2):
        with pytest.raises(RefusedError, match=wrong) as refused:
            changing.accept(store, changed, reason="they follow", actor="ann", now_us=5)
        with pytest.raises(RefusedError, match=wrong):
            checked(store, changed)
        kept = changed == MISREAD["a column that every row has"]
        cure = 'declare w with missing="keep"' if kept else "column of its own name"
        assert cure in str(refused.value.next_command)
        assert "holdfast backout pings one" in str(refused.value.next_command)
    with store.ledger.write() as connection:
        assert events.newest(connection, kind=contracts.ACCEPTED) == []
        connection.exec_driver_sql("UPDATE batches SET state = 'backed_out'")
    assert checked(store, changed) is None
    with pytest.raises(NotFoundError, match=r"HF410.*has no loaded batch"):
        changing.accept(store, changed, reason="they are gone", actor="ann", now_us=5)


def test_what_was_free_while_no_row_was_there_is_refused_when_one_came_meanwhile(
    store: Store, tmp_path: Path
) -> None:
    with store.ledger.write() as connection:
        connection.exec_driver_sql("UPDATE batches SET state = 'backed_out'")
    assert checked(store, MISREAD["unit"]) is None
    data = tmp_path / "two.csv"
    data.write_text("id,at,v\n2,2026-01-02T00:00:00Z,2.5\n")
    ingest(store, feed(V), "two", data, now_us=6)
    with pytest.raises(RefusedError, match=r"HF210.*those of two under"):
        checked(store, MISREAD["unit"])


def test_a_column_that_comes_back_with_another_meaning_is_held_against_every_live_row(
    store: Store, tmp_path: Path
) -> None:
    """Miles, then no column, then kilometres: each step alone is harmless to what was there before it."""
    data = tmp_path / "two.csv"
    kept = replace(V, missing="keep")
    for number, columns in enumerate([(kept,), ()]):
        head, values = ("id,at,v", ",2.5") if columns else ("id,at", "")
        data.write_text(f"{head}\n{number + 5},2026-01-0{number + 2}T00:00:00Z{values}\n")
        ingest(store, feed(*columns), f"b{number}", data, now_us=6)
    with pytest.raises(RefusedError, match=r"HF210.*those of one under.*v: unit changed \(mi -> km\)"):
        checked(store, feed(replace(kept, unit="km")))


def test_timestamps_and_missing_values_stay_right(store: Store) -> None:
    """Another zone, fewer missing values, narrower bounds: a person may declare that senders follow."""
    changed = feed(replace(V, high=9), tz="Asia/Tokyo")
    change = changing.accept(store, changed, reason="one clock", actor="ann", now_us=5)
    assert change.evolution
    assert {each.what for each in change.evolution.changes} == {Difference.ZONE, Difference.BOUND_NARROWED}


@pytest.mark.parametrize("second", ["km", "mi"])
def test_two_loads_under_two_contracts_at_once_are_judged_one_after_the_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    """The other load commits between the check and the publication of this one."""
    empty, real, met = Store.open(tmp_path / "empty"), loading.commit, []

    def meet(store: Store, batch: AdmittedBatch, *, begun_at_us: int, now_us: int) -> LoadResult | Retry:
        if not met:
            met.append(batch)
            load("meanwhile", feed(V))
        return real(store, batch, begun_at_us=begun_at_us, now_us=now_us)

    def load(batch: str, changed: Feed) -> None:
        data = tmp_path / f"{batch}.csv"
        data.write_text(f"id,at,v\n{len(batch)}{len(met)},2026-01-01T00:00:0{len(met)}Z,1.5\n")
        ingest(empty, changed, batch, data, now_us=1)

    monkeypatch.setattr(loading, "commit", meet)
    if second == "km":
        with pytest.raises(RefusedError, match=r"HF210.*unit changed \(mi -> km\)"):
            load("later", feed(replace(V, unit="km")))
    else:
        load("later", feed(V))
    with empty.ledger.read() as connection:
        (use,) = contracts.uses(connection, "pings")
    assert use.batches == (1 if second == "km" else 2)


def test_nothing_to_accept_is_reported(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no change to accept"):
        changing.accept(store, feed(V), reason="x", actor="ann", now_us=5)


def test_a_contract_that_was_never_kept_is_compared_with_nothing_and_reports_it(
    tmp_path: Path, store: Store
) -> None:
    """Rows of an older Holdfast: its ledger has the hashes of contracts only."""
    with store.ledger.write() as connection:
        connection.exec_driver_sql("DELETE FROM contracts")
    change = checked(store, feed(replace(V, high=9)))
    assert change is not None
    assert (change.evolution, [violation.level for violation in change.violations]) == (None, [Level.WARNING])


def test_contracts_are_found_by_the_beginning_of_their_hash(store: Store) -> None:
    kept = feed(V).contract
    with store.ledger.read() as connection:
        assert contracts.get(connection, kept.hash[:8]) == kept
        assert contracts.find(connection, "0" * 64) is None
        (use,) = contracts.uses(connection, "pings")
        assert (use.contract_hash, use.batches, use.rows_loaded) == (kept.hash, 1, 1)
        for beginning in (kept.hash[:5], "%%%%%%", "ffffffff"):
            with pytest.raises(NotFoundError, match="HF303"):
                contracts.get(connection, beginning)
