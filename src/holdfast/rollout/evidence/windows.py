"""Gather the requests of all servers into the windows of a rollout's sequential tests.

A window holds requests of one rollout, one minute and one share of the challenger, whichever server answered them and in
whichever order their logs were collected. A unit counts once in a window. A window closes when it has `window_units` units, or
`LINGER_US` after its minute has ended by the clock of the control loop; then it is folded and takes no more requests. What is
collected later makes a window of its own. So the evidence hardly depends on how requests fell on servers and rounds:
a window of n units keeps 1 - 1/n of the information of a larger one, and windows of one unit keep nothing.

Why the tests keep their guarantee. Within a window each unit was given to the challenger with the same chance, its share.
Which window a request is in follows from times, shares and numbers of units, never from whether a request failed or its
latency. So, given the units of each arm in each window and the total of bad ones, the bad units of the challenger are
hypergeometric under the null hypothesis (`holdfast.stats.HypergeometricTest`), whatever the other windows hold. Windows are
folded one after the other, so the e-values multiply to a martingale, also when windows of different servers or minutes are
open side by side: the size of a window and when it is folded are known without its outcomes. Even when the time of a
record depends on the outcome, as with a timeout, the arm of a unit remains independent of it under the null hypothesis, and
the same law holds.

Requests under different shares never share a window: if ten servers in a quiet zone follow an old plan, most of the
champion's units are theirs, and a comparison over both shares would take the quiet for the champion's merit.

Source: the log-rank test conditions on the numbers at risk in the same way: J. ter Schure et al., New Engl. J. Stat. Data Sci.
(2024), doi 10.51387/24-NEJSDS65.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self, TypeAlias

import msgspec

from holdfast.errors import IntegrityError
from holdfast.records import MINUTE_US, Arm
from holdfast.rollout.evidence.records import RequestOutcome
from holdfast.rollout.model.policy import Canary

MOST_UNITS: Final = 200
"""How many units close a window: half a percent of its information is lost against a window of any size."""

LEAST_UNITS: Final = 20
"""How many units a window of a policy with small steps takes: five percent are lost."""

LINGER_US: Final = 2_000_000
"""How long after its minute a window stays open, microseconds: servers' logs are collected in turn."""

MOST_OPEN: Final = 120
"""How many windows of a rollout are open at once; of more, those that would close first are closed."""

MOST_ENTRIES: Final = 10_000
"""How many different requests and names of slices close a window, so that an open one stays small."""

UNKNOWN_SHARE: Final = -1
"""The share of records that state none: they are of servers of an earlier release, and are pooled by the minute alone."""


