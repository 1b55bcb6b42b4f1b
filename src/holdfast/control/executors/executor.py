"""Run work on many files in this process, in several, or on a Ray cluster, with the same results.

A task is a module-level function of one picklable item. It must be idempotent: it runs again if its worker dies. Results come
in the order of the items.

On a Ray cluster (https://docs.ray.io) every machine must have this Holdfast, and must see the store's directory and its ledger
under the same names: workers read the ledger and write files, and only the driver publishes.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from holdfast.errors import InputError, UnavailableError, missing_extra
from holdfast.formatting import first_line
from holdfast.settings import EXECUTORS

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_DEATHS: Final = 3
"""How often workers may die on a task before it is given up."""

_OWN: Final = "local"
_AUTH_MODE: Final = "RAY_AUTH_MODE"
_AUTH_TOKEN: Final = "RAY_AUTH_TOKEN"  # noqa: S105 - the name of a variable
_ENDING_SECONDS: Final = 30.0
"""How long to wait for cancelled tasks."""


class Executor(Protocol):
    """An executor: it runs a function on many items."""

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Yield the result of each item, in their order. A few items are submitted ahead of the results.

        What a task raises is raised in its place; `UnavailableError` HF312 if workers died on a task repeatedly, or the
        cluster is lost. Closing the generator ends the tasks that were submitted ahead.
        """
        ...

    def close(self) -> None:
        """Release its workers."""
        ...


@dataclass(slots=True)
class LocalExecutor:
    """Tasks in this process, or in `processes` spawned ones, which share no locks or threads with it."""

    processes: int = 0
    _pool: ProcessPoolExecutor | None = None

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Run `task` on `items`; see `Executor.map`."""
        if self.processes:
            yield from self._in_others(task, items)
        else:
            yield from map(task, items)

    def close(self) -> None:
        """Wait for the running tasks and end the other processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _in_others(
        self, task: Callable[[Item], Result], items: Iterable[Item]
    ) -> Generator[Result, None, None]:
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        deaths = 0
        try:
            for item in items:
                waiting.append((item, self._submit(task, item)))
                while len(waiting) > self.processes:
                    deaths = yield from self._first(task, waiting, deaths)
            while waiting:
                deaths = yield from self._first(task, waiting, deaths)
        finally:
            if waiting:
                self.close()

    def _first(
        self, task: Callable[[Item], Result], waiting: deque[tuple[Item, Future[Result]]], deaths: int
    ) -> Generator[Result, None, int]:
        """Yield the first result or, after a death, submit everything again; return the deaths since the last result."""
        try:
            result = waiting[0][1].result()
        except BrokenProcessPool as error:
            if deaths >= _MOST_DEATHS:
                raise _gave_up(deaths + 1) from error
            self.close()
            again = [(item, self._submit(task, item)) for item, _ in waiting]
            waiting.clear()
            waiting.extend(again)
            return deaths + 1
        waiting.popleft()
        yield result
        return 0

    def _submit(self, task: Callable[[Item], Result], item: Item) -> Future[Result]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.processes, multiprocessing.get_context("spawn"))
        try:
            return self._pool.submit(task, item)
        except BrokenProcessPool:  # a worker died since; waiting for its result raises it
            self.close()
            return self._submit(task, item)


