"""The same canaries over many servers: logs that come late, wrong clocks, old shares, and a zone with more errors.

Which window a request is in depends on times, servers and numbers of units alone. So the product's own windows are made once
for a schedule of an hour, and many canaries are drawn on them: of each window the units of either arm, and the bad ones by
zone. `check_against_product` draws one canary request by request, and folds it as the control loop does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.canary_streams import MINUTES, REQUESTS, Setting, alarms, draw, log_e
from holdfast.records import MINUTE_US, Arm
from holdfast.rollout import Canary, RequestOutcome, begin, fold_requests
from holdfast.rollout.evidence.evidence import ERRORS, LATENCY
from holdfast.rollout.evidence.windows import (
    OpenWindow,
    RequestGroup,
    Window,
    close_due,
    gather,
    window_units,
)
from holdfast.stats import hypergeometric

SECOND_US = 1_000_000
ROUND_US = 1 * SECOND_US
MOST_LAG_US = 30 * SECOND_US
MOST_SKEW_US = 5 * SECOND_US
OLD_SHARE = 0.01
LOUD = 3.0
"""How many times the errors the loud zone has; a quarter of the servers is in it."""
RUNS_AT_ONCE = 250
CHECKED_MINUTES = 10
SLOW = 0.002
"""The share of slow requests of both arms."""


@dataclass(frozen=True)
class Fleet:
    """Servers, and how long half of them follow an old share: those that are not in the loud zone first."""

    servers: int
    old_minutes: int

    @property
    def loud(self) -> int:
        return max(1, self.servers // 4)

    def is_loud(self, server: int) -> bool:
        return server < self.loud

    def share(self, server: int, at_us: int, share: float) -> float:
        old = server >= self.servers - self.servers // 2 and at_us < self.old_minutes * MINUTE_US
        return OLD_SHARE if old else share


@dataclass(frozen=True)
class Schedule:
    """The windows of an hour, each of shape (windows,): when they were folded, their share, and their units by zone."""

    minutes: np.ndarray
    share: np.ndarray
    quiet: np.ndarray
    loud: np.ndarray


@dataclass(frozen=True)
class Request:
    """One request: its server, the true time, and the server's clock."""

    server: int
    at_us: int
    logged_us: int
    unit: bytes


def schedule(fleet: Fleet, policy: Canary, share: float, rng: np.random.Generator) -> Schedule:
    """The product's windows of an hour of requests, which nobody has drawn an arm for yet."""
    closed = gathered(requests_of(fleet, rng), fleet, policy, share, rng, {})
    zones = [
        Counter(fleet.is_loud(int(each.unit.split(b"-")[0])) for each in window.requests)
        for window, _ in closed
    ]
    return Schedule(
        np.array([minute for _, minute in closed]),
        np.array([window.share_ppm / 1e6 for window, _ in closed]),
        np.array([zone[False] for zone in zones]),
        np.array([zone[True] for zone in zones]),
    )


def requests_of(fleet: Fleet, rng: np.random.Generator, minutes: int = MINUTES) -> list[Request]:
    """An hour of requests, each of a unit of its own, over all servers evenly."""
    skew_us = rng.integers(-MOST_SKEW_US, MOST_SKEW_US + 1, fleet.servers)
    many = rng.poisson(REQUESTS * minutes)
    at_us = np.sort(rng.integers(0, minutes * MINUTE_US, many))
    servers = rng.integers(0, fleet.servers, many)
    return [
        Request(int(server), int(at), int(at + skew_us[server]), b"%d-%d" % (server, number))
        for number, (server, at) in enumerate(zip(servers, at_us, strict=True))
    ]


def gathered(
    requests: list[Request],
    fleet: Fleet,
    policy: Canary,
    share: float,
    rng: np.random.Generator,
    outcomes: Mapping[bytes, RequestOutcome],
) -> list[tuple[Window, float]]:
    """The windows that a control loop closes which collects each second, and after how many minutes it folded each."""
    lag_us = rng.integers(0, MOST_LAG_US + 1, fleet.servers)
    logs: list[list[Request]] = [[] for _ in range(fleet.servers)]
    for each in requests:
        logs[each.server].append(each)
    read = [0] * fleet.servers
    opened: tuple[OpenWindow, ...] = ()
    closed: list[tuple[Window, float]] = []
    now_us = 0
    last_us = max(each.at_us for each in requests) + MOST_LAG_US
    while opened or now_us <= last_us:
        now_us += ROUND_US
        for server in rng.permutation(fleet.servers).tolist():
            log, begun = logs[server], read[server]
            while read[server] < len(log) and log[read[server]].at_us <= now_us - lag_us[server]:
                read[server] += 1
            groups = _groups(log[begun : read[server]], fleet, share, outcomes)
            if groups:
                found = gather(opened, groups, most_units=window_units(policy), now_us=now_us)
                opened = found.opened
                closed += [(window, now_us / MINUTE_US) for window in found.closed]
        due = close_due(opened, now_us)
        opened = due.opened
        closed += [(window, now_us / MINUTE_US) for window in due.closed]
    return closed


