"""List the servers, forget one, and separate the second process of a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.rollout.model.server_name import Heartbeat, Stated
from holdfast.store import Store
from holdfast.store.serving import log_directory, members
from holdfast.store.serving.members import Conflict
from holdfast.store.serving.servers import Server
from tests.support.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.run("init", "--name", "parcels")
    return made


def test_the_servers_are_listed_forgotten_and_separated(project: Project) -> None:
    root = project.directory / ".holdfast"
    store = Store.open(root)
    own = log_directory.claim(root / "log", "parcels")
    elsewhere = Path("/elsewhere/log")
    with store.ledger.write() as connection:
        for number, (name, directory) in enumerate({own.server: elsewhere, "s1": elsewhere}.items()):
            found = Server(
                name, "parcels", f"http://h{number}:1", directory, 1, f"boot{number}", "0.1", f"h{number}"
            )
            stated = Stated.ENDED if name == "s1" else Stated.SERVING
            members.take(
                connection, found, Heartbeat(1, "x"), kernel="", stated=stated, tagged_from_segment=1
            )
        why = f"HF304: another process has the name {own.server}"
        members.report_conflict(connection, Conflict(own.server, own.boot_id, "http://h9:1", "h9", "/l", why))
    listed = project.document("servers", "list")
    assert {each["server"]: each["host"] for each in listed["servers"]} == {own.server: "h0", "s1": "h1"}
    assert [each["host"] for each in listed["conflicts"]] == ["h9"]
    assert "HF304" in project.run("servers", "list")
    assert "HF304" in project.refused("servers", "forget", own.server, expect=75)
    assert "HF304" in project.refused("servers", "separate", own.server, expect=75), "its process runs"
    own.release()
    moved = Path(project.document("servers", "separate", own.server)["moved_to"])
    assert log_directory.read_identity(moved) == log_directory.Identity(own.server, (own.boot_id,))
    assert not own.directory.exists()
    assert project.document("servers", "list")["conflicts"] == []
    assert "HF303" in project.refused("servers", "separate", own.server, expect=3)
    new = log_directory.claim(root / "log", "parcels")
    assert new.server != own.server
    with store.ledger.write() as connection:
        found = Server(new.server, "parcels", "http://h0:1", new.directory, 1, new.boot_id, "0.1", "h0")
        members.take(
            connection, found, Heartbeat(1, "x"), kernel="", stated=Stated.SERVING, tagged_from_segment=1
        )
    new.release()
    assert "HF410" in project.refused("servers", "separate", new.server, expect=3), (
        "no other process has its name"
    )
    project.run("servers", "forget", new.server, "--reason", "its host was taken down")
    assert new.server not in {
        each["server"] for each in project.document("servers", "list", "--all")["servers"]
    }
    assert "its host was taken down" in project.run("events")
    store.ledger.close()
