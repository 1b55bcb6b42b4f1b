"""The actors of the simulation: controllers and people as coroutines that stop wherever they touch the ledger, and clocks
that cannot be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import greenlet

from holdfast.errors import UnavailableError
from holdfast.store.db.ledger import Ledger, Transaction

READ_MUCH = 3
"""After so many reads in a row a decision is near."""


class KilledError(BaseException):
    """The process of an actor ends here: no `except Exception` sees it, and what was open is rolled back."""


@dataclass
class Clock:
    """One machine's clock: it may run fast or slowly, stand still, and jump."""

    offset_us: int
    rate: float = 1.0
    since_us: int = 0

    def read(self, true_us: int) -> int:
        """What it shows when it is really `true_us`."""
        return self.offset_us + round((true_us - self.since_us) * self.rate)

    def jump(self, true_us: int, by_us: int, rate: float) -> None:
        """From now on it shows `by_us` more and runs at `rate`."""
        self.offset_us, self.since_us, self.rate = self.read(true_us) + by_us, true_us, rate


@dataclass
class Actor:
    """A coroutine with a budget of points; where the budget ends it stands still until it is resumed, or is killed."""

    name: str
    clock: Clock
    run: Callable[[Actor], None]
    tired: Callable[[], bool] = lambda: False
    """Whether it stands still where that hurts most: after it has read much, and before it writes."""
    budget: int = 0
    disconnected: bool = False
    """Whether the ledger cannot be reached."""
    response_lost: bool = False
    """Whether the answer to its next commit is lost on the way."""
    believes: int = 0
    """The epoch of the lease that it acquired last, by the history; 0 for none."""
    looks: list[int] = field(default_factory=list)
    """What its clock showed whenever it looked, since the lease last changed."""
    error: BaseException | None = None
    place: str = ""
    """Where it stands."""
    _reads: int = 0
    _coroutine: Any = None

    def resume(self, budget: int) -> None:
        """Go on for `budget` points, or to the end."""
        if self._coroutine is None:
            self._coroutine = greenlet.greenlet(self._begin)
        self.budget = budget
        self._coroutine.switch()

    @property
    def ended(self) -> bool:
        return self._coroutine is not None and self._coroutine.dead

    def kill(self) -> None:
        """End it as kill -9 does, wherever it stands."""
        if self._coroutine is not None and not self._coroutine.dead:
            self._coroutine.throw(KilledError)

    def point(self, place: str) -> None:
        """A place at which it may be stopped for any time, or find the ledger gone."""
        self.budget -= 1
        self._reads = self._reads + 1 if place == "before read" else self._reads
        if place == "before write":
            if self._reads >= READ_MUCH and self.tired():
                self.budget = 0
            self._reads = 0
        # A transaction is left open now and then only: it keeps all others from writing.
        if self.budget <= 0 and (place != "before commit" or self.budget % 4 == 0):
            self.place = place
            self._stand_still()
        if self.disconnected and place != "after commit":
            raise UnavailableError("HF302", f"the network is down ({place})")
        if place == "after commit" and self.response_lost:
            self.response_lost = False
            raise UnavailableError("HF205", "the answer to the commit was lost")

    def pause(self) -> None:
        """Stand still until it is resumed."""
        self.budget, self.place = 0, "between rounds"
        self._stand_still()

    def _stand_still(self) -> None:
        greenlet.getcurrent().parent.switch()

    def _begin(self) -> None:
        try:
            self.run(self)
        except KilledError:
            pass
        except Exception as error:
            self.error = error


@dataclass(frozen=True)
class Wire:
    """The real ledger as one actor reaches it: each transaction has points before, inside and after it."""

    ledger: Ledger
    actor: Actor
    committed: Callable[[Actor], None]
    """Reported after each commit, before anybody else can act."""

    @property
    def engine(self) -> Any:
        return self.ledger.engine

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        self.actor.point("before read")
        with self.ledger.read() as connection:
            yield connection
        self.actor.point("after read")

    @contextmanager
    def write(self, *, quiet: bool = False) -> Iterator[Transaction]:
        self.actor.point("before write")
        with self.ledger.write(quiet=quiet) as connection:
            yield connection
            self.actor.point("before commit")
        self.committed(self.actor)
        self.actor.point("after commit")
