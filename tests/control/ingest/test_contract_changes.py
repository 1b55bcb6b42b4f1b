"""Contracts are compared with those of the rows that are there; an error names the change that cures it."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.contract import Category, Contract, Integer, Number, Timestamp
from holdfast.control.backout.backout import execute_backout
from holdfast.control.ingest.ingest import ingest
from holdfast.errors import RefusedError
from holdfast.feeds import Feed
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.feeds import contracts
from tests.support.queries import read

COLUMNS = (Integer("id"), Timestamp("at", tz="UTC"))


def _feed(*columns: Category | Number) -> Feed:
    return Feed("sales", Contract(*COLUMNS, *columns, key="id", event_time="at"))


def _load(store: Store, directory: Path, feed: Feed, day: int) -> None:
    path = directory / f"{day}-{len(feed.contract.names)}.csv"
    extra = feed.contract.names[2:]
    path.write_text(f"{','.join(feed.contract.names)}\n{day},2026-01-{day:02}T10:00:00Z{',1' * len(extra)}\n")
    ingest(store, feed, f"d{day}", path, now_us=7)


def test_what_was_backed_out_refuses_no_contract(tmp_path: Path) -> None:
    """The only batch of a contract is gone: neither `contract history` nor `ingest` knows it any more."""
    store = Store.open(tmp_path / "store")
    plain, channel = _feed(), _feed(Category("channel", missing="keep"))
    _load(store, tmp_path, plain, 1)
    _load(store, tmp_path, channel, 2)
    with pytest.raises(RefusedError, match="HF210"):
        _load(store, tmp_path, _feed(Number("channel", unit="1", missing="keep")), 3)
    execute_backout(store, (channel,), BatchId("sales", "d2"), reason="wrong", actor="ann", now_us=8)
    assert [use.contract_hash for use in read(store, contracts.uses, "sales")] == [plain.contract.hash]
    _load(store, tmp_path, _feed(Number("channel", unit="1", missing="keep")), 3)


def test_after_the_last_batch_is_backed_out_any_contract_may_come(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    feed = _feed(Number("size", unit="cm"))
    _load(store, tmp_path, feed, 1)
    execute_backout(store, (feed,), BatchId("sales", "d1"), reason="wrong", actor="ann", now_us=8)
    _load(store, tmp_path, _feed(Number("size", unit="m")), 2)


@pytest.mark.parametrize(
    ("before", "after", "cure"),
    [
        ((), (Category("channel"),), 'declare channel with missing="keep"; or'),
        (
            (Number("size", unit="cm"),),
            (Number("size", unit="m"), Category("channel")),
            'declare channel with missing="keep" and revert size in the declaration, or give what changed',
        ),
        ((Category("channel"),), (), 'declare channel with missing="keep", or accept the change: holdfast'),
    ],
)
def test_the_next_command_names_the_cure(tmp_path: Path, before, after, cure) -> None:
    store = Store.open(tmp_path / "store")
    _load(store, tmp_path, _feed(*before), 1)
    with pytest.raises(RefusedError, match="HF210") as refused:
        _load(store, tmp_path, _feed(*after), 2)
    assert refused.value.next_command.startswith(cure)
