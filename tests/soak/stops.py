"""Stop servers under load, again and again, in every way, and count the requests that were sent and got no response.

python -m tests.soak.stops --stops 100
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.support.serving_world import World
from tests.support.stops import PROGRAM, Callers, free_port, group_on
from tests.support.waiting import wait_until


def group_ends(root: Path, port: int, callers: Callers) -> None:
    """Leave the group, as `holdfast up` does on SIGTERM."""
    with group_on(root, port):
        callers.wait(200)
    callers.wait_for_refusal()


def interrupted(root: Path, port: int, callers: Callers) -> None:
    """Leave the group when its server has the signal too, as on Ctrl-C."""
    with group_on(root, port) as group:
        callers.wait(200)
        group.signal("serve", signal.SIGINT)
    callers.wait_for_refusal()


def restarted(root: Path, port: int, callers: Callers) -> None:
    """End the server alone, and replace the next one."""
    with group_on(root, port) as group:
        callers.wait(200)
        group.signal("serve", signal.SIGTERM)
        wait_until(group.revive)
        callers.wait(200)
        assert not group.succeed("serve", PROGRAM, lambda: True, 30.0)
        callers.wait(200)
    callers.wait_for_refusal()


def alone(root: Path, port: int, callers: Callers) -> None:
    """End a server that has its socket to itself."""
    with subprocess.Popen([*PROGRAM, str(root), str(port)], stdout=subprocess.DEVNULL) as server:
        callers.wait(200)
        server.terminate()
    callers.wait_for_refusal()


WAYS = {
    "group": (group_ends, 1),
    "interrupt": (interrupted, 1),
    "restart": (restarted, 3),
    "alone": (alone, 1),
}
"""Each way to stop, and how many stops it has."""


def main() -> None:
    """Run the soak; fail if a request was dropped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stops", type=int, default=100)
    stops, done = parser.parse_args().stops, 0
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        world.version("half")
        world.plan("half")
        port = free_port()
        with Callers(port) as callers:
            while done < stops:
                for name, (way, number) in WAYS.items():
                    way(world.root, port, callers)
                    done += number
                    print(
                        f"{done} stops, {name}: {callers.responses} responses, {len(callers.dropped)} dropped",
                        flush=True,
                    )
    assert not callers.dropped, callers.dropped[:10]


if __name__ == "__main__":
    main()
