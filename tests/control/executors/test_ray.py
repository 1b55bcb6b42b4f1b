"""The same load on a real Ray cluster of two nodes, one of which is killed on the way: the ledger is what one process makes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.control.executors.executor import Executor, LocalExecutor, open_executor
from holdfast.control.ingest.ingest import ingest_many
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.errors import InputError, UnavailableError
from holdfast.store import Store
from holdfast.store.maintenance import orphans
from tests.control.ingest import test_parallel as bulk
from tests.support import dying_tasks as dying
from tests.support.processes import ROOT

pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")

REPOSITORY = ROOT


class TwoNodes:
    """A Ray cluster on the loopback alone: a head and a worker with a core each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args=self._node("127.0.0.2"))
        self.worker = self.cluster.add_node(**self._node("127.0.0.3"))

    @staticmethod
    def _node(address: str) -> dict[str, Any]:
        return {
            "num_cpus": 1, "include_dashboard": False, "object_store_memory": 100_000_000, "node_ip_address": address,
        }  # fmt: skip

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def kill_worker(self) -> None:
        """As when a machine is gone."""
        os.kill(self.worker.all_processes["raylet"][0].process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with pytest.MonkeyPatch.context() as environment:
        # What the nodes inherit: where this Holdfast is, and that usage is not reported.
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)]))
        made = TwoNodes()
        yield made
        made.cluster.shutdown()


@pytest.fixture(scope="module")
def executor(nodes: TwoNodes) -> Iterator[Executor]:
    made = open_executor("ray", nodes.address)
    yield made
    made.close()


def test_a_ray_of_our_own_leaves_no_token_in_the_home(tmp_path: Path) -> None:
    """Ray would write one there, which every later `ray start` demands from its clients."""
    lines = (
        "import os",
        "from holdfast.control.executors.executor import open_executor",
        "from tests.support import dying_tasks as dying",
        "executor = open_executor('ray')",
        "print(list(executor.map(dying.slowly, [1]))[0] > 0, 'RAY_AUTH_TOKEN' in os.environ)",
        "executor.close()",
        "print([name for name in os.environ if name.startswith('RAY_AUTH')])",
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env=environment | {"HOME": str(tmp_path), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["True True", "[]"]
    assert "auth" not in done.stderr.lower()
    assert not (tmp_path / ".ray" / "auth_token").exists()


def test_results_come_in_order_and_errors_whole(executor: Executor, tmp_path: Path) -> None:
    """Both nodes work; a worker that is killed is replaced; what a task raises is what the caller gets."""
    for _ in range(20):
        if len(set(executor.map(dying.slowly, range(6)))) == 2:
            break
    else:
        pytest.fail("one of the two nodes never worked")
    assert list(executor.map(dying.once, [(str(tmp_path), number) for number in range(3)])) == list(range(3))
    with pytest.raises(UnavailableError, match=r"HF312.*died"):
        list(executor.map(dying.always, [1]))
    store, nowhere = Store.open(tmp_path / "store"), [DeliverySpec("d1", tmp_path / "nowhere.csv")]
    with pytest.raises(InputError, match=r"HF201.*nowhere"):
        list(ingest_many(store, bulk.FEED, nowhere, executor, clock_us=lambda: 7))


def test_a_node_that_is_killed_in_the_middle_of_a_load_changes_nothing(
    nodes: TwoNodes, executor: Executor, tmp_path: Path
) -> None:
    """The ledger and the bytes of every file are those of one process without Ray."""
    given = bulk.deliveries(tmp_path / "in", count=12, rows=3_000)
    alone, store = Store.open(tmp_path / "alone"), Store.open(tmp_path / "cluster")
    bulk.load(alone, given, LocalExecutor())
    loads = ingest_many(
        store, bulk.FEED, given, executor, clock_us=lambda: bulk.NOW_US, aggregates=[bulk.MEAN],
        attempts=bulk.attempts(),
    )  # fmt: skip
    states = [next(loads).state, next(loads).state]
    nodes.kill_worker()
    states += [result.state for result in loads]
    assert states == ["loaded"] * 12
    assert bulk.everything(store) == bulk.everything(alone)
    assert orphans.sweep(store) == []
