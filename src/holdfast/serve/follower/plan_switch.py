"""The active plan of a server: the committed plan without the versions that are aborted.

Two threads come here: the one that follows the ledger, and the one that follows aborts. The lock is never held across I/O, so
that an abort never waits for a ledger that hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from holdfast.contract.evolution.compatibility import Boundary, Compatibility, worst
from holdfast.contract.evolution.diff import compare
from holdfast.errors import IntegrityError
from holdfast.records import TrafficPlan
from holdfast.rollout.model.abort import Abort, UnderWay, banned, permitted
from holdfast.serve.follower.local_copy import LocalState
from holdfast.serve.inference.active_plan import ActivePlan, merge_inputs
from holdfast.serve.inference.data_plane import DataPlane
from holdfast.serve.inference.loaded_model import LoadedVersion


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
        """Aborted versions that serve because no other can, and why."""
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
        self.inputs = dict(state.inputs)

    def apply(
        self, plan: TrafficPlan, loaded: Mapping[str, LoadedVersion], unavailable: Mapping[str, str]
    ) -> None:
        """Serve `plan` from now on with its versions in `loaded`, except those that are aborted."""
        with self._lock:
            self.plan, self.loaded, self.unavailable = plan, dict(loaded), dict(unavailable)
            self.newest_rollout = max(self.newest_rollout, plan.rollout_id or 0)
            self._switch()

    def apply_aborts(self, aborts: Iterable[Abort]) -> None:
        """Take traffic from the versions of `aborts` from now on.

        Earlier aborts stand on without being named again, except those that could not be carried out: not naming one of
        these withdraws it.
        """
        named = {abort.version: abort for abort in aborts}
        with self._lock:
            carried_out = {name: abort for name, abort in self.aborts.items() if name not in self.last_resort}
            if (found := {**carried_out, **named}) != self.aborts:
                self.aborts = found
                self._switch()

    def end_aborts(self, ended: Iterable[Abort]) -> None:
        """Let the plan decide again about the versions of `ended`."""
        gone = frozenset(ended)
        with self._lock:
            rest = {name: abort for name, abort in self.aborts.items() if abort not in gone}
            if rest != self.aborts:
                self.aborts = rest
                self._switch()

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
            self._switch()
        return True

    def _switch(self) -> None:
        plan, now_us = self.plan, self._clock_us()
        if plan is None:
            return
        before = self._plane.active
        served = self._permitted(plan, banned(self.aborts.values(), plan))
        loaded = {name: self.loaded[name] for name in served.versions()}
        self._plane.active = active = ActivePlan.of(served, loaded, before, self.inputs)
        self.inputs = active.inputs
        deployed = [served.champion, *([served.challenger] if served.challenger and served.share_ppm else [])]
        self.deployed_us = {**dict.fromkeys(deployed, now_us), **self.deployed_us}
        if before is not None and is_rollback(before.plan, served):
            self.rolled_back_us = now_us

    def _permitted(self, plan: TrafficPlan, forbidden: frozenset[str]) -> TrafficPlan:
        available = _without(plan, self.unavailable)
        found = permitted(available, forbidden, self._can_replace)
        if found is not None:
            self.last_resort = {}
            return found
        why = "no other loaded version is free of taint and accepts the same requests"
        self.last_resort = {plan.champion: why}
        found = permitted(available, forbidden - {plan.champion}, self._can_replace)
        assert found is not None, "the champion is not forbidden"
        return found

    def _can_replace(self, version: str, champion: str) -> bool:
        if version not in self.loaded or version in self.facts.tainted:
            return False
        return not describe_breaking_changes(self.loaded[champion], self.loaded[version])


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
