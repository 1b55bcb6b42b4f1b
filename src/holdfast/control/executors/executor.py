"""Run work on many files in this process, in several, or on a Ray cluster, with the same results.

A task is a module-level function of one picklable item. It must be idempotent: it runs again if its worker dies. Results come
in the order of the items.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from holdfast.errors import UnavailableError

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_DEATHS: Final = 3
"""How often workers may die on a task before it is given up."""


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
            if deaths >= MOST_DEATHS:
                raise gave_up(deaths + 1) from error
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


def gave_up(deaths: int) -> UnavailableError:
    """Return the error of a task on which workers died."""
    return UnavailableError(
        "HF312",
        f"the worker process died {deaths} times on the same task",
        state="finished files are kept; nothing else was loaded",
        next_command="check the memory of the workers, then the same command again",
    )


def at_once(room: float) -> int:
    """Return how many tasks to submit where `room` run at the same time: a few more, so that no worker waits.

    >>> at_once(1.0), at_once(64.0)
    (2, 128)
    """
    return max(2, 2 * int(room))
