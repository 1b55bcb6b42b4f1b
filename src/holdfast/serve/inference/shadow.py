"""Run a shadow version on copies of requests, in a thread of its own, after the response went out.

The request path hands over a copy and forgets it. The queue is bounded in number and bytes; a copy that does not fit
is dropped and counted. A shadow may raise, return nonsense, take ever longer, or never return: the path does not
notice. A shadow that does not return within `DEADLINE_SECONDS` is abandoned with its thread, and gets no more copies
during its rollout. ONNX Runtime runs without the interpreter's lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Final

from msgspec.structs import replace

from holdfast.features import OnlineTable
from holdfast.rollout.evidence.shadow import HUNG, OK
from holdfast.serve.inference.loaded_model import LoadedVersion, Probabilities, invalid_reason
from holdfast.serve.inference.request_schema import RequestSchema, Row
from holdfast.serve.protocol.oip import RequestError
from holdfast.store.serving.prediction_log import ShadowRecord, frame

_log = logging.getLogger(__name__)

MAX_QUEUED: Final = 512
"""The maximum number of waiting copies."""
MAX_QUEUED_BYTES: Final = 16 * 1024 * 1024
"""The maximum size of all waiting copies together."""
DEADLINE_SECONDS: Final = 10.0
"""How long a shadow may take for one copy until it counts as hung."""
POLL_SECONDS: Final = 0.005
"""How often the thread looks for copies while they come."""
_IDLE_SECONDS: Final = 1.0
_TICKS: Final = 20
MAX_REST_SECONDS: Final = 0.05
"""After each copy the thread rests as long as it worked, at most this long: it has at most half a core."""
_YIELD_SECONDS: Final = 0.0005
_MAX_YIELDS: Final = 20


@dataclass(frozen=True, slots=True)
class ShadowCopy:
    """One answered request for the shadow. Neither side changes anything in it.

    `record` holds the response that went out; the shadow's side is still empty. `rows_for` returns its rows and their
    event times by a schema, and raises `RequestError` when they break the contract.
    """

    record: ShadowRecord
    bytes: int
    rows_for: Callable[[RequestSchema], tuple[list[Row], list[int]]]


@dataclass(frozen=True, slots=True)
class ShadowTarget:
    """The shadow, and the version that answers. The latter runs again alongside, so that both are timed alike."""

    shadow: LoadedVersion
    champion: LoadedVersion
    schema: RequestSchema
    champion_schema: RequestSchema
    table: OnlineTable
    rollout: int | None
    """The rollout whose evidence the copies are."""

    @property
    def attempt(self) -> tuple[str, int | None]:
        """The version and its rollout. A hang disables this attempt; in a newer rollout the version may try again."""
        return self.shadow.name, self.rollout


class ShadowThread:
    """Runs copies, one at a time. `offer` and `set_target` belong to the thread that answers requests.

    Parameters
    ----------
    wake
        Called on the shadow's thread when there are records to `take`; it must not wait.
    clock_us
        Microseconds since 1970 UTC.
    deadline_seconds
        How long one copy may take.
    max_queued, max_queued_bytes
        Bounds on the waiting copies.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        clock_us: Callable[[], int],
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        max_queued: int = MAX_QUEUED,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
    ) -> None:
        self.results: Counter[tuple[str, str]] = Counter()
        """Finished copies by version and result."""
        self.dropped: Counter[str] = Counter()
        """Copies by version that did not fit, or came when the shadow was disabled."""
        self.is_path_busy = False
        """True while the request path is busy: the shadow then starts nothing."""
        self.abandoned_threads = 0
        """Threads that hang and cannot be ended."""
        self.disabled_reason = ""
        """Why the version gets no more copies; empty while it does."""
        self._wake = wake
        self._woken = False
        self._finished: deque[bytes] = deque()
        self.clock_us = clock_us
        self.tick_seconds = deadline_seconds / _TICKS
        """The time between two looks whether the shadow has returned."""
        self._deadline_seconds = deadline_seconds
        self._max_queued, self._max_queued_bytes = max_queued, max_queued_bytes
        self._target: ShadowTarget | None = None
        self._disabled_for: tuple[str, int | None] | None = None
        self._worker: _Worker | None = None

    @property
    def queue_length(self) -> int:
        """The number of waiting copies."""
        return 0 if self._worker is None else len(self._worker.queue)

    def set_target(self, target: ShadowTarget | None) -> None:
        """Compare `target` from now on; None stops. In the same rollout a version goes on, disabled or not."""
        before, self._target = self._target, target
        worker = self._worker
        if target is None or (
            before is not None and (before.shadow is not target.shadow or before.attempt != target.attempt)
        ):
            self._worker = None
            if worker is not None:
                worker.stop()
                if before is not None:
                    self.dropped[before.shadow.name] += worker.clear()
        if target is not None and target.attempt != self._disabled_for:
            self.disabled_reason = ""

    def offer(self, copy: ShadowCopy) -> None:
        """Queue a copy; drop and count it if there is no room."""
        target = self._target
        if target is None:
            return
        worker = self._worker
        if worker is None and not self.disabled_reason:
            worker = self._worker = _Worker(self)
        if self.disabled_reason or worker is None or not self._has_room(worker, copy):
            self.dropped[target.shadow.name] += 1
        else:
            worker.put(copy, target)

    def _has_room(self, worker: _Worker, copy: ShadowCopy) -> bool:
        many = len(worker.queue)
        return many < self._max_queued and (not many or worker.bytes + copy.bytes <= self._max_queued_bytes)

    def take(self) -> list[bytes]:
        """Return the records finished since the last call, framed for a segment."""
        self._woken = False  # first: what is finished from here on wakes again
        return [self._finished.popleft() for _ in range(len(self._finished))]

    def stop(self) -> None:
        """Stop. Does not wait for a shadow that hangs."""
        self.set_target(None)

    # --- called by the worker's threads -------------------------------------------------------------------------------

    def finish(self, worker: _Worker, record: ShadowRecord) -> None:
        """Take the result of a copy, unless its worker was abandoned meanwhile."""
        with worker.lock:
            if worker.abandoned:
                return
            worker.current = None
        self._finish(record)

    def disable_hung(self, worker: _Worker, item: tuple[ShadowCopy, ShadowTarget]) -> None:
        """Abandon the worker of a shadow that did not return, and send it no more copies."""
        with worker.lock:
            if worker.current is not item:
                return
            worker.abandoned = True
        copy, target = item
        name = target.shadow.name
        self._disabled_for = target.attempt
        self.abandoned_threads += 1
        self.disabled_reason = f"{name} did not come back from a copy within {self._deadline_seconds:g} s"
        self.dropped[name] += worker.clear()
        _log.warning("shadow disabled: %s", self.disabled_reason)
        latency_us = int(self._deadline_seconds * 1e6)
        self._finish(replace(copy.record, at_us=self.clock_us(), result=HUNG, latency_us=latency_us))

    def _finish(self, record: ShadowRecord) -> None:
        self.results[record.version, record.result] += 1
        self._finished.append(frame(record))
        if not self._woken:
            self._woken = True
            self._wake()

    def yield_to_requests(self) -> None:
        """Wait until the request path is idle, some milliseconds at most."""
        for _ in range(_MAX_YIELDS):
            if not self.is_path_busy:
                return
            time.sleep(_YIELD_SECONDS)


