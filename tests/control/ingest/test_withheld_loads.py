"""R15: what is held back from training is held back from servers too, in every order of loads, acceptances and back-outs."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from holdfast.contract import Category, Contract, Number, Text, Timestamp
from holdfast.control import daemon
from holdfast.control.backout import backout
from holdfast.control.ingest import acceptance, online_features
from holdfast.control.ingest.ingest import ingest
from holdfast.errors import ConflictError, NotFoundError
from holdfast.features import Aggregate
from holdfast.features.asof import aggregate_rows
from holdfast.feeds import Expectations, Feed, Reference
from holdfast.records import BatchId
from holdfast.store import Store
from holdfast.store.catalog import batches, snapshots
from holdfast.store.catalog import online_features as stored
from holdfast.store.db import leases
from holdfast.store.durability import failpoints
from holdfast.store.feeds import violations
from holdfast.store.files import data_files

CONTRACT = Contract(
    Text("id"), Category("e"), Number("x", unit="1"), Timestamp("at", tz="UTC"), key="id", event_time="at"
)
STRICT = Expectations(max_future="1d", duplicate_keys=None)
FEEDS = tuple(Feed(name, CONTRACT, group="books", expects=STRICT) for name in ("orders", "prices", "taxes"))
AGGREGATES = tuple(
    Aggregate("mean_x", over=name, by="e", value="x", known_at="at", window="48h", every="6h")
    for name in ("orders", "prices")
)
GROUPS = {feed.name: feed.membership for feed in FEEDS}
START = datetime(2024, 1, 1, tzinfo=UTC)
LATE_US = 2**52
"""A time of loading that is later than every event."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def load(store: Store, feed: Feed, day: int, *, suspect: bool = False, take: int = 0) -> None:
    """Load one day; a batch from the future is suspect."""
    path = store.root.parent / f"{feed.name}-{day}-{take}.parquet"
    times = [START + timedelta(days=day, hours=3 * n) for n in range(8)]
    pl.DataFrame(
        {
            "id": [f"{feed.name}-{day}-{take}-{n}" for n in range(8)],
            "e": ["ab"[n % 2] for n in range(8)],
            "x": [day + take / 8 + n / 64 for n in range(8)],
            "at": times,
        }
    ).write_parquet(path)
    now_us = 1 if suspect else LATE_US
    ingest(store, feed, f"{feed.name}-{day}", path, now_us=now_us, aggregates=AGGREGATES)


def served(store: Store, aggregate: Aggregate) -> list[tuple[str, int, float | None]]:
    with store.ledger.read() as connection:
        _, values = stored.since(connection, [aggregate.key], 0)
    return sorted((each.entity, each.known_at_us, each.value) for each in values if each.value is not None)


def trained(store: Store, aggregate: Aggregate) -> list[tuple[str, int, float | None]]:
    """The values of the rows that a new snapshot would have, without the suspect batches that it is refused with."""
    with store.ledger.read() as connection:
        held = [
            *snapshots.waiting(connection, GROUPS),
            *violations.suspect_loads(connection, aggregate.over),
        ]
        found = data_files.entries(
            connection, aggregate.over, batches.current_version(connection), excluded=held
        )
    rows = data_files.read(store.root, found)
    return sorted(aggregate_rows(aggregate, rows).rows()) if rows.height else []


def assert_same(store: Store) -> None:
    for aggregate in AGGREGATES:
        assert served(store, aggregate) == trained(store, aggregate)


@pytest.mark.parametrize("seed", range(6))
def test_servers_read_what_would_be_trained_on_after_every_operation(store: Store, seed: int) -> None:
    """Against brute force: any order of loads, suspect or not, acceptances and back-outs of three feeds of one group."""
    chance, withheld, takes = random.Random(seed), 0, 0
    for _ in range(14):
        feed, day = chance.choice(FEEDS), chance.randrange(4)
        batch = BatchId(feed.name, f"{feed.name}-{day}")
        operation = chance.choices(("load", "accept", "incomplete", "back out"), (6, 2, 1, 2))[0]
        with suppress(
            NotFoundError, ConflictError
        ):  # an acceptance or back-out of nothing, a batch that is there
            if operation == "load":
                takes += 1
                load(store, feed, day, suspect=chance.random() < 0.3, take=takes)
            elif operation == "accept":
                acceptance.accept(store, batch, reason="seen", actor="ann", now_us=LATE_US)
            elif operation == "incomplete":
                acceptance.accept_incomplete(store, batch, GROUPS, reason="seen", actor="ann", now_us=LATE_US)
            else:
                backout.execute_backout(store, FEEDS, batch, reason="wrong", actor="ann", now_us=LATE_US)
        assert_same(store)
        with store.ledger.read() as connection:
            withheld += len(snapshots.waiting(connection, GROUPS))
    assert withheld, "no batch was held back: the seed shows nothing"


def test_a_batch_is_served_when_its_group_is_complete(store: Store) -> None:
    orders, prices, taxes = FEEDS
    for feed in FEEDS:
        load(store, feed, 0)
    before = served(store, AGGREGATES[0])
    load(store, orders, 1)
    load(store, prices, 1)
    assert served(store, AGGREGATES[0]) == before
    load(store, taxes, 1)
    assert len(served(store, AGGREGATES[0])) > len(before)
    assert_same(store)


def test_the_first_batch_of_a_feed_holds_older_ones_back(store: Store) -> None:
    """A feed that begins to deliver with an old day makes the newer days of the others incomplete."""
    orders, prices = FEEDS[:2]
    for day in (3, 4):
        load(store, orders, day)
    assert served(store, AGGREGATES[0])
    load(store, prices, 1)
    assert served(store, AGGREGATES[0]) == []
    assert_same(store)


def test_a_batch_that_a_back_out_makes_suspect_is_served_no_more(store: Store) -> None:
    shops = Feed("shops", CONTRACT)
    sales = replace(FEEDS[0], group=None, expects=Expectations(references=(Reference("e", "shops", "e"),)))
    load(store, shops, 0)
    load(store, sales, 0)
    assert served(store, AGGREGATES[0])
    backout.execute_backout(
        store, (shops, sales), BatchId("shops", "shops-0"), reason="wrong", actor="ann", now_us=LATE_US
    )
    assert served(store, AGGREGATES[0]) == []


def test_a_killed_load_is_completed_by_the_control_loop(store: Store) -> None:
    """The load that completes the group is committed, and its process ends before the others' values are computed."""
    for feed in FEEDS[:2]:
        load(store, feed, 0)
    load(store, FEEDS[0], 1)

    def die(name: str) -> None:
        if name == "commit.after_commit":
            raise KeyboardInterrupt

    failpoints.armed = die
    try:
        with pytest.raises(KeyboardInterrupt):
            load(store, FEEDS[1], 1)
    finally:
        failpoints.armed = None
    assert served(store, AGGREGATES[0]) != trained(store, AGGREGATES[0])
    concern = daemon.concerns()["keeping online values in step"]
    concern(store, "m", leases.Lease("control-m", "t", 1, 1), now_us=LATE_US)
    assert_same(store)


def test_nothing_is_written_when_nothing_changed(store: Store) -> None:
    for feed in FEEDS:
        load(store, feed, 0)
    with store.ledger.read() as connection:
        version = batches.current_version(connection)
    assert online_features.refresh(store, now_us=LATE_US) == 0
    with store.ledger.read() as connection:
        assert batches.current_version(connection) == version
