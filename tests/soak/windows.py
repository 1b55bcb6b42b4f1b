"""The same requests over 1 to 100 servers, collected in many orders and cadences: the evidence must be that of one server.

    python -m tests.soak.windows

Half an hour of a canary at 1,200 requests a minute, of which 1 % fail, and 5 % of the challenger's. Which units happen to share
a window moves log e by about half a unit, whatever its size, so a small harm would drown in that. Each order draws which
server answers which request, how far its clock is off, how often logs are collected, how many records a round takes, and one
server whose log comes home an hour late. `--planted` plants a mistake that the same rules must find.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from benchmarks.command import Command
from holdfast.records import MINUTE_US, Arm
from holdfast.rollout import Canary, MetricState, RequestOutcome, begin, fold_requests
from holdfast.rollout.evidence.windows import (
    OpenWindow,
    RequestGroup,
    Window,
    close_due,
    gather,
    window_units,
)

SECOND_US: Final = 1_000_000
HOUR_US: Final = 60 * MINUTE_US
BEGIN_US: Final = 28_333_333 * MINUTE_US
MINUTES: Final = 30
PER_MINUTE: Final = 1_200
SHARE_PPM: Final = 100_000
OLD_SHARE_PPM: Final = 10_000
POLICY: Final = Canary(steps=(1, 10, 100))
TOLERANCE: Final = 0.05
SERVERS: Final = (1, 5, 20, 100)
CADENCES: Final = (20.0, 1.0, 90.0, 0.2, 5.0, 0.05)
RATE: Final = 0.06
QUIET: Final = 0.1
"""What part of these errors there are in the zone of the servers that follow an old share."""


@dataclass(frozen=True)
class Request:
    """One request, by the true time."""

    at_us: int
    outcome: RequestOutcome


@dataclass
class Home:
    """How the requests of one order come home: to the evidence, in windows."""

    mistake: str
    states: tuple[MetricState, ...] = begin(POLICY, 0.020)
    opened: tuple[OpenWindow, ...] = ()
    closed: list[Window] = field(default_factory=list)
    _closed_places: set[tuple[int, int]] = field(default_factory=set)

    def collect(self, server: str, groups: list[RequestGroup], now_us: int) -> None:
        found = gather(
            self.opened, self._spoilt(server, groups), most_units=window_units(POLICY), now_us=now_us
        )
        self._fold(found.opened, found.closed)

    def end_round(self, now_us: int) -> None:
        found = close_due(self.opened, now_us)
        self._fold(found.opened, found.closed)

    def _fold(self, opened: tuple[OpenWindow, ...], closed: Sequence[Window]) -> None:
        self.opened = opened
        for window in closed:
            self.states = fold_requests(self.states, window.requests, window.minute_start_us)
            self._closed_places.add((window.minute_start_us, window.share_ppm))
        self.closed += closed

    def _spoilt(self, server: str, groups: list[RequestGroup]) -> list[RequestGroup]:
        match self.mistake:
            case "pooled over shares":
                return [replace(each, share_ppm=0) for each in groups]
            case "counted on each server":
                return [replace(each, requests=tuple(map(_of(server), each.requests))) for each in groups]
            case "late window dropped":
                return [
                    each
                    for each in groups
                    if (each.minute_start_us, each.share_ppm) not in self._closed_places
                ]
            case _:
                return groups


PLANTED: Final = ("pooled over shares", "counted on each server", "late window dropped")


@dataclass(frozen=True)
class Found:
    """What all orders came to, and the rules that were broken."""

    reference: float
    log_e: dict[int, list[float]]
    broken: list[str]


def check(*, orders: int, servers: Sequence[int] = SERVERS, seed: int = 1, mistake: str = "") -> Found:
    """Play `orders` orders of each number of servers, and return what was found.

    A twentieth of the units come back within their minute, mostly to another server.
    """
    requests = drawn(seed)
    reference = log_e_of(bring_home(requests, 1, random.Random(seed), cadence=1.0))
    found: dict[int, list[float]] = {many: [] for many in servers}
    broken: list[str] = []
    for many in servers:
        for order in range(orders):
            chance = random.Random(f"{seed} {many} {order}")
            home = bring_home(
                requests, many, chance, cadence=CADENCES[order % len(CADENCES)], mistake=mistake
            )
            found[many].append(log_e_of(home))
            broken += [
                f"{many} servers, order {order}: {each}" for each in _broken(home, requests, reference)
            ]
    if mistake in ("", "pooled over shares"):
        alarm = log_e_of(old_share(random.Random(seed), mistake))
        if alarm >= POLICY.log_bound_of("errors"):
            broken.append(
                f"servers at an old share in a quiet zone make log e {alarm:.1f} of two equal versions"
            )
    return Found(reference, found, broken)


def _broken(home: Home, requests: Sequence[Request], reference: float) -> list[str]:
    errors = home.states[0]
    broken = []
    if abs(log_e_of(home) - reference) > TOLERANCE * reference:
        broken.append(f"log e is {log_e_of(home):.2f}, that of one server {reference:.2f}")
    folded = sum(each.requests for window in home.closed for each in window.requests)
    if folded != len(requests):
        broken.append(f"{folded} of {len(requests)} requests are in a window")
    for window in home.closed:
        units = Counter(each.unit.partition(b"@")[0] for each in window.requests)
        if max(units.values()) > 1:
            broken.append(f"a unit is {max(units.values())} times in a window")
            break
    bad = len({each.outcome.unit for each in requests if each.outcome.failed})
    if errors.challenger_total + errors.champion_total > bad:
        broken.append(f"{errors.challenger_total + errors.champion_total} bad units were counted, of {bad}")
    return broken


def log_e_of(home: Home) -> float:
    """The evidence of harm by errors."""
    return home.states[0].log_e


def drawn(seed: int) -> list[Request]:
    """36,000 requests of half an hour, the challenger's with five times the errors."""
    chance = random.Random(seed)
    found: list[Request] = []
    for number in range(MINUTES * PER_MINUTE):
        at_us = BEGIN_US + number * MINUTE_US // PER_MINUTE
        again = number % 20 == 19 and found[-9].at_us // MINUTE_US == at_us // MINUTE_US
        if again:  # a session clicks again, as well as the first time
            outcome = found[-9].outcome
        else:
            arm = Arm.CHALLENGER if chance.random() < SHARE_PPM / 1e6 else Arm.CHAMPION
            failed = chance.random() < (0.05 if arm is Arm.CHALLENGER else 0.01)
            outcome = RequestOutcome(b"%d" % number, arm, failed, 900.0)
        found.append(Request(at_us, outcome))
    return found