class _Worker:
    """Two threads: one runs copies, the other watches its deadline. Both end when the worker is stopped or abandoned.

    While copies come, `put` takes no lock and wakes no thread: the first thread looks for copies every few
    milliseconds, and sleeps after a second without one.
    """

    def __init__(self, owner: ShadowThread) -> None:
        self.queue: deque[tuple[ShadowCopy, ShadowTarget]] = deque()
        self.lock = threading.Lock()
        self.current: tuple[ShadowCopy, ShadowTarget] | None = None
        """The copy that is running; None between copies."""
        self.abandoned = False
        self._owner = owner
        self._put_bytes = self._taken_bytes = 0  # each counted by one thread only
        self._stopping = self._asleep = False
        self._wake = threading.Event()
        self._ticks = self._since = 0
        threading.Thread(target=self._run_queue, name="shadow", daemon=True).start()
        threading.Thread(target=self._check_deadline, name="shadow-guard", daemon=True).start()

    @property
    def bytes(self) -> int:
        """The size of the waiting requests."""
        return self._put_bytes - self._taken_bytes

    def put(self, copy: ShadowCopy, target: ShadowTarget) -> None:
        self.queue.append((copy, target))
        self._put_bytes += copy.bytes
        if self._asleep:
            self._wake.set()

    def clear(self) -> int:
        """Drop the waiting copies of a stopped worker; return their number."""
        many = len(self.queue)
        self.queue.clear()
        return many

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    @property
    def _is_over(self) -> bool:
        return self._stopping or self.abandoned

    def _run_queue(self) -> None:
        quiet = 0
        while not self._is_over:
            try:
                found = self.queue.popleft()
            except IndexError:
                quiet = self._rest(quiet)
                continue
            quiet = 0
            self._taken_bytes += found[0].bytes
            with self.lock:
                self.current, self._since = found, self._ticks
            owner, began = self._owner, perf_counter()
            owner.finish(self, run_shadow(*found, owner.clock_us, owner.yield_to_requests))
            time.sleep(min(perf_counter() - began, MAX_REST_SECONDS))

    def _rest(self, quiet: int) -> int:
        """Wait for copies; return the number of empty looks."""
        if quiet * POLL_SECONDS < _IDLE_SECONDS:
            time.sleep(POLL_SECONDS)
            return quiet + 1
        self._wake.clear()
        self._asleep = True
        if not self.queue and not self._is_over:
            self._wake.wait(_IDLE_SECONDS)
        self._asleep = False
        return quiet

    def _check_deadline(self) -> None:
        """Count ticks of its own: for a process that was stopped and goes on, no time has gone by."""
        waiting = threading.Event()
        while not self._is_over:
            waiting.wait(self._owner.tick_seconds)
            with self.lock:
                self._ticks += 1
                current = self.current if self._ticks - self._since > _TICKS else None
            if current is not None:
                self._owner.disable_hung(self, current)


