"""The active plan of a server: the committed plan without the versions that are aborted.

Two threads come here: the one that follows the ledger, and the one that follows aborts. The lock is never held across I/O, so
that an abort never waits for a ledger that hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from holdfast.contract.evolution.compatibility import Boundary, Compatibility, worst
from holdfast.contract.evolution.diff import compare
from holdfast.errors import IntegrityError
from holdfast.records import TrafficPlan
from holdfast.rollout.model.abort import Abort, Fit, UnderWay, banned, permitted
from holdfast.serve.follower.local_copy import LocalState
from holdfast.serve.inference.active_plan import ActivePlan, merge_inputs
from holdfast.serve.inference.data_plane import DataPlane
from holdfast.serve.inference.loaded_model import LoadedVersion

NO_OTHER: Final = "no other loaded version is free of taint and accepts the same requests"


@dataclass(frozen=True, slots=True)
class RollbackFacts:
    """Facts of the ledger that a rollback without it needs."""

    tainted: frozenset[str] = frozenset()
    """Versions trained on backed-out rows. They are no fallback here; their own traffic is moved by a plan."""
    under_way: UnderWay | None = None
    """The rollout that has not ended."""


class PlanSwitch:
    """Sets a plane's active plan. Any thread reads the fields, one at a time; only the methods change them.

    Parameters
    ----------
    plane
        The data plane.
    clock_us
        Microseconds since 1970 UTC.
    """

    def __init__(self, plane: DataPlane, clock_us: Callable[[], int]) -> None:
        self.plan: TrafficPlan | None = None
        """The plan as it is in the ledger."""
        self.loaded: dict[str, LoadedVersion] = {}
        """Its loaded versions. Never changed in place, as the mappings below."""
        self.unavailable: dict[str, str] = {}
        """Its versions that could not be loaded, and why."""
        self.aborts: dict[str, Abort] = {}
        """The aborts that stand, by version."""
        self.last_resort: dict[str, str] = {}
        """Versions whose abort was not carried out, because no other can serve, and why."""
        self.facts = RollbackFacts()
        self.inputs: Mapping[str, tuple[str, ...]] = {}
        """Datatypes of the inputs of every version that was rolled out, by name."""
        self.newest_rollout = 0
        """The newest number of a rollout that was seen; 0: none."""
        self.deployed_us: dict[str, int] = {}
        """When each version was first routed traffic here."""
        self.rolled_back_us = 0
        """When traffic was last rolled back here; 0: never."""
        self._plane = plane
        self._clock_us = clock_us
        self._lock = threading.Lock()

    def restore(self, state: LocalState) -> None:
        """Take the facts of the local copy. To be called before any thread starts."""
        self.deployed_us = {
            name: version.deployed_us for name, version in state.versions.items() if version.deployed_us
        }
        self.rolled_back_us = state.rolled_back_us
        self.facts = RollbackFacts(frozenset(state.tainted), state.under_way)
        self.newest_rollout = state.rollout_id
        self.last_resort = dict.fromkeys(state.last_resort, NO_OTHER)
        self.inputs = dict(state.inputs)

    def apply(
        self, plan: TrafficPlan, loaded: Mapping[str, LoadedVersion], unavailable: Mapping[str, str]
    ) -> str:
        """Serve `plan` from now on with its versions in `loaded`, except those that are aborted.

        Return why the plan is not followed, because it leaves no version that may serve; empty if it is. Then nothing changes.
        """
        with self._lock:
            available = _without(plan, unavailable)
            forbidden = banned(self.aborts.values(), plan)
            served = permitted(available, forbidden, self._fit(loaded))
            pending: dict[str, str] = {}
            if served is None:
                # Those that could not be carried out withdrew nothing, so they restore nothing either.
                pending = {name: why for name, why in self.last_resort.items() if name in forbidden}
                served = permitted(available, forbidden - pending.keys(), self._fit(loaded))
            if served is None:
                return f"no version of it may serve: {', '.join(sorted(forbidden))} must not"
            self.plan, self.loaded, self.unavailable = plan, dict(loaded), dict(unavailable)
            self.newest_rollout = max(self.newest_rollout, plan.rollout_id or 0)
            self.last_resort = pending
            self._set(served)
        return ""

    def apply_aborts(self, aborts: Iterable[Abort]) -> None:
        """Take traffic from the versions of `aborts` from now on, one after the other.

        One that would leave no version is not carried out: its version is a last resort. Earlier aborts stand on without
        being named again, except those that could not be carried out: not naming one of these withdraws it.
        """
        named = {abort.version: abort for abort in aborts}
        with self._lock:
            found = {**self._carried_out(), **named}
            if found == self.aborts:
                return
            self.aborts = found
            self._carry_out()

    def refusal(self, abort: Abort, standing: Iterable[Abort] = ()) -> str:
        """Return why `abort` cannot be carried out, empty if it can. Nothing changes.

        Parameters
        ----------
        standing
            Aborts that stand on this machine, of which this server may not know yet.
        """
        with self._lock:
            plan = self.plan
            if plan is None:
                return ""
            pending = self.last_resort.keys()
            known = {**{each.version: each for each in standing}, **self.aborts}
            others = [each for each in known.values() if each.version not in pending]
            return "" if self._permitted(plan, [*others, abort]) is not None else NO_OTHER

    def end_aborts(self, ended: Iterable[Abort]) -> None:
        """Let the plan decide again about the versions of `ended`."""
        gone = frozenset(ended)
        with self._lock:
            rest = {name: abort for name, abort in self.aborts.items() if abort not in gone}
            if rest != self.aborts:
                self.aborts = rest
                self._carry_out()

    def set_rollback_facts(self, facts: RollbackFacts) -> bool:
        """Take the ledger's newest facts. Return True if they changed."""
        if facts == self.facts:
            return False
        self.facts = facts
        if facts.under_way is not None:
            self.newest_rollout = max(self.newest_rollout, facts.under_way.rollout_id)
        return True

    def set_inputs(self, inputs: Mapping[str, tuple[str, ...]]) -> bool:
        """Let requests have `inputs` from now on, next to those of the loaded versions. Return True if they changed."""
        with self._lock:
            known = merge_inputs((self.inputs, inputs))
            if known == self.inputs:
                return False
            self.inputs = known
            self._carry_out()
        return True

    def _carried_out(self) -> dict[str, Abort]:
        return {name: abort for name, abort in self.aborts.items() if name not in self.last_resort}

    def _carry_out(self) -> None:
        """Serve the plan without the aborted versions; those carried out before come first."""
        plan = self.plan
        if plan is None:
            return
        done, pending = list[Abort](), dict[str, str]()
        served = self._permitted(plan, done)
        for abort in sorted(self.aborts.values(), key=lambda each: each.version in self.last_resort):
            without = self._permitted(plan, [*done, abort])
            if without is None:
                pending[abort.version] = NO_OTHER
            else:
                served = without
                done.append(abort)
        assert served is not None, "a plan is followed only if one of its versions may serve"
        self.last_resort = pending
        self._set(served)

    def _permitted(self, plan: TrafficPlan, aborts: Iterable[Abort]) -> TrafficPlan | None:
        available = _without(plan, self.unavailable)
        return permitted(available, banned(aborts, plan), self._fit(self.loaded))

    def _set(self, served: TrafficPlan) -> None:
        now_us = self._clock_us()
        before = self._plane.active
        loaded = {name: self.loaded[name] for name in served.versions()}
        self._plane.active = active = ActivePlan.of(served, loaded, before, self.inputs)
        self.inputs = active.inputs
        deployed = [served.champion, *([served.challenger] if served.challenger and served.share_ppm else [])]
        self.deployed_us = {**dict.fromkeys(deployed, now_us), **self.deployed_us}
        if before is not None and is_rollback(before.plan, served):
            self.rolled_back_us = now_us

    def _fit(self, loaded: Mapping[str, LoadedVersion]) -> Fit:
        def can_replace(version: str, champion: str) -> bool:
            if version not in loaded or version in self.facts.tainted:
                return False
            return not describe_breaking_changes(loaded[champion], loaded[version])

        return can_replace


