"""What the evidence must be: reckoned from what the servers logged, as far as the ledger reports that it was collected.

It bounds the evidence from below as from above, exactly: what is collected is counted, once, and a rollout moves on only
when its policy's units were there. It shares no code with the folds that it checks.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from holdfast.records import Arm
from holdfast.rollout import RequestOutcome, State
from holdfast.rollout.evidence.windows import RequestGroup
from tests.simulation.ledger_view import Evidence, Rollout, Seen, requested_by
from tests.simulation.simulated_servers import Logged

ENDED = (State.ROLLED_BACK, State.CANCELLED)


@dataclass
class Count:
    """One metric of one rollout, as it must be."""

    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """Units of the challenger, how many of them bad, and the same of the champion, over all windows."""
    bad: set[bytes] = field(default_factory=set)
    """The units that were bad, and are not at risk any more. There are too few units for any to be forgotten."""
    of_step: set[bytes] = field(default_factory=set)
    """The challenger's units that were collected since the step began."""

    def fold(self, window: Sequence[RequestOutcome], bound_us: float | None, *, of_step: bool) -> None:
        """Each unit of a window once, by what is worst of it; those that were bad before not at all."""
        worst: dict[tuple[Arm, bytes], bool] = defaultdict(bool)
        for request in window:
            if request.unit not in self.bad:
                is_bad = request.failed if bound_us is None else request.latency_us > bound_us
                worst[request.arm, request.unit] |= is_bad
        for (arm, unit), is_bad in worst.items():
            first = 0 if arm is Arm.CHALLENGER else 2
            self.counts[first] += 1
            self.counts[first + 1] += is_bad
            if is_bad:
                self.bad.add(unit)
            if arm is Arm.CHALLENGER and of_step:
                self.of_step.add(unit)


