"""The control loop moves servers through the states of a member and polls the living alone; an operator forgets the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from holdfast.control import loop as control_loop
from holdfast.control.health.facts import FactsReader
from holdfast.control.probing import membership
from holdfast.errors import ConflictError, NotFoundError
from holdfast.monitor.health import judge_health
from holdfast.records import Verdict
from holdfast.rollout.model.membership import LOST_US, SILENT_US, MemberState
from holdfast.rollout.model.server_name import Heartbeat, Stated
from holdfast.store import Store
from holdfast.store.db import events, schema
from holdfast.store.db.leases import Lease
from holdfast.store.serving import log_directory, members, servers
from holdfast.store.serving.members import Conflict
from holdfast.store.serving.servers import Probe, Server

pytestmark = pytest.mark.usefixtures("each_ledger")
MODEL = "m"
NOW_US = 1_760_000_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path / "store")
    yield made
    made.ledger.close()


@pytest.fixture
def lease(store: Store) -> Lease:
    found = control_loop.request_lease(
        store, f"control-{MODEL}", holder="t", duration_us=10**9, clock_us=lambda: NOW_US, seen=None
    )
    assert isinstance(found, Lease)
    return found


def server(name: str, directory: Path = Path("/nowhere")) -> Server:
    return Server(name, MODEL, f"http://{name}:1", directory, 1, f"boot-{name}", "0.1", f"host-{name}")


def announce(store: Store, found: Server, stated: Stated = Stated.SERVING) -> None:
    with store.ledger.write() as connection:
        members.take(connection, found, Heartbeat(1, "x"), kernel="", stated=stated, tagged_from_segment=1)


def age(store: Store, name: str, *, heard_us: int = 0, state_us: int = 0) -> None:
    """Let time pass for one server, by the ledger's clock."""
    here = schema.members.c
    with store.ledger.write() as connection:
        connection.execute(
            update(schema.members)
            .where(here.server == name)
            .values(heard_at_us=here.heard_at_us - heard_us, since_us=here.since_us - state_us)
        )


def look(store: Store, lease: Lease) -> dict[str, MemberState | None]:
    membership.follow(store, MODEL, lease, now_us=NOW_US)
    with store.ledger.read() as connection:
        return {each.server.server: each.state for each in members.of_model(connection, MODEL)}


def polled(store: Store) -> list[str]:
    with store.ledger.read() as connection:
        return [each.server for each in members.polled(connection, MODEL)]


def kinds(store: Store, name: str) -> list[str]:
    with store.ledger.read() as connection:
        return [each.kind for each in reversed(events.newest(connection, subject=f"server/{name}"))]


def problems(store: Store) -> set[tuple[str, str]]:
    with store.ledger.read() as connection:
        known = members.of_model(connection, MODEL)
    assert known
    found = judge_health(FactsReader(store, MODEL).read(now_us=NOW_US)).problems
    return {(each.kind, each.subject) for each in found if each.kind.startswith("server_")}


def test_a_server_that_is_not_heard_from_is_silent_then_lost_and_no_longer_polled(
    store: Store, lease: Lease
) -> None:
    announce(store, server("a"))
    announce(store, server("b"))
    assert look(store, lease) == {"a": MemberState.PRESENT, "b": MemberState.PRESENT}
    age(store, "a", heard_us=SILENT_US)
    assert look(store, lease)["a"] is MemberState.SILENT
    assert polled(store) == ["a", "b"], "a silent server may serve"
    age(store, "a", heard_us=LOST_US, state_us=LOST_US)
    assert look(store, lease)["a"] is MemberState.LOST
    assert polled(store) == ["b"]
    assert problems(store) == {("server_lost", "a")}
    assert kinds(store, "a") == ["server.silent", "server.lost"]
    with store.ledger.write() as connection:
        members.beat(connection, "a", Heartbeat(2, "y"), Stated.SERVING)
    assert look(store, lease)["a"] is MemberState.PRESENT
    assert (polled(store), problems(store)) == (["a", "b"], set())


def test_a_ledger_that_was_away_for_an_hour_makes_no_server_lost(store: Store, lease: Lease) -> None:
    announce(store, server("a"))
    age(store, "a", heard_us=6 * LOST_US, state_us=6 * LOST_US)
    assert look(store, lease)["a"] is MemberState.SILENT, "it may write its heartbeat in a second"
    with store.ledger.write() as connection:
        members.beat(connection, "a", Heartbeat(2, "y"), Stated.SERVING)
    assert look(store, lease)["a"] is MemberState.PRESENT


def test_a_server_that_responds_is_present_although_it_writes_no_heartbeat(
    store: Store, lease: Lease
) -> None:
    announce(store, server("a"))
    age(store, "a", heard_us=2 * LOST_US)
    probe = Probe("a", MODEL, 1, "v1", "v1", Verdict.FAIL, "another plan", NOW_US)
    with store.ledger.write() as connection:
        servers.record_probe(connection, probe, lease)
    assert look(store, lease)["a"] is MemberState.PRESENT


