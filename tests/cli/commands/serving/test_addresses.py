"""Where commands find a server, and where processes listen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.processes import up_lock
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.serving import servers
from holdfast.store.serving.servers import Server
from holdfast.web import run as page
from tests.support.project import Project, run_here


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.run("init", "--name", "parcels")
    return made


def test_feedback_goes_to_the_server_that_status_knows(project: Project) -> None:
    store = Store.open(project.directory / ".holdfast")
    with store.ledger.write() as connection:
        for number, port in enumerate((1, 2), start=1):
            where = project.directory / f"s{number}"
            servers.announce(
                connection, Server(f"s{number}", "parcels", f"http://127.0.0.1:{port}", where, number)
            )
    store.ledger.close()
    error = project.refused("feedback", "s1-1-1", "true", expect=75)
    assert "no Holdfast server responds at http://127.0.0.1:2 " in error


def test_up_ends_when_another_process_has_its_port(project: Project) -> None:
    with socket.create_server(("127.0.0.1", project.port)):
        error = project.refused("up", expect=2)
    assert "HF507" in error
    assert f"127.0.0.1:{project.port}" in error
    assert "nothing was started" in error


def test_up_ends_when_another_process_has_the_port_of_the_page(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = replace(project, page_port=port).refused("up", expect=2)
    assert f"the page cannot listen on 127.0.0.1:{port}" in error


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
@pytest.mark.parametrize("command", ["serve", "control", "page", "up"])
def test_every_address_is_listened_on_only_in_so_many_words(
    project: Project, command: str, host: str
) -> None:
    """W8."""
    done = run_here((command,), project.directory, project.environment | {"HOLDFAST_HOST": host})
    assert done.status == 2
    assert "HF103" in done.stderr
    assert "HOLDFAST_PUBLIC=yes" in done.stderr
    Settings.read(
        project.directory, {"HOLDFAST_HOST": host, "HOLDFAST_PUBLIC": "yes"}
    ).refuse_unstated_exposure()
    Settings.read(project.directory, {"HOLDFAST_HOST": "10.0.0.7"}).refuse_unstated_exposure()


def test_the_page_is_served_under_the_names_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(page, "build_app", lambda *_arguments, **options: given.update(options))
    monkeypatch.setattr(page.uvicorn.Server, "run", lambda *_arguments, **_options: None)
    settings = replace(Settings.read(tmp_path), names=("models.example.org",), page_port=0)
    page.serve_page(Store.open(tmp_path), "parcels", settings, started=lambda _url: None)
    assert given["allowed_hosts"] == ("models.example.org",)


HOLDS = """
import sys, time
from pathlib import Path
from holdfast.cli.processes import up_lock
with up_lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_up_ends_before_the_first_listens(project: Project) -> None:
    root = project.directory / ".holdfast"
    command = [sys.executable, "-c", HOLDS, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=project.environment) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        error = project.refused("up", expect=1)
        first.kill()
    assert f"HF507 holdfast up already runs for {root} (process {first.pid})" in error.replace("\n", " ")
    with up_lock.hold(root):
        assert (root / "up.lock").read_text() == str(os.getpid()), "the kernel ended the lock"
    assert root.stat().st_mode & 0o777 == 0o700


def test_up_starts_where_no_lock_can_be_taken(tmp_path: Path) -> None:
    (tmp_path / "up.lock").mkdir()
    with up_lock.hold(tmp_path), up_lock.hold(tmp_path):
        pass