def bring_home(
    requests: Sequence[Request], servers: int, chance: random.Random, *, cadence: float, mistake: str = ""
) -> Home:
    """Collect the requests from `servers` servers, each `cadence` seconds."""
    home = Home(mistake)
    late = f"s{chance.randrange(servers)}" if servers > 1 else ""
    skew_us = {
        f"s{number}": chance.randint(-5, 5) * SECOND_US if servers > 1 else 0 for number in range(servers)
    }
    logs: dict[str, list[Request]] = {name: [] for name in skew_us}
    for each in requests:
        name = f"s{chance.randrange(servers)}"
        logs[name].append(replace(each, at_us=each.at_us + skew_us[name]))
    read = dict.fromkeys(logs, 0)
    now_us, names = BEGIN_US, list(logs)
    while now_us < BEGIN_US + 2 * HOUR_US:
        now_us += round(cadence * SECOND_US * chance.uniform(0.5, 1.5))
        chance.shuffle(names)
        for name in names:
            if name == late and now_us < BEGIN_US + HOUR_US:
                continue
            begin, log = read[name], logs[name]
            end = begin
            while end < len(log) and log[end].at_us - skew_us[name] <= now_us:
                end += 1
            if end > begin:
                home.collect(name, _groups(log[begin:end]), now_us)
                read[name] = end
        home.end_round(now_us)
        if all(read[name] == len(logs[name]) for name in names) and not home.opened:
            break
        if now_us > BEGIN_US + (MINUTES + 3) * MINUTE_US:
            cadence = 20.0  # nothing happens until the late log comes home
    return home


def old_share(chance: random.Random, mistake: str) -> Home:
    """Two equal versions; half of the servers have an old share of 1 % and a tenth of the errors."""
    home = Home(mistake)
    for minute in range(MINUTES):
        now_us = BEGIN_US + minute * MINUTE_US
        outcomes: dict[int, list[RequestOutcome]] = {SHARE_PPM: [], OLD_SHARE_PPM: []}
        for share_ppm, rate in ((SHARE_PPM, RATE), (OLD_SHARE_PPM, RATE * QUIET)):
            for number in range(PER_MINUTE // 2):
                arm = Arm.CHALLENGER if chance.random() < share_ppm / 1e6 else Arm.CHAMPION
                unit = b"%d-%d-%d" % (minute, share_ppm, number)
                outcomes[share_ppm].append(RequestOutcome(unit, arm, chance.random() < rate, 900.0))
        for at in range(0, PER_MINUTE // 2, 20):
            for share_ppm, each in outcomes.items():
                home.collect("s", [RequestGroup(1, now_us, share_ppm, tuple(each[at : at + 20]))], now_us)
        home.end_round(now_us + 2 * MINUTE_US)
    return home


def _groups(records: Sequence[Request]) -> list[RequestGroup]:
    by_minute: dict[int, list[RequestOutcome]] = {}
    for each in records:
        by_minute.setdefault(each.at_us - each.at_us % MINUTE_US, []).append(each.outcome)
    return [
        RequestGroup(1, minute, SHARE_PPM, tuple(outcomes)) for minute, outcomes in sorted(by_minute.items())
    ]


def _of(server: str) -> Callable[[RequestOutcome], RequestOutcome]:
    return lambda request: replace(request, unit=request.unit + b"@" + server.encode())


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.soak.windows", __doc__)
    command.size("--orders", 40, 1, help="orders of each number of servers")
    command.option("--seed", type=int, default=1)
    command.option("--planted", choices=PLANTED, default="", help="with this mistake")
    options = command.parse(arguments)
    began = time.perf_counter()
    found = check(orders=options.orders, seed=options.seed, mistake=options.planted)
    print("\n".join(found.broken))
    spread = {str(many): [round(min(each), 2), round(max(each), 2)] for many, each in found.log_e.items()}
    figures = {"reference": round(found.reference, 2), "log_e": spread, "orders": options.orders}
    figures |= {"broken": len(found.broken), "seconds": round(time.perf_counter() - began, 1)}
    return command.finish(figures, passed=not found.broken)


if __name__ == "__main__":
    sys.exit(main())