def _groups(
    requests: list[Request], fleet: Fleet, share: float, outcomes: Mapping[bytes, RequestOutcome]
) -> list[RequestGroup]:
    found: dict[tuple[int, int], list[RequestOutcome]] = {}
    for each in requests:
        minute = each.logged_us - each.logged_us % MINUTE_US
        share_ppm = round(fleet.share(each.server, each.at_us, share) * 1e6)
        plain = outcomes.get(each.unit) or RequestOutcome(each.unit, Arm.CHAMPION, False, 900.0)
        found.setdefault((minute, share_ppm), []).append(plain)
    return [RequestGroup(1, *key, tuple(outcomes)) for key, outcomes in sorted(found.items())]


def rates_of(setting: Setting, fleet: Fleet) -> tuple[float, float]:
    """The champion's share of errors in the quiet and in the loud zone; over all servers it is the setting's."""
    quiet = setting.error_rate * fleet.servers / (fleet.servers + (LOUD - 1.0) * fleet.loud)
    return quiet, LOUD * quiet


def judge(
    setting: Setting, fleet: Fleet, planned: Sequence[Schedule], policy: Canary, runs: int, seed: int
) -> np.ndarray:
    """The minute in which each of `runs` canaries was rolled back, 0 where it was not; all metrics together."""
    found = []
    rates = rates_of(setting, fleet)
    for number, each in enumerate(planned):
        rng = np.random.default_rng([seed, number])
        left = runs // len(planned) + (number < runs % len(planned))
        while left:
            some = min(left, RUNS_AT_ONCE)
            evidence = log_e(draw(setting, some, rng, policy, peers=False), policy)
            evidence[ERRORS] = _paths(each, rates, setting.risk_ratio, policy.error_margin, some, rng)
            evidence[LATENCY] = _paths(each, (SLOW, SLOW), 1.0, policy.latency_margin, some, rng)
            found.append(alarms(evidence, policy))
            left -= some
    return np.concatenate(found)


def _paths(
    planned: Schedule,
    rates: tuple[float, float],
    ratio: float,
    margin: float,
    runs: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The largest log e that each run has reached by the end of each minute, shape (runs, minutes)."""
    shape = (runs, planned.share.size)
    counts = np.zeros((4, *shape), np.int64)
    for units, rate in zip((planned.quiet, planned.loud), rates, strict=True):
        ours = rng.binomial(units, planned.share, shape)
        theirs = units - ours
        counts += np.stack(
            [ours, rng.binomial(ours, min(1.0, rate * ratio)), theirs, rng.binomial(theirs, rate)]
        )
    our_units, our_bad, their_units, their_bad = counts
    log_e_paths = hypergeometric.log_e_paths(our_units, our_bad, their_units, their_bad, margin)
    paths = np.maximum.accumulate(log_e_paths, axis=1)
    folded = np.searchsorted(planned.minutes, np.arange(1, MINUTES + 1), side="right")
    return np.where(folded > 0, paths[:, np.maximum(folded - 1, 0)], 0.0)


def check_against_product(setting: Setting, fleet: Fleet, policy: Canary, seed: int) -> float:
    """Fold one canary request by request; the largest difference of its log e to that of its windows' counts.

    Raises `AssertionError` when outcomes and arms change which window a request is in.
    """
    rng = np.random.default_rng(seed)
    requests = requests_of(fleet, rng, CHECKED_MINUTES)
    drawn = {}
    for each in requests:
        ours = rng.random() < fleet.share(each.server, each.at_us, setting.share)
        rate = rates_of(setting, fleet)[fleet.is_loud(each.server)] * (setting.risk_ratio if ours else 1.0)
        arm = Arm.CHALLENGER if ours else Arm.CHAMPION
        drawn[each.unit] = RequestOutcome(each.unit, arm, rng.random() < rate, 900.0)
    plain, closed = (
        gathered(requests, fleet, policy, setting.share, np.random.default_rng(seed), outcomes)
        for outcomes in ({}, drawn)
    )
    assert [_names(window) for window, _ in plain] == [_names(window) for window, _ in closed]
    (state,), counts = begin(policy, 0.02)[:1], []
    reached = []
    for window, _ in closed:
        (state,) = fold_requests([state], window.requests, window.minute_start_us)
        reached.append(state.log_e)
        arms = [
            [each for each in window.requests if each.arm is arm] for arm in (Arm.CHALLENGER, Arm.CHAMPION)
        ]
        counts.append([number for arm in arms for number in (len(arm), sum(each.failed for each in arm))])
    ours, our_bad, theirs, their_bad = np.array(counts).T[:, None, :]
    (paths,) = hypergeometric.log_e_paths(ours, our_bad, theirs, their_bad, policy.error_margin)
    return float(np.abs(np.maximum(np.maximum.accumulate(paths), 0.0) - reached).max())


def _names(window: Window) -> set[bytes]:
    return {each.unit for each in window.requests}
