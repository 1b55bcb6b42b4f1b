"""A server keeps its name, and the second process under a name reports that, serves on and is not collected."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import update

from holdfast.feedback import IdKey
from holdfast.rollout.model.membership import MemberState
from holdfast.rollout.model.server_name import HEARTBEAT_SECONDS, QUIET_SECONDS, Stated
from holdfast.serve.follower.membership import Membership
from holdfast.store import Store
from holdfast.store.db import events, schema
from holdfast.store.serving import log_directory, members, servers
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.servers import Server

pytestmark = pytest.mark.usefixtures("each_ledger")
MODEL = "m"


@dataclass
class Host:
    """A host with a root, a clock and a server process of its own."""

    store: Store
    root: Path
    host: str
    claimed: log_directory.Claim = field(init=False)
    log: LogWriter = field(init=False)
    membership: Membership = field(init=False)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.claimed = log_directory.claim(self.root / "log", MODEL)
        self.log = LogWriter(self.claimed.directory, self.claimed.server, MODEL)
        self.log.tag_with(IdKey(bytes(32)))
        self.server = Server(
            self.claimed.server, MODEL, f"http://{self.host}:8080", self.claimed.directory, 1, self.claimed.boot_id, "0.1",
            self.host,
        )  # fmt: skip
        self.membership = Membership(self.server, self.log, lambda: 1, seconds=lambda: self.now)

    def stop(self) -> None:
        self.log.close()
        self.claimed.release()

    def look(self, seconds: float = HEARTBEAT_SECONDS) -> str:
        self.now += seconds
        self.membership.follow(self.store)
        return self.membership.conflict

    @property
    def is_collected(self) -> bool:
        with self.store.ledger.read() as connection:
            member = members.find(connection, self.server.server)
        assert member is not None
        return log_directory.is_log_of(self.claimed.directory, member.server.server, member.server.boot_id)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "ledger")


@pytest.fixture
def host(store: Store, tmp_path: Path) -> Callable[..., Host]:
    made: list[Host] = []

    def start(name: str, copy_of: Host | None = None) -> Host:
        root = tmp_path / name
        if copy_of is not None:
            shutil.copytree(copy_of.root, root)
        made.append(Host(store, root, name))
        return made[-1]

    return start


def found(store: Store, kind: str) -> list[str]:
    with store.ledger.read() as connection:
        return [each.explanation for each in events.newest(connection, kind=kind)]


def test_two_roots_are_two_servers(store: Store, host: Callable[..., Host]) -> None:
    first, second = host("a"), host("b")
    assert (first.look(), second.look()) == ("", "")
    assert first.server.server != second.server.server
    with store.ledger.read() as connection:
        known = members.of_model(connection, MODEL)
    assert {each.server for each in known} == {first.server, second.server}
    assert {each.state for each in known} == {MemberState.PRESENT}
    assert len(found(store, "server.present")) == 2


def test_a_copied_log_directory_makes_its_process_the_second(
    store: Store, host: Callable[..., Host], caplog: pytest.LogCaptureFixture
) -> None:
    first = host("a")
    first.look()
    second = host("b", copy_of=first)
    assert second.server.server == first.server.server
    assert second.look() == "", "the first may have died: it is watched first"
    assert not second.membership.is_registered
    assert not second.log.gives_ids, "the first may give the same ones"
    first.look()
    assert "HF304" in second.look(1.0)
    assert "HF304" in caplog.text
    assert "http://a:8080" in second.membership.conflict
    assert first.look() == ""
    assert (first.is_collected, second.is_collected) == (True, False)
    assert (first.log.gives_ids, second.log.gives_ids) == (True, False)
    second.log.tag_with(IdKey(bytes(32)))
    assert not second.log.gives_ids, "new rules for labels change nothing"
    for _ in range(3):
        second.look()
    assert len(found(store, "server.conflict")) == 1
    with store.ledger.read() as connection:
        [conflict] = members.conflicts(connection, MODEL)
        assert servers.registered(connection) == (first.server,)
    assert (conflict.boot_id, conflict.host) == (second.claimed.boot_id, "b")
    second.membership.leave(Stated.ENDED)
    second.look()
    with store.ledger.read() as connection:
        assert members.conflicts(connection, MODEL) == ()


def test_a_copy_that_has_the_name_first_makes_the_original_the_second(
    store: Store, host: Callable[..., Host]
) -> None:
    first = host("a")
    first.look()
    first.stop()
    second = host("b", copy_of=first)
    for _ in range(int(QUIET_SECONDS) + 1):
        second.look(1.0)
    assert second.membership.is_registered
    assert second.log.gives_ids
    first.start()
    assert "HF304" in first.look(), "its log lacks what the copy has logged"
    first.stop()
    second.membership.leave(Stated.ENDED)
    second.look()
    first.start()
    assert "HF304" in first.look(), "nor is it the successor of a copy that has ended"
    assert not first.is_collected
    shutil.rmtree(first.root / "log")
    first.stop()
    first.start()
    assert first.look() == ""
    assert first.server.server != second.server.server


def test_a_cloned_machine_is_found_by_its_heartbeat(
    store: Store, host: Callable[..., Host], tmp_path: Path
) -> None:
    """Both processes have the same boot id, and all that it wrote before."""
    first = host("a")
    first.look()
    shutil.copytree(first.root, tmp_path / "clone")
    directory = tmp_path / "clone" / "log" / first.server.server
    log = LogWriter(directory, first.server.server, MODEL)
    clone = Membership(
        replace(first.server, log_directory=directory), log, lambda: 1, seconds=lambda: first.now
    )
    clone._claim, clone._written = first.membership._claim, first.membership._written
    clone._claim = replace(clone._claim) if clone._claim is not None else None
    clone.follow(store)
    assert "HF304" in first.look()
    assert not first.is_collected
    clone.follow(store)
    assert clone.conflict == ""
    log.close()


def test_a_restart_takes_its_name_at_once(store: Store, host: Callable[..., Host]) -> None:
    """On the same start of the same kernel the lock of the directory proves that the process before has ended."""
    first = host("a")
    first.look()
    name, boot_id = first.server.server, first.claimed.boot_id
    first.stop()
    first.start()
    assert first.look() == ""
    assert first.membership.is_registered
    assert first.server.server == name
    with store.ledger.read() as connection:
        [known] = servers.registered(connection)
    assert known.boot_id == first.claimed.boot_id != boot_id
    assert first.is_collected
    assert len(found(store, "server.present")) == 1


def test_the_log_of_a_restart_is_collected_before_the_ledger_knows_it(
    store: Store, host: Callable[..., Host]
) -> None:
    first = host("a")
    first.look()
    for _ in range(3):
        first.stop()
        first.start()
    assert first.is_collected


def test_a_server_of_an_earlier_release_goes_on_under_its_name(
    store: Store, host: Callable[..., Host], tmp_path: Path
) -> None:
    directory = tmp_path / "a" / "log" / "s1"
    directory.mkdir(parents=True)
    (directory / "model").write_text(MODEL)
    with store.ledger.write() as connection:
        servers.announce(connection, Server("s1", MODEL, "http://a:8080", directory, 1))
        assert [each.server for each in members.polled(connection, MODEL)] == ["s1"]
    upgraded = host("a")
    assert upgraded.look() == ""
    assert upgraded.server.server == "s1"
    assert upgraded.is_collected
    other = tmp_path / "b" / "log" / "s1"
    other.mkdir(parents=True)
    (other / "model").write_text(MODEL)
    assert "HF304" in host("b").look(), "the other host that had the name s1"


def test_a_disk_that_takes_no_boot_id_keeps_the_server_of_before_in_the_ledger(
    store: Store, host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Registered without it, the server would have no successor."""
    first = host("a")
    first.look()
    before = first.claimed.boot_id
    first.stop()

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("holdfast.store.serving.log_directory.write_identity", full)
        first.start()
        for _ in range(3):
            assert first.look() == ""
        with store.ledger.read() as connection:
            assert [each.boot_id for each in servers.registered(connection)] == [before]
        assert first.is_collected
    assert caplog.text.count("the ledger does not get this server") == 1
    first.look()
    assert first.membership.is_registered
    assert first.is_collected


def test_a_restored_ledger_makes_no_process_the_second(store: Store, host: Callable[..., Host]) -> None:
    first = host("a")
    for _ in range(5):
        first.look()
    with store.ledger.write() as connection:
        connection.execute(update(schema.members).values(beats=2, beat="of the backup"))
    assert first.look() == ""
    with store.ledger.write() as connection:
        connection.execute(schema.members.delete())
        connection.execute(schema.servers.delete())
    assert first.look() == ""
    assert first.is_collected
