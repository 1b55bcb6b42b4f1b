"""Waiting for commits, on SQLite and on PostgreSQL: of this and of other processes, and none that nothing follows from."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.store import Store
from holdfast.store.db import commit_listener, events, leases
from holdfast.store.db.commit_listener import CommitListener
from holdfast.store.rollout.plan_watch import Changes
from tests.support.postgres import Server
from tests.support.queries import write
from tests.support.waiting import wait_until

LONG = 60.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def commit(store: Store) -> None:
    write(store, events.append, at_us=1, kind="a.kind", subject="s", explanation="e")


def renew(store: Store) -> None:
    with store.ledger.write(quiet=True) as connection:
        leases.acquire(connection, "control-m", holder="h", duration_us=1, now_us=1)


def listen(store: Store) -> CommitListener:
    listener = store.ledger.listen()
    listener.wait(0.0)  # PostgreSQL is subscribed to by the first wait
    assert listener.is_nudged
    return listener


@pytest.mark.usefixtures("each_ledger")
def test_a_commit_ends_the_wait_of_each_listener_and_a_quiet_one_does_not(store: Store) -> None:
    first, second = listen(store), listen(store)
    renew(store)
    assert not first.wait(0.0)
    commit(store)
    for listener in (first, second):
        assert listener.wait(LONG)
        assert not listener.wait(0.0)
    with pytest.raises(ZeroDivisionError), store.ledger.write():
        1 / 0  # noqa: B018
    assert not first.wait(0.0)
    first.close()
    commit(store)
    assert second.wait(LONG)
    second.close()
    store.ledger.close()


@pytest.mark.usefixtures("each_ledger")
def test_the_revision_changes_with_a_commit_and_not_with_a_lease(store: Store) -> None:
    """Issue 13: the renewals of an idle control loop give no server anything to read."""
    changes = Changes(store, "m")
    assert changes.since_last()
    renew(store)
    assert not changes.since_last()
    commit(store)
    assert changes.since_last()
    assert not changes.since_last()
    changes.close()
    store.ledger.close()


def test_a_lost_connection_is_opened_again(
    tmp_path: Path, own_postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_listener, "RETRY_SECONDS", 0.0)
    own_postgres.execute("CREATE DATABASE lost")
    store = Store.open(tmp_path, own_postgres.url("lost", "postgresql+psycopg"))
    listener = listen(store)
    own_postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    assert listener.wait(LONG)  # a waiting process looks for itself

    def is_lost() -> bool:
        listener.wait(0.0)
        return not listener.is_nudged

    wait_until(is_lost, "the loss is noticed")
    wait_until(lambda: not is_lost(), "it is opened again")
    commit(store)
    assert listener.wait(LONG)
    listener.close()
    store.ledger.close()
