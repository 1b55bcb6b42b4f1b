"""The one place that says what a server does: the plan that it follows, less the versions that must not answer.

Two threads come here: the one that follows the ledger, and the one that looks for aborts. What is done under the lock is short
and asks nobody, so that an abort never waits for a ledger that hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from holdfast.contract.evolution.compatibility import Boundary, Compatibility, worst
from holdfast.contract.evolution.diff import compare
from holdfast.errors import IntegrityError
from holdfast.records import TrafficPlan
from holdfast.rollout.model.abort import Abort, banned, permitted
from holdfast.serve.inference.active_plan import Serving
from holdfast.serve.inference.data_plane import Plane
from holdfast.serve.inference.loaded_model import LoadedVersion


class Swap:
    """Sets a plane's `serving`. Its fields are read by any thread, one at a time, and changed in no other way than here.

    Parameters
    ----------
    plane
        Whose traffic it is.
    clock_us
        Microseconds since 1970 UTC.
    """

    def __init__(self, plane: Plane, clock_us: Callable[[], int]) -> None:
        self.plan: TrafficPlan | None = None
        """The plan that is followed, as the ledger says it."""
        self.loaded: dict[str, LoadedVersion] = {}
        """Its versions that are warm. Never changed in place, as the mappings below."""
        self.left_out: dict[str, str] = {}
        """Its versions that could not be made warm, and why."""
        self.aborts: dict[str, Abort] = {}
        """What must not answer, by version."""
        self.held: dict[str, str] = {}
        """Versions that answer although they must not, and why."""
        self.tainted: frozenset[str] = frozenset()
        """Versions that were made from rows that were backed out, as far as this server knows."""
        self.deployed_us: dict[str, int] = {}
        self.rolled_back_us = 0
        self._plane = plane
        self._clock_us = clock_us
        self._lock = threading.Lock()

    def follow(
        self, plan: TrafficPlan, loaded: Mapping[str, LoadedVersion], left_out: Mapping[str, str]
    ) -> None:
        """Do what `plan` says from now on with its versions in `loaded`, as far as no abort stands against it."""
        with self._lock:
            self.plan, self.loaded, self.left_out = plan, dict(loaded), dict(left_out)
            self._swap()

    def obey(self, aborts: Iterable[Abort]) -> None:
        """Let no version of `aborts` answer from now on. Those that stand already and were obeyed stand on, whether or not
        they are named again; one that could not be obeyed and is not named any more was withdrawn.
        """
        named = {abort.version: abort for abort in aborts}
        with self._lock:
            kept = {name: abort for name, abort in self.aborts.items() if name not in self.held}
            if (found := {**kept, **named}) != self.aborts:
                self.aborts = found
                self._swap()

    def end(self, ended: Iterable[Abort]) -> None:
        """Let the plan say again what becomes of the versions of `ended`."""
        gone = frozenset(ended)
        with self._lock:
            rest = {name: abort for name, abort in self.aborts.items() if abort not in gone}
            if rest != self.aborts:
                self.aborts = rest
                self._swap()

    def learn(self, tainted: frozenset[str]) -> None:
        """Take `tainted` for the versions that stand in for nobody; the ledger takes their traffic by a plan."""
        self.tainted = tainted

    def _swap(self) -> None:
        plan, now_us = self.plan, self._clock_us()
        if plan is None:
            return
        before = self._plane.serving
        served = self._permitted(plan, banned(self.aborts.values(), plan))
        loaded = {name: self.loaded[name] for name in served.versions()}
        self._plane.serving = Serving.of(served, loaded, before)
        deployed = [served.champion, *([served.challenger] if served.challenger and served.share_ppm else [])]
        self.deployed_us = {**dict.fromkeys(deployed, now_us), **self.deployed_us}
        if before is not None and is_roll_back(before.plan, served):
            self.rolled_back_us = now_us

    def _permitted(self, plan: TrafficPlan, forbidden: frozenset[str]) -> TrafficPlan:
        able = _without(plan, self.left_out)
        found = permitted(able, forbidden, self._fits)
        if found is not None:
            self.held = {}
            return found
        why = "no version that is warm, clean and understands its callers can answer in its place"
        self.held = {plan.champion: why}
        found = permitted(able, forbidden - {plan.champion}, self._fits)
        assert found is not None, "the champion is not forbidden"
        return found

    def _fits(self, version: str, champion: str) -> bool:
        if version not in self.loaded or version in self.tainted:
            return False
        return not breaking(self.loaded[champion], self.loaded[version])


def breaking(old: LoadedVersion, new: LoadedVersion) -> str:
    """What callers of `old` would meet in `new` that breaks their requests, in words; empty when nothing does (R133)."""
    if old.contract.hash == new.contract.hash:
        return ""
    evolution = compare(old.contract, new.contract)
    if worst(map(evolution.at, (Boundary.CALLERS, Boundary.MODELS))) is not Compatibility.BREAKING:
        return ""
    return "; ".join(f"{change.column}: {change.what}" for change in evolution.of(Compatibility.BREAKING))


def must_understand(challenger: LoadedVersion, champion: LoadedVersion) -> None:
    """The champion's callers must be understood by the challenger, or their requests would be its failures (R133)."""
    if told := breaking(champion, challenger):
        raise IntegrityError(
            "HF210",
            f"{challenger.name} was trained under another contract than {champion.name}, which breaks its callers: {told}",
        )


def is_roll_back(before: TrafficPlan, after: TrafficPlan) -> bool:
    """Whether `after` takes traffic back from what `before` was moving it to.

    >>> plan = TrafficPlan("m", 1, "v1", "v2", 50_000, None, None, 1)
    >>> is_roll_back(plan, TrafficPlan("m", 2, "v1", None, 0, None, None, None))
    True
    >>> is_roll_back(plan, TrafficPlan("m", 2, "v2", None, 0, "v1", None, None))
    False
    """
    challenger_left = before.challenger is not None and before.challenger not in (
        after.challenger,
        after.champion,
    )
    champion_back = after.champion != before.champion and after.champion in (before.previous, before.fallback)
    return (challenger_left and before.share_ppm > 0) or champion_back


def _without(plan: TrafficPlan, left_out: Mapping[str, str]) -> TrafficPlan:
    """`plan` as it can be served. A rollout whose challenger is missing here gets no evidence from here either."""
    served = replace(
        plan,
        previous=None if plan.previous in left_out else plan.previous,
        fallback=None if plan.fallback in left_out else plan.fallback,
        shadow=None if plan.shadow in left_out else plan.shadow,
    )
    if plan.challenger in left_out:
        served = replace(served, challenger=None, share_ppm=0, rollout_id=None)
    return served