def describe_breaking_changes(old: LoadedVersion, new: LoadedVersion) -> str:
    """Return the changes from `old` to `new` that break requests of callers, as text; empty if there are none (R133)."""
    if old.contract.hash == new.contract.hash:
        return ""
    evolution = compare(old.contract, new.contract)
    if worst(map(evolution.at, (Boundary.CALLERS, Boundary.MODELS))) is not Compatibility.BREAKING:
        return ""
    return "; ".join(f"{change.column}: {change.what}" for change in evolution.of(Compatibility.BREAKING))


def check_compatible(challenger: LoadedVersion, champion: LoadedVersion) -> None:
    """Raise `IntegrityError` HF210 unless the challenger accepts the requests of the champion's callers (R133)."""
    # Else their requests would count as its failures.
    if changes := describe_breaking_changes(champion, challenger):
        raise IntegrityError(
            "HF210",
            f"{challenger.name} was trained under another contract than {champion.name}, which breaks its callers: {changes}",
        )


def is_rollback(before: TrafficPlan, after: TrafficPlan) -> bool:
    """Return True if `after` takes traffic from the version to which `before` moved it.

    >>> plan = TrafficPlan("m", 1, "v1", "v2", 50_000, None, None, 1)
    >>> is_rollback(plan, TrafficPlan("m", 2, "v1", None, 0, None, None, None))
    True
    >>> is_rollback(plan, TrafficPlan("m", 2, "v2", None, 0, "v1", None, None))
    False
    """
    challenger_left = before.challenger is not None and before.challenger not in (
        after.challenger,
        after.champion,
    )
    champion_back = after.champion != before.champion and after.champion in (before.previous, before.fallback)
    return (challenger_left and before.share_ppm > 0) or champion_back


def _without(plan: TrafficPlan, unavailable: Mapping[str, str]) -> TrafficPlan:
    """Return `plan` without unavailable versions. A rollout without its challenger gets no evidence from this server."""
    changed: dict[str, Any] = {
        place: None for place in ("previous", "fallback", "shadow") if getattr(plan, place) in unavailable
    }
    if plan.challenger in unavailable:
        changed |= {"challenger": None, "share_ppm": 0, "rollout_id": None}
    return replace(plan, **changed)