@dataclass(slots=True)
class RayExecutor:
    """Tasks on the cluster that this process is connected to. `begun` is True if it owns the connection and ends it.

    `environment` are variables of this process that the connection set, with their values before.
    """

    begun: bool
    environment: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def connect(cls, address: str = "") -> RayExecutor:
        """Connect to the cluster at `address` ("host:port", or "auto"), or start one on the loopback of this machine.

        A process that is connected already stays so. Raises `UnavailableError` HF312 when the cluster cannot be reached.
        """
        # Before Ray is imported: it reads this once. No usage statistics leave the machine.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        before = {name: os.environ.get(name) for name in (_AUTH_MODE, _AUTH_TOKEN)}
        if not address:
            _set_own_token()
        import ray
        from ray.exceptions import RayError

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
            _restore(before)
            raise _unreachable(address, os.environ.get(_AUTH_MODE, ""), error) from error
        return cls(begun=True, environment=before)

    def map(self, task: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """Run `task` on `items`; see `Executor.map`. Ray runs a task again elsewhere, a few times, if its machine dies."""
        import ray

        remote: Any = ray.remote(task).options(max_retries=_MOST_DEATHS, retry_exceptions=False)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray leaves it bare
        room = _at_once(resources.get("CPU", 1.0))
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
            import ray

            ray.shutdown()
            _restore(self.environment)

    @staticmethod
    def _result(reference: Any) -> Any:
        import ray
        from ray.exceptions import RayError, RaySystemError, RayTaskError, WorkerCrashedError

        try:
            return ray.get(reference)
        except RayTaskError as error:
            raise error.cause from None
        except WorkerCrashedError as error:
            raise _gave_up(_MOST_DEATHS + 1) from error
        except (RaySystemError, RayError) as error:
            raise UnavailableError(
                "HF312",
                f"the Ray cluster failed: {type(error).__name__}: {error}",
                state="finished files are kept; nothing else was loaded",
                next_command="the same command again",
            ) from error


def open_executor(kind: str, address: str = "") -> Executor:
    """Open the executor `kind`: "local" (this process), "processes" (one for each core) or "ray".

    Parameters
    ----------
    address
        The Ray cluster: "host:port", "auto" for the one that this machine is part of, "" to start one until `close`.

    Raises `InputError` HF103 on another name, HF112 when Ray is not installed, and `UnavailableError` HF302 when the cluster
    cannot be reached.
    """
    match kind:
        case "local":
            return LocalExecutor()
        case "processes":
            return LocalExecutor(len(os.sched_getaffinity(0)))
        case "ray":
            return _connect_ray(address)
        case _:
            raise InputError(
                "HF103",
                f"{kind!r} is no executor; there are {', '.join(EXECUTORS)}",
                state="nothing was changed",
                next_command="holdfast train --help",
            )


def _connect_ray(address: str) -> Executor:
    try:
        return RayExecutor.connect(address)
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise missing_extra("ray", "work on Ray") from error


def _set_own_token() -> None:
    """Give the Ray that this process starts a token of its own, in the environment of its processes alone.

    Without one, Ray 2.60 writes a token into the user's home, which every later `ray start` there demands from its clients.
    Without any, every user of this machine could run code on it.
    """
    mode = os.environ.get(_AUTH_MODE, "")
    if mode and mode.lower() != "token":
        return  # the operator decided
    os.environ[_AUTH_TOKEN] = secrets.token_hex(32)
    if "ray" not in sys.modules:  # Ray has read it once it is imported; it then sets the mode itself
        os.environ[_AUTH_MODE] = "token"


def _restore(environment: Mapping[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _unreachable(address: str, mode: str, error: Exception) -> UnavailableError:
    """Return the error of a cluster that cannot be reached; Ray does not report that it demands a token.

    >>> "RAY_AUTH_MODE must be token" in str(_unreachable("head:6379", "", ConnectionError("no answer")))
    True
    >>> _unreachable("head:6379", "token", ConnectionError("no answer")).next_command
    'ray status --address head:6379'
    """
    cause, next_command = "", "ray status, or the same command with --executor local"
    if address and mode.lower() != "token":
        cause = f"; if it demands a token, {_AUTH_MODE} must be token, and {_AUTH_TOKEN} or {_AUTH_TOKEN}_PATH must name it"
        next_command = f"RAY_AUTH_MODE=token ray status --address {address}"
    elif address:
        cause = f"; {_AUTH_MODE} is token: is this the token of that cluster?"
        next_command = f"ray status --address {address}"
    return UnavailableError(
        "HF312",
        f"the Ray cluster {address or 'of this machine'} cannot be reached: {first_line(error)}{cause}",
        state="nothing was changed",
        next_command=next_command,
    )


def _gave_up(deaths: int) -> UnavailableError:
    """Return the error of a task on which workers died."""
    return UnavailableError(
        "HF312",
        f"the worker process died {deaths} times on the same task",
        state="finished files are kept; nothing else was loaded",
        next_command="check the memory of the workers, then the same command again",
    )


def _at_once(room: float) -> int:
    """Return how many tasks to submit where `room` run at the same time: a few more, so that no worker waits.

    >>> _at_once(1.0), _at_once(64.0)
    (2, 128)
    """
    return max(2, 2 * int(room))
