"""A batch is backed out under a real server: the clean version answers, and values that nothing supports are gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from sqlalchemy import insert, update

from holdfast.contract import Category, Contract, Number, Text, Timestamp
from holdfast.control.backout.backout import execute_backout
from holdfast.control.ingest.ingest import ingest
from holdfast.features import Aggregate, OnlineTable
from holdfast.feeds import Feed
from holdfast.records import BatchId
from holdfast.rollout import Canary
from holdfast.serve.follower.local_copy import LocalCopy
from holdfast.serve.follower.online_features import OnlineFeatureFollower
from holdfast.store import Store
from holdfast.store.catalog import online_features, snapshots
from holdfast.store.db import schema
from holdfast.store.models import versions
from tests.support.queries import read, write

if TYPE_CHECKING:
    from conftest import Served, World

DEPARTURES = Feed(
    "departures",
    Contract(
        Text("id"),
        Category("origin"),
        Number("delay", unit="min", missing="keep"),
        Timestamp("left", tz="UTC"),
        key="id",
        event_time="left",
    ),
)
NOW_US = 1_700_000_000_000_000


def _load(store: Store, directory: Path, recent: Aggregate, start: Any, batch: str, delay: float) -> None:
    path = directory / f"{batch}.parquet"
    timestamps = [start + timedelta(minutes=20 * n) for n in range(3)]
    pl.DataFrame(
        {
            "id": [f"{batch}{n}" for n in range(3)],
            "origin": ["EWR"] * 3,
            "delay": [delay] * 3,
            "left": timestamps,
        }
    ).write_parquet(path)
    ingest(store, DEPARTURES, batch, path, now_us=NOW_US, aggregates=[recent])


def test_a_live_tainted_version_gives_way_while_requests_are_served(
    world: World, serve: Callable[..., Served], tmp_path: Path
) -> None:
    """R7, R9: no request fails on the way."""
    world.version("half")
    world.plan("half")
    recent = Aggregate(
        "recent_delay",
        over="departures",
        by="origin",
        value="delay",
        known_at="left",
        window="3h",
        every="10min",
    )
    timestamp = pl.select(pl.datetime(2013, 3, 1, time_zone="UTC")).item()
    _load(world.store, tmp_path, recent, timestamp, "bad", 59.0)
    snapshot = write(
        world.store, snapshots.create, world.store.root, ["departures"], contract_hash="c", now_us=NOW_US
    )
    bad = world.version("tenth")
    with world.store.ledger.write() as connection:
        connection.execute(
            update(schema.versions).where(schema.versions.c.version == bad).values(snapshot=snapshot.snapshot)
        )
        connection.execute(update(schema.versions).values(state="qualified"))
        connection.execute(
            insert(schema.rollouts).values(
                model="flight-delay", challenger=bad, champion=world.names["half"], state="promoted", step=0,
                policy_json=Canary().to_json(), started_at_us=1, step_started_at_us=1, changed_at_us=1,
                reason="test", actor="test",
            )
        )  # fmt: skip
    world.plan("tenth", previous="half")
    served = serve()
    assert served.infer()[1]["model_version"] == bad
    before = served.call("/holdfast/status")[1]["plan"]
    done = execute_backout(
        world.store,
        [DEPARTURES],
        BatchId("departures", "bad"),
        reason="wrong unit",
        actor="ann",
        now_us=NOW_US,
    )
    assert done.plan.versions == (bad,)
    responded = []
    for _ in range(400):
        status, response = served.infer()
        assert status == 200
        responded.append(response["model_version"])
        if responded[-1] != bad:
            break
    assert responded[-1] == world.names["half"]
    served.wait(lambda status: status["plan"] > before)
    assert read(world.store, versions.champion, "flight-delay") == read(
        world.store, versions.get, world.names["half"]
    )


class _Version:
    """What a follower reads of a loaded version: the aggregates that it is given."""

    def __init__(self, *aggregates: Aggregate) -> None:
        self.aggregates = aggregates


def test_a_follower_and_its_local_copy_forget_what_was_backed_out(tmp_path: Path) -> None:
    """After the back-out table and copy hold what a server holds that starts on a store that never saw the batch."""
    recent = Aggregate(
        "recent_delay",
        over="departures",
        by="origin",
        value="delay",
        known_at="left",
        window="3h",
        every="10min",
    )
    timestamp = pl.select(pl.datetime(2013, 3, 1, time_zone="UTC")).item()
    store = Store.open(tmp_path / "store")
    loaded: dict[str, Any] = {"v1": _Version(recent)}
    table, copy = OnlineTable(), LocalCopy(tmp_path / "copy")
    values = OnlineFeatureFollower(table, copy)
    _load(store, tmp_path, recent, timestamp, "good", 10.0)
    _load(store, tmp_path, recent, timestamp + timedelta(hours=1), "bad", 59.0)
    values.follow(store, loaded)
    at_us = round((timestamp + timedelta(hours=2)).timestamp() * 1e6)
    assert table.lookup(recent.key, "EWR", at_us, recent.window_us) == 34.5
    execute_backout(
        store, [DEPARTURES], BatchId("departures", "bad"), reason="wrong unit", actor="ann", now_us=NOW_US
    )
    values.follow(store, loaded)
    write = values.pending_write(store, loaded)
    assert write is not None
    assert write(copy)
    assert values.pending_write(store, loaded) is None
    assert table.lookup(recent.key, "EWR", at_us, recent.window_us) == 10.0

    clean = Store.open(tmp_path / "clean")
    _load(clean, tmp_path, recent, timestamp, "good", 10.0)
    fresh = OnlineTable()
    OnlineFeatureFollower(fresh, LocalCopy(tmp_path / "unused")).follow(clean, loaded)
    restarted = OnlineTable()
    OnlineFeatureFollower(restarted, copy).start_from_copy()
    for minutes in range(0, 480, 10):
        at_us = round((timestamp + timedelta(minutes=minutes)).timestamp() * 1e6)
        wanted = fresh.lookup(recent.key, "EWR", at_us, recent.window_us)
        for each in (table, restarted):
            assert repr(each.lookup(recent.key, "EWR", at_us, recent.window_us)) == repr(wanted)
    assert len(table) == len(restarted) == len(fresh)
    with store.ledger.read() as connection:
        assert any(value.value is None for value in online_features.since(connection, [recent.key], 0)[1])
