"""The queue of inference requests: turns of bounded length, by age within a size, and 429 beyond a bound on the wait.

Requests wait in three lanes, by the size of their bodies, and labels in one of their own. Each turn of the event loop answers
the oldest small ones together, then the oldest medium ones, and does one step of the oldest large one. So a request of one row
waits for a step of a large one, never for the whole of it, and no lane waits for ever. Between two turns the loop reads,
accepts and answers others.

Requests are shed before they wait. A lane measures how long it needs for a byte; a request whose expected wait is beyond
`queue_seconds` is refused at once, and a large one before its body is received. Within a lane an
attacker looks like any client, so the oldest request comes first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import ceil
from time import perf_counter
from typing import Final

from holdfast.errors import UnavailableError
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.http.exchange import Exchange, Refusal
from holdfast.serve.inference.data_plane import DataPlane, InferenceCall, LargeRequest, Outcome

SMALL_BYTES: Final = 2 * 1024
"""The largest body of the small lane: some twenty rows."""
LARGE_BYTES: Final = 16 * 1024
"""A body beyond this is answered in steps."""
SMALL_TURN_BYTES: Final = 32 * 1024
"""Bodies of the small lane in one turn: some fifty requests of one row, a few milliseconds."""
MEDIUM_TURN_BYTES: Final = 16 * 1024
"""Bodies of the medium lane in one turn: some 250 rows."""
_FIXED_BYTES: Final = 400
"""A request costs as much as so many bytes more of its body."""
_SECONDS_PER_BYTE: Final = 2e-7
"""What a lane assumes before it has measured."""
_WEIGHT: Final = 0.1
"""The weight of the newest measurement."""


class Lane:
    """Requests of one size that wait, oldest first.

    Parameters
    ----------
    reason
        The reason under which its shed requests are counted.
    turn_bytes
        What it may answer in one turn, at least one request.
    """

    def __init__(self, reason: str, turn_bytes: int) -> None:
        self.reason = reason
        self.waiting: deque[tuple[Exchange, InferenceCall]] = deque()
        self._turn_bytes = turn_bytes
        self._bytes = 0
        self._per_byte = _SECONDS_PER_BYTE
        self._since = 0.0
        self._was_passed_over = False

    def add(self, exchange: Exchange, call: InferenceCall) -> None:
        """Append a request."""
        if not self._bytes:
            self._since = perf_counter()
        self.waiting.append((exchange, call))
        self._bytes += _size(call)

    def take(self) -> list[tuple[Exchange, InferenceCall]]:
        """Remove and return the oldest requests, as many as fit in a turn."""
        taken: list[tuple[Exchange, InferenceCall]] = []
        size = 0
        while self.waiting and (not taken or size + _size(self.waiting[0][1]) <= self._turn_bytes):
            taken.append(self.waiting.popleft())
            size += _size(taken[-1][1])
        return taken

    def measure(self, taken: list[tuple[Exchange, InferenceCall]]) -> None:
        """Measure the time since the answer before, or since the first of `taken` came to an empty lane."""
        now = perf_counter()
        size = sum(_size(call) for _, call in taken)
        self._bytes -= size
        self._per_byte += _WEIGHT * ((now - self._since) / size - self._per_byte)
        self._since = now
        self._was_passed_over = bool(self.waiting)

    def expected_wait(self) -> float:
        """Return the expected wait of a new request, in seconds; 0 when nothing waits."""
        if not self._bytes:
            return 0.0
        expected = self._bytes * self._per_byte
        # A request that waited while the process was stopped was not passed over, and delays no other.
        if self.waiting and self._was_passed_over:
            return max(expected, perf_counter() - self.waiting[0][1].received)
        return expected


class InferenceQueue:
    """Answers inference calls in turns of the event loop.

    Parameters
    ----------
    plane
        Answers calls.
    loop
        The event loop.
    limits
        Returns the limits of now.
    respond
        Sends an outcome; it does not raise.
    store_labels
        Answers a request with labels; it does not raise.
    """

    def __init__(
        self,
        plane: DataPlane,
        loop: asyncio.AbstractEventLoop,
        limits: Callable[[], ConnectionLimits],
        respond: Callable[[Exchange, Outcome], None],
        store_labels: Callable[[Exchange], None],
    ) -> None:
        self._plane = plane
        self._loop = loop
        self._limits = limits
        self._respond = respond
        self._store_labels = store_labels
        self._small = Lane("small_queue", SMALL_TURN_BYTES)
        self._medium = Lane("medium_queue", MEDIUM_TURN_BYTES)
        self._large = Lane("large_queue", 0)
        self._labels = Lane("label_queue", MEDIUM_TURN_BYTES)
        self._under_way: tuple[list[tuple[Exchange, InferenceCall]], LargeRequest] | None = None
        self._is_scheduled = False

    def add(self, exchange: Exchange, call: InferenceCall) -> None:
        """Answer `call` in one of the next turns, or shed it now."""
        self._add(self._lane_of(len(call.body)), exchange, call)

    def add_labels(self, exchange: Exchange) -> None:
        """Store the labels of a request in one of the next turns, or shed it now."""
        self._add(self._labels, exchange, InferenceCall(exchange.body, None, None, exchange.received))

    def _add(self, lane: Lane, exchange: Exchange, call: InferenceCall) -> None:
        if (refusal := self._refusal(lane)) is not None:
            exchange.refuse(429, "HF504", refusal.what, extra=refusal.headers)
            return
        lane.add(exchange, call)
        self._schedule()

    def refusal(self, length: int) -> Refusal | None:
        """Return why a large body of `length` bytes is refused before it is received; None if it, or a smaller one, is not."""
        return self._refusal(self._large) if length > LARGE_BYTES else None

    def _refusal(self, lane: Lane) -> Refusal | None:
        expected, bound = lane.expected_wait(), self._limits().queue_seconds
        if expected <= bound:
            return None
        self._plane.counters.shed[lane.reason] += 1
        what = f"the server is overloaded: requests of this size would wait for more than {bound:g} seconds"
        return Refusal(what, b"retry-after: %d\r\n" % max(1, ceil(expected - bound)))

    def _lane_of(self, size: int) -> Lane:
        if size <= SMALL_BYTES:
            return self._small
        return self._medium if size <= LARGE_BYTES else self._large

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        for lane in (self._small, self._medium):
            if taken := lane.take():
                self._predict(taken)
                lane.measure(taken)
        if taken := self._labels.take():
            for exchange, _ in taken:
                self._store_labels(exchange)
            self._labels.measure(taken)
        self._advance()
        if self._under_way or any(
            lane.waiting for lane in (self._small, self._medium, self._large, self._labels)
        ):
            self._schedule()

    def _predict(self, taken: list[tuple[Exchange, InferenceCall]]) -> None:
        try:
            outcomes = self._plane.infer([call for _, call in taken])
        except Exception as error:  # what belongs to one call is caught there
            self._plane.errors.count("prepare", error)
            outcomes = [_failed()] * len(taken)
        for (exchange, _), outcome in zip(taken, outcomes, strict=True):
            self._respond(exchange, outcome)
        self._plane.mirror()

    def _advance(self) -> None:
        """Do one step of the oldest large request."""
        if self._under_way is None:
            if not self._large.waiting:
                return
            taken = self._large.take()
            self._under_way = taken, self._plane.start_large(taken[0][1])
        taken, work = self._under_way
        try:
            outcome = work.advance()
        except Exception as error:  # what belongs to the call is caught there
            self._plane.errors.count("prepare", error)
            outcome = _failed()
        if outcome is None:
            return
        self._under_way = None
        self._large.measure(taken)
        self._respond(taken[0][0], outcome)
        self._plane.mirror()


def _size(call: InferenceCall) -> int:
    return len(call.body) + _FIXED_BYTES


def _failed() -> UnavailableError:
    return UnavailableError("HF503", "the server failed on this request, by a defect of its own")