def test_a_server_drains_and_is_gone_with_its_statement(store: Store, lease: Lease) -> None:
    announce(store, server("a"))
    announce(store, server("b"))
    for stated, state in ((Stated.DRAINING, MemberState.DRAINING), (Stated.ENDED, MemberState.GONE)):
        with store.ledger.write() as connection:
            members.beat(connection, "a", Heartbeat(2, "y"), stated)
        assert look(store, lease)["a"] is state
    assert kinds(store, "a") == ["server.draining", "server.gone"]
    assert look(store, lease)["a"] is MemberState.GONE
    assert len(kinds(store, "a")) == 2
    assert polled(store) == ["b"]


def test_a_killed_server_of_this_machine_is_gone_at_once_and_comes_back(
    store: Store, lease: Lease, tmp_path: Path
) -> None:
    claimed = log_directory.claim(tmp_path / "log", MODEL)
    found = Server(claimed.server, MODEL, "http://a:1", claimed.directory, 1, claimed.boot_id, "0.1", "a")
    announce(store, found)
    assert look(store, lease) == {found.server: MemberState.PRESENT}
    claimed.release()
    assert look(store, lease) == {found.server: MemberState.GONE}
    assert polled(store) == [found.server], "the last one stays visible"
    again = log_directory.claim(tmp_path / "log", MODEL)
    announce(store, Server(again.server, MODEL, "http://a:1", again.directory, 2, again.boot_id, "0.1", "a"))
    assert look(store, lease) == {found.server: MemberState.PRESENT}
    again.release()


def test_a_directory_of_the_same_path_proves_nothing_of_another_host(
    store: Store, lease: Lease, tmp_path: Path
) -> None:
    """Its lock is free here, because its server runs elsewhere."""
    directory = tmp_path / "log" / "s1"
    directory.mkdir(parents=True)
    log_directory.write_identity(directory, log_directory.Identity("s1", ("another",)))
    (directory / "model").write_text(MODEL)
    announce(store, server("s1", directory))
    assert look(store, lease) == {"s1": MemberState.PRESENT}


def test_a_server_of_an_earlier_release_stays_as_it_was(store: Store, lease: Lease) -> None:
    with store.ledger.write() as connection:
        servers.announce(connection, Server("s1", MODEL, "http://a:1", Path("/nowhere"), 1))
    assert look(store, lease) == {"s1": None}
    assert polled(store) == ["s1"]
    with store.ledger.read() as connection:
        assert members.count(connection, MODEL)[members.UNKNOWN] == 1


def test_a_server_that_went_back_to_an_earlier_release_is_polled(store: Store, lease: Lease) -> None:
    announce(store, server("s1"), Stated.ENDED)
    announce(store, server("s2"))
    assert look(store, lease)["s1"] is MemberState.GONE
    with store.ledger.write() as connection:
        servers.announce(connection, replace(server("s1"), started_at_us=2))
    assert look(store, lease)["s1"] is None
    assert polled(store) == ["s1", "s2"]


def test_an_operator_forgets_what_does_not_come_back(store: Store, lease: Lease) -> None:
    announce(store, server("a"))
    announce(store, server("b"))
    forget: dict[str, Any] = {"actor": "op", "now_us": NOW_US}
    with pytest.raises(ConflictError, match=r"HF304.*server a is present"):
        membership.forget(store, MODEL, "a", "why", **forget)
    age(store, "a", heard_us=SILENT_US)
    look(store, lease)
    membership.forget(store, MODEL, "a", "its host is gone", **forget)
    assert polled(store) == ["b"]
    assert kinds(store, "a")[-1] == "server.forgotten"
    for name in ("a", "missing"):
        with pytest.raises(NotFoundError, match="HF303"):
            membership.forget(store, MODEL, name, "why", **forget)
    look(store, lease)
    assert kinds(store, "a")[-1] == "server.forgotten", "no state of it is followed any more"
    with store.ledger.read() as connection:
        assert "a" in {each.server for each in servers.registered(connection)}, (
            "labels of its predictions are joined"
        )
    announce(store, server("a"))
    assert look(store, lease)["a"] is MemberState.PRESENT
    assert polled(store) == ["a", "b"]


def test_a_conflict_is_a_problem_until_the_second_process_is_gone(store: Store, lease: Lease) -> None:
    announce(store, server("a"))
    conflict = Conflict(
        "a", "boot-b", "http://b:1", "host-b", "/b/log/a", "HF304: another process has the name a"
    )
    with store.ledger.write() as connection:
        assert members.report_conflict(connection, conflict)
        assert not members.report_conflict(connection, conflict)
    look(store, lease)
    assert problems(store) == {("server_conflict", "a")}
    with store.ledger.write() as connection:
        here = schema.server_conflicts.c
        connection.execute(
            update(schema.server_conflicts).values(heard_at_us=here.heard_at_us - membership.CONFLICT_ENDS_US)
        )
    look(store, lease)
    assert problems(store) == set()
    assert kinds(store, "a") == ["server.conflict_ended"]


def test_a_loop_without_the_lease_moves_nothing(store: Store, lease: Lease) -> None:
    announce(store, server("a"))
    age(store, "a", heard_us=SILENT_US)
    with pytest.raises(ConflictError, match="HF304"):
        look(store, Lease(lease.name, lease.holder, lease.epoch + 1, lease.duration_us))
    assert kinds(store, "a") == []
