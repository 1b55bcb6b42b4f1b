"""No request that was sent is dropped when a server stops, whatever stops it."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.support.serving_world import World
from tests.support.stops import PROGRAM, Callers, free_port, group_on

pytestmark = pytest.mark.process


@pytest.fixture
def world(world: World) -> World:
    world.version("half")
    world.plan("half")
    return world


def test_a_group_that_stops_drops_no_request(world: World) -> None:
    """`holdfast up` on SIGTERM or Ctrl-C: it leaves its group; also when Ctrl-C reaches the server at the same time."""
    port = free_port()
    with Callers(port) as callers:
        for number in (None, signal.SIGINT):
            with group_on(world.root, port) as group:
                callers.wait(50)
                if number is not None:
                    group.signal("serve", number)
            callers.wait_for_refusal()
    assert not callers.dropped


def test_a_server_that_is_stopped_or_replaced_in_its_group_drops_and_refuses_none(world: World) -> None:
    """SIGTERM of the child alone, and a handover to another process, such as an upgrade."""
    port = free_port()
    with group_on(world.root, port) as group, Callers(port) as callers:
        callers.wait(50)
        before = callers.refused
        for number in (signal.SIGTERM, signal.SIGINT):
            group.signal("serve", number)
            while not group.revive():
                pass
            callers.wait(50)
        assert group.succeed("serve", PROGRAM, lambda: callers.responses > 0, 30.0) == ""
        callers.wait(50)
        assert callers.refused == before
    assert not callers.dropped


def test_a_server_without_a_group_drops_no_request(world: World) -> None:
    port = free_port()
    with Callers(port) as callers:
        for number in (signal.SIGTERM, signal.SIGINT):
            with subprocess.Popen(
                [*PROGRAM, str(world.root), str(port)], stdout=subprocess.DEVNULL
            ) as server:
                callers.wait(50)
                os.kill(server.pid, number)
                assert server.wait(60) == 0
            callers.wait_for_refusal()
    assert not callers.dropped
