"""Run tasks on a Ray cluster (https://docs.ray.io): the same functions, on any number of machines.

Every machine must have this Holdfast, and must see the store's directory and its ledger under the same names: workers
read the ledger and write files, and only the driver publishes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Final

# Before Ray is imported: it reads this once. No usage statistics leave the machine.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import RayError, RaySystemError, RayTaskError, WorkerCrashedError

from holdfast.control.executors.executor import MOST_DEATHS, Item, Result, at_once, gave_up
from holdfast.errors import UnavailableError

_OWN: Final = "local"
_ENDING_SECONDS: Final = 30.0
"""How long to wait for cancelled tasks."""


@dataclass(slots=True)
class RayExecutor:
    """Tasks on the cluster that this process is connected to. `begun` is True if it owns the connection and ends it."""

    begun: bool

    @classmethod
    def connect(cls, address: str = "") -> RayExecutor:
        """Connect to the cluster at `address` ("host:port", or "auto"), or start one on the loopback of this machine.

        A process that is connected already stays so. Raises `UnavailableError` HF312 when the cluster cannot be reached.
        """
        if ray.is_initialized():
            return cls(begun=False)
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if not address:
            options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        elif address.startswith(
            "127."
        ):  # a cluster on the loopback: Ray would look for it at the machine's own address
            options |= {"_node_ip_address": address.partition(":")[0]}
        try:
            ray.init(address=address or _OWN, **options)
        except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
            raise UnavailableError(
                "HF312",
                f"the Ray cluster {address or 'of this machine'} cannot be reached: {error}",
                state="nothing was changed",
                next_command="ray status, or the same command with --executor local",
            ) from error
        return cls(begun=True)

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Run `task` on `items`; see `Executor.map`. Ray runs a task again elsewhere, a few times, if its machine dies."""
        remote: Any = ray.remote(task).options(max_retries=MOST_DEATHS, retry_exceptions=False)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray leaves it bare
        room = at_once(resources.get("CPU", 1.0))
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(remote.remote(item))
                if len(waiting) >= room:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            if waiting and ray.is_initialized():
                for reference in waiting:
                    ray.cancel(reference, force=True)
                ray.wait(list(waiting), num_returns=len(waiting), timeout=_ENDING_SECONDS)

    def close(self) -> None:
        """Leave the cluster, and end it if `connect` started it."""
        if self.begun:
            ray.shutdown()

    @staticmethod
    def _result(reference: Any) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:
            raise error.cause from None
        except WorkerCrashedError as error:
            raise gave_up(MOST_DEATHS + 1) from error
        except (RaySystemError, RayError) as error:
            raise UnavailableError(
                "HF312",
                f"the Ray cluster failed: {type(error).__name__}: {error}",
                state="finished files are kept; nothing else was loaded",
                next_command="the same command again",
            ) from error