@dataclass(frozen=True, slots=True)
class RequestGroup:
    """Requests of one rollout, one minute and one share, as one part of a server's log has them.

    `minute_start_us` is in microseconds since 1970 UTC by the server's clock. `share_ppm` is the challenger's share of the
    plan under which they were answered, parts per million, or `UNKNOWN_SHARE`.
    """

    rollout_id: int
    minute_start_us: int
    share_ppm: int
    requests: tuple[RequestOutcome, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """A window of one rollout. Requests of one unit that are alike are one, with their number and their longest latency."""

    minute_start_us: int
    share_ppm: int
    requests: tuple[RequestOutcome, ...]


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """A window that takes more requests, and when it was opened and closes by the control loop's clock."""

    window: Window
    opened_at_us: int
    closes_at_us: int

    @property
    def units(self) -> int:
        """Return how many different units it has."""
        return len({each.unit for each in self.window.requests})

    def is_due(self, now_us: int) -> bool:
        """Return True if it closes at `now_us`. It also does when the clock went back: another process has taken over."""
        return not self.opened_at_us <= now_us < self.closes_at_us


@dataclass(frozen=True, slots=True)
class Gathered:
    """The windows of a rollout that are open, and those that were closed, in the order in which they are to be folded."""

    opened: tuple[OpenWindow, ...]
    closed: tuple[Window, ...]


def window_units(policy: Canary) -> int:
    """Return how many units close a window of `policy`.

    A step that needs few units is not to wait for a window that holds more.

    >>> window_units(Canary()), window_units(Canary(units_per_step=50)), window_units(Canary(units_per_step=1))
    (200, 50, 20)
    """
    return max(LEAST_UNITS, min(MOST_UNITS, policy.units_per_step))


def gather(
    opened: Iterable[OpenWindow], groups: Iterable[RequestGroup], *, most_units: int, now_us: int
) -> Gathered:
    """Add the requests of one rollout to its windows, and close those that are full.

    Parameters
    ----------
    opened
        The open windows of the rollout, at most one for each minute and share.
    groups
        What was collected, of any minutes and shares, in any order.
    most_units
        How many units close a window, at least 1.
    now_us
        The control loop's clock, microseconds since 1970 UTC.

    >>> def arrived(*units: bytes) -> RequestGroup:
    ...     return RequestGroup(1, 0, 10_000, tuple(RequestOutcome(unit, Arm.CHAMPION, False, 900.0) for unit in units))
    >>> first = gather([], [arrived(b"a", b"b")], most_units=3, now_us=0)
    >>> after = gather(first.opened, [arrived(b"b", b"c", b"d")], most_units=3, now_us=0)
    >>> [[each.unit for each in window.requests] for window in after.closed], after.opened[0].units
    ([[b'a', b'b', b'c']], 1)
    """
    untouched = {(each.window.minute_start_us, each.window.share_ppm): each for each in opened}
    filling: dict[tuple[int, int], _Filling] = {}
    closed: list[Window] = []
    for group in groups:
        key = group.minute_start_us, group.share_ppm
        for request in group.requests:
            window = filling.get(key)
            if window is None:
                known = untouched.pop(key, None)
                closes_at_us = _closes_at_us(group.minute_start_us, now_us)
                window = _Filling(*key, now_us, closes_at_us) if known is None else _Filling.of(known)
                filling[key] = window
            window.add(request)
            if len(window.units) >= most_units or window.size >= MOST_ENTRIES:
                closed.append(filling.pop(key).open_window().window)
    left = [*untouched.values(), *(each.open_window() for each in filling.values())]
    left.sort(key=lambda each: (each.closes_at_us, each.window.minute_start_us, each.window.share_ppm))
    excess = max(0, len(left) - MOST_OPEN)
    closed += [each.window for each in left[:excess]]
    return Gathered(tuple(left[excess:]), tuple(closed))


def close_due(opened: Iterable[OpenWindow], now_us: int) -> Gathered:
    """Close the windows whose time has come at `now_us`, by the control loop's clock. Call it after each round."""
    ordered = sorted(opened, key=lambda each: (each.window.minute_start_us, each.window.share_ppm))
    return Gathered(
        tuple(each for each in ordered if not each.is_due(now_us)),
        tuple(each.window for each in ordered if each.is_due(now_us)),
    )


def _closes_at_us(minute_start_us: int, now_us: int) -> int:
    """Return when a window that is opened at `now_us` closes.

    Late requests of several servers and rounds meet for a minute. A server whose clock runs ahead holds nothing up.
    """
    in_time = minute_start_us + MINUTE_US + LINGER_US
    return min(in_time, now_us + 2 * MINUTE_US) if now_us < in_time else now_us + MINUTE_US


@dataclass(slots=True)
class _Filling:
    """An open window while requests are added. Alike requests of a unit are merged, so that no client makes it grow."""

    minute_start_us: int
    share_ppm: int
    opened_at_us: int
    closes_at_us: int
    requests: dict[tuple[bytes, Arm, bool, tuple[str, ...]], RequestOutcome] = field(default_factory=dict)
    units: set[bytes] = field(default_factory=set)
    size: int = 0

    @classmethod
    def of(cls, opened: OpenWindow) -> Self:
        window = opened.window
        return cls(
            window.minute_start_us,
            window.share_ppm,
            opened.opened_at_us,
            opened.closes_at_us,
            {(each.unit, each.arm, each.failed, each.slices): each for each in window.requests},
            {each.unit for each in window.requests},
            sum(1 + len(each.slices) for each in window.requests),
        )

    def add(self, request: RequestOutcome) -> None:
        key = request.unit, request.arm, request.failed, request.slices
        known = self.requests.get(key)
        if known is not None:
            request = replace(
                known,
                latency_us=max(known.latency_us, request.latency_us),
                requests=known.requests + request.requests,
            )
        else:
            self.units.add(request.unit)
            self.size += 1 + len(request.slices)
        self.requests[key] = request

    def open_window(self) -> OpenWindow:
        window = Window(self.minute_start_us, self.share_ppm, tuple(self.requests.values()))
        return OpenWindow(window, self.opened_at_us, self.closes_at_us)


# --- JSON ---

_Stored: TypeAlias = tuple[bytes, Arm, bool, float, tuple[str, ...], int]
_STORED: Final[msgspec.json.Decoder[tuple[_Stored, ...]]] = msgspec.json.Decoder(tuple[_Stored, ...])


def requests_to_json(requests: Sequence[RequestOutcome]) -> str:
    """Return the requests of a window as JSON."""
    rows = [
        (each.unit, each.arm, each.failed, each.latency_us, each.slices, each.requests) for each in requests
    ]
    return msgspec.json.encode(rows).decode()


def requests_from_json(text: str) -> tuple[RequestOutcome, ...]:
    """Return the requests that `requests_to_json` wrote. Raises `IntegrityError` HF309 if they are none.

    >>> requests = (RequestOutcome(b"u", Arm.CHALLENGER, True, 900.0, ("carrier=AA",), 2),)
    >>> requests_from_json(requests_to_json(requests)) == requests
    True
    """
    try:
        return tuple(RequestOutcome(*row) for row in _STORED.decode(text))
    except msgspec.DecodeError as error:
        raise IntegrityError(
            "HF309",
            f"an open window of a rollout cannot be read: {error}",
            state="the ledger is unchanged",
            next_command="holdfast verify",
        ) from error
