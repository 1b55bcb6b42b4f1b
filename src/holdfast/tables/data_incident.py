"""A data incident: from a back-out that taints a version with traffic until probes get a clean version's response (R9)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from holdfast.formatting import span
from holdfast.tables.backout import BackoutPlan, FailOver, KeepLastResort


@dataclass(frozen=True, slots=True)
class DataIncident:
    """A back-out that tainted `version` while it had traffic of `model`.

    It begins with the decision to back out and ends when probes of all servers got the response of a clean version,
    `recovered_by`. Times are microseconds since 1970 UTC; `bound_us` is the declared `recover_within`, None without one.
    """

    backout_id: int
    feed: str
    batch: str
    model: str
    version: str
    started_at_us: int
    bound_us: int | None = None
    recovered_at_us: int | None = None
    recovered_by: str = ""

    @property
    def is_open(self) -> bool:
        """Return True until a clean version serves."""
        return self.recovered_at_us is None

    def duration_us(self, now_us: int) -> int:
        """Return how long it has lasted at `now_us`, or how long it lasted."""
        return max(0, (now_us if self.recovered_at_us is None else self.recovered_at_us) - self.started_at_us)

    def is_exceeded(self, now_us: int) -> bool:
        """Return True if it lasts longer than declared."""
        return self.bound_us is not None and self.duration_us(now_us) > self.bound_us

    def describe(self, now_us: int) -> str:
        """Return its state in words.

        >>> DataIncident(3, "rows", "d1", "m", "v2", 0, bound_us=3_600_000_000).describe(7_200_000_000)
        'back-out 3 of rows/d1: v2 is tainted, and no clean version serves since 2 h; recover_within is 1 h'
        """
        begun, lasted = f"back-out {self.backout_id} of {self.feed}/{self.batch}", self.duration_us(now_us)
        bound = "" if self.bound_us is None else f"; recover_within is {span(self.bound_us / 1e6)}"
        if self.is_open:
            return f"{begun}: {self.version} is tainted, and no clean version serves since {span(lasted / 1e6)}{bound}"
        return f"{begun}: {self.recovered_by} served {span(lasted / 1e6)} after the decision{bound}"


def tainted_in_traffic(plan: BackoutPlan, model: str) -> str | None:
    """Return the version of `model` that had traffic and that `plan` taints; None without one."""
    for step in plan.steps:
        if isinstance(step, FailOver | KeepLastResort) and step.model == model:
            return step.version
    return None


@dataclass(frozen=True, slots=True)
class Observed:
    """What the last probe of one server saw. `is_as_planned` if it passed; `at_us` is when, microseconds since 1970 UTC."""

    version: str | None
    is_as_planned: bool
    at_us: int


def find_recovery(
    observed: Iterable[Observed], tainted: frozenset[str], *, since_us: int
) -> tuple[str, int] | None:
    """Return the clean version that every server serves, and when the last of them was seen to; None before.

    >>> find_recovery([Observed("v1", True, 9), Observed("v1", True, 7)], frozenset({"v2"}), since_us=5)
    ('v1', 9)
    >>> find_recovery([Observed("v1", True, 9), Observed("v2", True, 7)], frozenset({"v2"}), since_us=5)
    >>> find_recovery([Observed("v1", True, 4)], frozenset({"v2"}), since_us=5)
    """
    found = list(observed)
    clean = [
        each
        for each in found
        if each.is_as_planned and each.version and each.version not in tainted and each.at_us >= since_us
    ]
    if not found or len(clean) < len(found):
        return None
    last = max(clean, key=lambda each: each.at_us)
    return str(last.version), last.at_us
