"""Load the versions of a traffic plan, verified and warmed up, from the ledger's files or from the local copy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.records import TrafficPlan
from holdfast.serve.follower.local_copy import LocalCopy, LocalState
from holdfast.serve.follower.plan_switch import check_compatible
from holdfast.serve.follower.trial import Trials
from holdfast.serve.inference.loaded_model import LoadedVersion, load
from holdfast.store import Store
from holdfast.store.files import blobs
from holdfast.store.models import versions

_log = logging.getLogger(__name__)

Load = Callable[[str], LoadedVersion]
"""Loads one version by its name."""


@dataclass(frozen=True, slots=True)
class LoadedPlan:
    """A plan with its versions that can serve, and why the others cannot."""

    plan: TrafficPlan
    versions: Mapping[str, LoadedVersion]
    unavailable: Mapping[str, str]


class ModelLoader:
    """Load versions, each tried in a process of its own; the files of the local copy come first."""

    def __init__(self, copy: LocalCopy, trials: Trials) -> None:
        self._copy = copy
        self._trials = trials

    def load_plan(
        self, store: Store, plan: TrafficPlan, loaded: Mapping[str, LoadedVersion], known: Mapping[str, str]
    ) -> LoadedPlan:
        """Load the versions of `plan`; those in `loaded` are used again. See `_load_all` for the errors.

        Parameters
        ----------
        store
            Where versions are registered.
        plan
            The plan to load.
        loaded
            Versions that are loaded already, by name.
        known
            Versions whose failure is logged already, with its reason.
        """
        return _load_all(plan, lambda name: loaded.get(name) or self._from_store(store, name), known)

    def load_local_plan(self, state: LocalState) -> LoadedPlan:
        """Load the versions of the local copy's plan from the copy alone."""
        return _load_all(state.plan, lambda name: self._from_copy(name, state), {})

    def _from_store(self, store: Store, name: str) -> LoadedVersion:
        with store.ledger.read() as connection:
            row = versions.get(connection, name)
        data = self._copy.file(row.digest) or blobs.get(store.root, row.digest)
        return self._load(name, row.digest, data, row.created_at_us)

    def _from_copy(self, name: str, state: LocalState) -> LoadedVersion:
        version = state.versions.get(name)
        data = self._copy.file(version.digest) if version is not None else None
        if version is None or data is None:
            raise IntegrityError("HF316", f"the local copy of version {name} is missing or was altered")
        return self._load(name, version.digest, data, version.created_at_us)

    def _load(self, name: str, digest: str, data: bytes, created_at_us: int) -> LoadedVersion:
        self._trials.require(name, digest, data)
        return load(name, digest, data, created_at_us=created_at_us)


def _load_all(plan: TrafficPlan, load_version: Load, known: Mapping[str, str]) -> LoadedPlan:
    """Load the plan's versions. Only the champion is mandatory: without it this raises `HoldfastError`."""
    champion = _load_one(plan.champion, load_version)
    loaded, unavailable = {plan.champion: champion}, dict[str, str]()
    for name in plan.versions():
        if name == plan.champion:
            continue
        try:
            version = _load_one(name, load_version)
            if name == plan.challenger:
                check_compatible(version, champion)
        except HoldfastError as error:
            unavailable[name] = str(error)
            if known.get(name) != str(error):
                _log.warning("plan %d is served without version %s: %s", plan.plan_id, name, error)
            continue
        loaded[name] = version
    return LoadedPlan(plan, loaded, unavailable)


def _load_one(name: str, load_version: Load) -> LoadedVersion:
    try:
        return load_version(name)
    except OSError as error:
        raise IntegrityError("HF301", f"the file of version {name} cannot be read: {error}") from error