@dataclass
class Reckoning:
    """Follows the ledger from commit to commit, and computes what the evidence must be."""

    require: Callable[[bool, str], None]
    logs: dict[str, Sequence[Logged]] = field(default_factory=dict)
    """What each server really logged."""
    handed: dict[tuple[str, str], tuple[int, tuple[RequestGroup, ...]]] = field(default_factory=dict)
    """By actor and server from which record on it hands over requests, and in which order."""
    has_usage: bool = False
    """Whether usage is handed over as well."""
    _counts: dict[tuple[int, str], Count] = field(default_factory=dict)
    _usage: Counter[tuple[str, str]] = field(default_factory=Counter)
    _open: dict[tuple[int, int, int], list[RequestOutcome]] = field(default_factory=dict)
    """By rollout, minute and share what was collected and is no evidence yet."""

    def committed(self, name: str, before: Seen, after: Seen) -> None:
        """`name` has committed what leads from `before` to `after`."""
        for server in before.collected.keys() | after.collected.keys():
            self._collected(name, server, before, after)
        self._closed_by_time(before, after)
        for number, row in after.rollouts.items():
            was = before.rollouts.get(number)
            if was is not None and was != row:
                self._moved(number, was, row)
        if after.fenced != before.fenced:
            self._compared(before, after)

    def ended(self, database: sqlite3.Connection) -> None:
        """What was collected is in the usage of each version, too."""
        if self.has_usage:
            found = database.execute(
                "SELECT version, result, SUM(requests) FROM request_counts GROUP BY 1, 2"
            )
            reported = {(version, result): requests for version, result, requests in found}
            self.require(reported == self._usage, f"usage is {reported}; collected were {self._usage}")

    def _collected(self, name: str, server: str, before: Seen, after: Seen) -> None:
        (begin, had), (end, has) = (seen.collected.get(server, (0, 0)) for seen in (before, after))
        self.require(begin <= end <= len(self.logs[server]), f"{server} was collected from {begin} to {end}")
        records = self.logs[server][begin:end]
        requests = sum(record.requests for record in records)
        self.require(has - had == requests, f"{requests} requests of {server} were collected as {has - had}")
        if not records:
            return
        groups = [group for record in records for group in record.groups]
        first, ordered = self.handed.get((name, server), (-1, ()))
        if first == begin and {id(each) for each in ordered} == {id(each) for each in groups}:
            groups = list(ordered)
        for group in groups:
            if _goes_on(before, group.rollout_id):
                self._arrived(group, before)
        for each in (row for record in records for row in record.usage):
            self._usage[each.version, each.result] += each.requests

    def _arrived(self, group: RequestGroup, before: Seen) -> None:
        """Request by request: a window closes with its last unit."""
        key = group.rollout_id, group.minute_start_us, group.share_ppm
        most = requested_by(before.rollouts[group.rollout_id].policy).window_units
        for request in group.requests:
            window = self._open.setdefault(key, [])
            window.append(request)
            if len({each.unit for each in window}) == most:
                self._fold(key, before)

    def _closed_by_time(self, before: Seen, after: Seen) -> None:
        """What is in no window any more is evidence, unless its rollout has ended; every other is as it must be."""
        closed = sorted(self._open.keys() - after.windows.keys())
        # Time closes windows after a round, never while a log is collected.
        self.require(
            not closed or after.collected == before.collected, f"{closed} were closed before their time"
        )
        for key in closed:
            if _goes_on(before, key[0]):
                self._fold(key, before)
            else:
                del self._open[key]
        expected = {key: len({each.unit for each in window}) for key, window in self._open.items()}
        self.require(
            after.windows == expected,
            f"the open windows are {after.windows}; what was collected makes {expected}",
        )

    def _fold(self, key: tuple[int, int, int], before: Seen) -> None:
        window = self._open.pop(key)
        rollout = before.rollouts[key[0]]
        of_step = key[2] == _share_of_step(rollout)
        for (number, _), row in before.evidence.items():
            if number == key[0]:
                self._of(row).fold(window, row.latency_bound_us, of_step=of_step)

    def _of(self, row: Evidence) -> Count:
        # Nothing is labelled here, so a metric that is not of requests stays as it began.
        key = (row.rollout, row.metric)
        return self._counts.setdefault(key, Count()) if row.metric in ("errors", "latency") else Count()

    def _moved(self, number: int, was: Rollout, row: Rollout) -> None:
        requested = requested_by(row.policy)
        self.require(was.policy == row.policy, f"rollout {number} has another policy now")
        moves = was.state, row.state
        if moves == (State.PENDING, State.VERIFYING):
            self.require(row.champion is None, f"rollout {number} was compared with no version")
        if moves == (State.PENDING, State.CANARY):
            known = self._usage[row.champion or "", "ok"]
            self.require(
                known >= requested.latency_requests, f"rollout {number} freezes a bound from {known} requests"
            )
        if moves in ((State.CANARY, State.CANARY), (State.CANARY, State.VERIFYING)):
            self._has_enough(number, was, row)
        if row.step != was.step or (row.state is State.PROMOTED and row.champion and requested.observed):
            for metric in requested.metrics:
                self._counts.setdefault((number, metric), Count()).of_step.clear()

    def _has_enough(self, number: int, was: Rollout, row: Rollout) -> None:
        """Before the next share: the units that the policy requests, and the time."""
        requested = requested_by(row.policy)
        for metric in requested.metrics:
            count = self._counts.get((number, metric), Count())
            for many, whose in ((len(count.of_step), "the challenger"), (count.counts[2], "the champion")):
                self.require(
                    many >= requested.units_per_step,
                    f"rollout {number} left step {was.step} with {many} of {requested.units_per_step} units of {whose} "
                    f"for {metric}",
                )
        lasted_us = row.step_started_at_us - was.step_started_at_us
        self.require(
            lasted_us >= requested.min_step_duration_us,
            f"rollout {number} left step {was.step} after {lasted_us} of {requested.min_step_duration_us} us",
        )
        if row.state is State.VERIFYING:
            last = len(requested.shares_ppm) - 1
            self.require(was.step == last, f"rollout {number} left out what follows step {was.step}")

    def _compared(self, before: Seen, after: Seen) -> None:
        for key, row in before.evidence.items():
            now = after.evidence.get(key)
            self.require(now is not None, f"the evidence of {key} is gone")
            assert now is not None
            fixed = (row.log_bound, row.latency_bound_us) == (now.log_bound, now.latency_bound_us)
            self.require(fixed, f"the bounds of {key} moved from {row} to {now}")
            self.require(now.log_e >= row.log_e, f"the evidence of harm of {key} shrank from {row} to {now}")
        for key, row in after.evidence.items():
            if row.metric == "rate":
                continue
            count = self._of(row)
            self.require(
                row.counts == tuple(count.counts),
                f"{key} counts {row.counts}; what was collected holds {tuple(count.counts)}",
            )
            enough = requested_by(after.rollouts[row.rollout].policy).units_per_step
            reported, really = min(row.step_units, enough), min(len(count.of_step), enough)
            self.require(
                reported == really, f"{key} counts {reported} units in this step; there were {really}"
            )


def _share_of_step(rollout: Rollout) -> int:
    if rollout.state in (State.VERIFYING, State.PROMOTED):
        return 1_000_000
    return requested_by(rollout.policy).shares_ppm[rollout.step]


def _goes_on(seen: Seen, number: int) -> bool:
    """Whether what comes of this rollout is evidence still: it is under way, or its promotion is watched."""
    state = seen.rollouts[number].state
    return state not in ENDED and (state is not State.PROMOTED or number in seen.observed)