def run_shadow(
    copy: ShadowCopy, target: ShadowTarget, clock_us: Callable[[], int], yield_to_requests: Callable[[], None]
) -> ShadowRecord:
    """Run the shadow on `copy`. Never raises.

    The version that answered runs again alongside: both are timed on the same thread with the same rows, in processor
    time. The unit decides which runs first. Before each run, requests of users go first.

    Parameters
    ----------
    copy
        The request and its response.
    target
        The versions to compare.
    clock_us
        Returns microseconds since 1970 UTC.
    yield_to_requests
        Waits until the request path is idle.
    """
    timed: dict[str, tuple[str, Probabilities | None, int]] = {}
    sides = [(target.shadow, target.schema)]
    unit = copy.record.unit
    if copy.record.champion == target.champion.name:
        sides.insert(unit[-1] & 1 if unit else 0, (target.champion, target.champion_schema))
    for version, schema in sides:
        yield_to_requests()
        began = thread_time()
        kind, found = _run(copy, version, schema, target)
        timed[version.name] = kind, found, int((thread_time() - began) * 1e6)
    result, ours, latency_us = timed[target.shadow.name]
    rerun_kind, _, champion_rerun_us = timed.get(target.champion.name, ("", None, 0))
    return replace(
        copy.record,
        at_us=clock_us(),
        result=result,
        latency_us=latency_us,
        champion_rerun_us=champion_rerun_us if rerun_kind == OK else None,
        probabilities=[] if ours is None else ours.tolist(),
    )


def _run(
    copy: ShadowCopy, version: LoadedVersion, schema: RequestSchema, target: ShadowTarget
) -> tuple[str, Probabilities | None]:
    try:
        original, event_times = copy.rows_for(schema)
        rows = [dict(row) for row in original]
        version.fill_aggregates(rows, event_times, target.table)
        _restore_shared_aggregates(rows, original, version, target.champion)
        found = version.run(rows)
    except RequestError:
        return "contract", None
    except Exception:  # whatever a version raises is counted as its failure
        return "exception", None
    kind = invalid_reason(found, len(rows))
    return (kind, None) if kind else (OK, found)


def _restore_shared_aggregates(
    rows: list[Row], original: list[Row], version: LoadedVersion, champion: LoadedVersion
) -> None:
    """Set aggregates that both versions read to the champion's values: newer ones may have come since."""
    shared = [name for name, *_ in set(version.lookups) & set(champion.lookups)]
    for row, before in zip(rows, original, strict=True):
        for name in shared:
            if name in before:
                row[name] = before[name]
