"""Report each problem once when it begins, and once when it ends (R14): what users are notified of.

Problems are those of the status and the page. One that was seen at two looks begins; one that was not seen for two minutes
has ended, so that a value at its bound is not reported again and again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from holdfast.control.health.facts import FactsReader
from holdfast.feeds import Feed
from holdfast.formatting import span
from holdfast.monitor.health import Problem, judge_health
from holdfast.qualify import Objective
from holdfast.records import shortened
from holdfast.store import Store
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.telemetry import problems
from holdfast.store.telemetry.problems import NewProblem

EVERY_US: Final = 15_000_000
"""Time between two looks, in microseconds."""
BEGINS_AFTER_US: Final = 10_000_000
"""How long a problem is seen before it is reported, microseconds: at two looks, because a server may just be restarting."""
ENDS_AFTER_US: Final = 120_000_000
"""How long a problem is not seen before it has ended, microseconds."""

UNREPORTED: Final = frozenset({"no_version", "control_loop_silent"})
"""A model without a version is being set up, and a control loop that is silent reports nothing: alert on its metrics."""

_LONGEST_SUBJECT: Final = 127

Key: TypeAlias = tuple[str, str]


@dataclass(slots=True)
class Sightings:
    """Since when each problem has been seen without a gap, and since when an open one has not, microseconds."""

    seen_since_us: dict[Key, int]
    gone_since_us: dict[Key, int]

    def look(self, seen: frozenset[Key], known: frozenset[Key], now_us: int) -> tuple[set[Key], set[Key]]:
        """Return which of the `seen` problems begin and which of the `known` ones have ended.

        >>> sightings, key = Sightings({}, {}), ("no_requests", "")
        >>> sightings.look(frozenset({key}), frozenset(), 0)
        (set(), set())
        >>> sightings.look(frozenset({key}), frozenset(), BEGINS_AFTER_US)
        ({('no_requests', '')}, set())
        """
        self.seen_since_us = _since(self.seen_since_us, seen, now_us)
        self.gone_since_us = _since(self.gone_since_us, known - seen, now_us)
        begun = {key for key in seen - known if now_us - self.seen_since_us[key] >= BEGINS_AFTER_US}
        ended = {key for key in known - seen if now_us - self.gone_since_us[key] >= ENDS_AFTER_US}
        return begun, ended


def _since(before: Mapping[Key, int], now: frozenset[Key], now_us: int) -> dict[Key, int]:
    """Return since when each of `now` is there. A clock that went back begins anew."""
    return {key: min(before.get(key, now_us), now_us) for key in now}


class ProblemEvents:
    """The concern of the control loop. Which problems are open is in the ledger; it remembers only when it saw what.

    Parameters
    ----------
    feeds, label_delay, objective, recover_within, silent_after
        As for `FactsReader`.
    """

    def __init__(
        self,
        feeds: Sequence[Feed] = (),
        label_delay: timedelta = timedelta(0),
        objective: Objective | None = None,
        recover_within: timedelta | None = None,
        silent_after: timedelta | None = None,
    ) -> None:
        self._declared = feeds, label_delay, objective, recover_within, silent_after
        self._reader: FactsReader | None = None
        self._looked_at_us = 0
        self._sightings = Sightings({}, {})

    def __call__(self, store: Store, model: str, lease: Lease, *, now_us: int) -> None:
        """Look every 15 seconds. Raises `ConflictError` HF304 when `lease` has gone to another loop."""
        if 0 <= now_us - self._looked_at_us < EVERY_US:
            return
        self._looked_at_us = now_us
        if self._reader is None:
            self._reader = FactsReader(store, model, *self._declared)
        health = judge_health(self._reader.read(now_us=now_us))
        found = {
            each.key: each
            for each in (_row(model, one) for one in health.problems if one.kind not in UNREPORTED)
        }
        with store.ledger.read() as connection:
            known = frozenset(each.key for each in problems.open_ones(connection, model))
        begun, ended = self._sightings.look(frozenset(found), known, now_us)
        if not begun and not ended:
            return
        with store.ledger.write() as connection:
            assert_epoch(connection, lease.name, lease.epoch)
            still = {each.key: each for each in problems.open_ones(connection, model)}
            for key, problem in found.items():
                if key in begun and key not in still:
                    problems.find(connection, problem, now_us=now_us)
            for key, row in still.items():
                if key in ended:
                    lasted = span((now_us - problems.found_at_us(connection, row)) / 1e6)
                    text = f"it has ended after {lasted}: {row.explanation}"
                    problems.end(connection, row, explanation=text, now_us=now_us)


def _row(model: str, problem: Problem) -> NewProblem:
    subject = shortened(problem.subject, _LONGEST_SUBJECT)
    return NewProblem(model, problem.kind, subject, problem.severity, problem.text, problem.next_command)
