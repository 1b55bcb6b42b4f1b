"""Servers as the control plane sees them: they follow plans late, answer, log what they answered, and begin again from what
they kept.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b

from holdfast.monitor.latency import bucket_of
from holdfast.monitor.usage import UsageRow
from holdfast.records import EVERYTHING_PPM, Arm, TrafficPlan
from holdfast.rollout import RequestOutcome
from holdfast.rollout.evidence.windows import RequestGroup

FAST_US, SLOW_US = 900.0, 90_000.0
UNITS = 1000
"""The units of requests, again and again, at any server: fewer than the bad ones that the evidence remembers."""


@cache
def _place(rollout: int | None, unit: int) -> int:
    """Where a unit lies in this rollout, from 0 to below everything: below the challenger's share it is the challenger's."""
    return int.from_bytes(blake2b(f"{rollout}/{unit}".encode()).digest()[:8], "big") % EVERYTHING_PPM


@dataclass(frozen=True)
class Logged:
    """One record of a log: what was answered in a time."""

    requests: int
    groups: tuple[RequestGroup, ...]
    usage: tuple[UsageRow, ...]


@dataclass
class SimulatedServer:
    """One server. What `bad` versions answer fails or is slow half of the time."""

    name: str
    chance: random.Random
    bad: set[str]
    follows: TrafficPlan | None = None
    kept: TrafficPlan | None = None
    reachable: bool = True
    disconnected: bool = False
    log: list[Logged] = field(default_factory=list)

    @property
    def kept_plan(self) -> int:
        """The newest plan that it will know after a restart."""
        return 0 if self.kept is None else self.kept.plan_id

    def follow(self, newest: TrafficPlan | None) -> None:
        """Ask the ledger for the newest plan, and do as it reports; what is older than what it does is no news."""
        if self.disconnected or newest is None:
            return
        if self.follows is None or newest.plan_id > self.follows.plan_id:
            self.follows = newest
            if self.chance.random() < 0.8:
                self.keep()

    def keep(self) -> None:
        """Bring the local copy up to date."""
        self.kept = self.follows

    def restart(self) -> None:
        """Die, and begin from the local copy."""
        self.follows = self.kept

    def heal(self) -> None:
        self.reachable, self.disconnected = True, False

    def response(self, minute_start_us: int) -> list[str]:
        """Answer some users by the plan that is followed; the versions that answered, each once."""
        plan = self.follows
        if plan is None:
            return []
        responded: list[RequestOutcome] = []
        counts: dict[tuple[str, Arm, str], list[float]] = defaultdict(list)
        for _ in range(self.chance.randint(5, 40)):
            unit = self.chance.randrange(UNITS)
            ours = plan.challenger is not None and _place(plan.rollout_id, unit) < plan.share_ppm
            version = plan.challenger if ours and plan.challenger else plan.champion
            arm = Arm.CHALLENGER if ours else Arm.CHAMPION
            rate = 0.5 if version in self.bad else 0.002
            failed, slow = self.chance.random() < rate, self.chance.random() < rate
            latency_us = SLOW_US if slow else FAST_US
            responded.append(RequestOutcome(unit.to_bytes(8, "big"), arm, failed, latency_us))
            counts[version, arm, "exception" if failed else "ok"].append(latency_us)
        groups = (
            ()
            if plan.rollout_id is None or plan.challenger is None
            else (RequestGroup(plan.rollout_id, minute_start_us, plan.share_ppm, tuple(responded)),)
        )
        usage = tuple(_usage(key, latencies, minute_start_us) for key, latencies in sorted(counts.items()))
        self.log.append(Logged(len(responded), groups, usage))
        return sorted({version for version, _, _ in counts})


def _usage(key: tuple[str, Arm, str], latencies: list[float], minute_start_us: int) -> UsageRow:
    version, arm, result = key
    buckets: dict[int, int] = defaultdict(int)
    for each in latencies:
        buckets[bucket_of(round(each))] += 1
    return UsageRow(
        version,
        arm,
        result,
        minute_start_us,
        len(latencies),
        len(latencies),
        round(sum(latencies)),
        dict(buckets),
    )
