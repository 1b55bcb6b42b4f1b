"""Follows the plan: a thread that reads the ledger, makes versions warm, and then swaps one pointer.

The request path never waits for it. A ledger that is gone, hung or damaged stops this thread, and nothing else: the server
goes on with the newest plan that it could verify, and a fresh start finds that plan in its local copy (R135, reliability
F10, D7). The current and the previous champion are both warm, so that a roll-back is the swap alone (R113).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.errors import HoldfastError, IntegrityError, UnavailableError
from holdfast.monitor.traffic_comparison import Asked
from holdfast.records import TrafficPlan
from holdfast.rollout.model.abort import UnderWay
from holdfast.rollout.model.state_machine import RESTING, State
from holdfast.serve.follower import abort_handler
from holdfast.serve.follower.abort_follower import AbortFollower
from holdfast.serve.follower.config_follower import Configured
from holdfast.serve.follower.local_copy import Kept, KeptVersion, LocalCopy
from holdfast.serve.follower.local_copy_writer import CopyKeeper
from holdfast.serve.follower.online_features import OnlineValues
from holdfast.serve.follower.plan_switch import Swap, must_understand
from holdfast.serve.inference.data_plane import Plane
from holdfast.serve.inference.loaded_model import LoadedVersion, load
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.rollout import rollouts, traffic_plans
from holdfast.store.rollout.plan_watch import Changes
from holdfast.store.serving import aborts, local_servers, servers
from holdfast.store.telemetry import traffic_comparison as asked

_log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.2
"""How often the ledger is asked for newer values and facts; for a newer plan as often as `store.plan_changes` says."""
TROUBLE_SECONDS: Final = 1.0
"""How long to wait after the ledger could not be read."""
RETRY_SECONDS: Final = 2.0
"""How long to wait before a plan that could not be followed completely is tried again."""
ASKED_SECONDS: Final = 5.0
"""How often the comparison of what callers ask is read; the control loop makes a new one every half minute."""
_SQLITE: Final = "sqlite:///"


@dataclass(slots=True)
class Progress:
    """What the follower has seen. Written by its thread, read by others one field at a time."""

    ledger_read_us: int = 0
    plans_refused: int = 0
    trouble: str = ""
    refusal: str = ""
    online_trouble: str = ""
    under_way: UnderWay | None = None
    rollout: int = 0
    """The newest number of a rollout that was seen; 0: none."""
    asked: Asked | None = None
    """What callers ask, as the control loop last compared it."""


class Follower:
    """Keeps a plane's `serving` and `table` up to date.

    Parameters
    ----------
    plane
        What is kept up to date.
    settings
        Where the ledger is.
    server
        What this server announces itself as, once it listens.
    clock_us
        Microseconds since 1970 UTC.
    """

    def __init__(
        self,
        plane: Plane,
        settings: Settings,
        server: servers.Server,
        clock_us: Callable[[], int],
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.progress = Progress()
        self.swap = Swap(plane, clock_us)
        self._plane = plane
        self._settings = settings
        self._server = server
        self._clock_us = clock_us
        self._poll_seconds = poll_seconds
        directory = aborts.directory_of(settings.root, plane.model)
        self._copy = LocalCopy(directory)
        self.aborts = AbortFollower(directory, self.swap.obey)
        self.keeper = CopyKeeper(self._copy)
        self.online = OnlineValues(plane.table, self._copy)
        self.configured = Configured(plane.model)
        self._tried: tuple[int, float] = (0, 0.0)
        self._copy_due = False
        self._round_at = self._asked_at = 0.0
        self._store: Store | None = None
        self._changes: Changes | None = None
        self._listening = threading.Event()
        self._announced = False
        self._stopping = threading.Event()
        self.first_read = threading.Event()
        """Set when the ledger has been read once."""
        self._thread = threading.Thread(target=self._forever, name="plan-follower", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs. It ends with `stop` alone; a ledger that hangs holds it, see `ledger_read_us`."""
        return self._thread.is_alive()

    def start_from_copy(self) -> None:
        """Serve what the last run kept, if it is there and whole; the ledger may then be away. Aborts come first."""
        self.aborts.look()
        try:
            with self._copy.read():
                kept = self._copy.load()
                if kept is None:
                    return
                warmed, left_out = self._make_warm(kept.plan, lambda name: self._from_copy(name, kept))
                self.online.start_from_copy()
        except (HoldfastError, OSError) as error:
            self._refuse(str(error))
            return
        self.swap.deployed_us = {
            name: version.deployed_us for name, version in kept.versions.items() if version.deployed_us
        }
        self.swap.rolled_back_us = kept.rolled_back_us
        self.swap.learn(frozenset(kept.tainted))
        self.progress.under_way, self.progress.rollout = kept.under_way, kept.rollout_id
        self.configured.start_from_copy(kept.configuration)
        self._serve(kept.plan, warmed, left_out)

    def start(self) -> None:
        """Begin to follow."""
        self.aborts.start()
        self.keeper.start()
        self._thread.start()

    def listening(self) -> None:
        """Announce the server from now on: whoever asks it finds it, also while the ledger is away."""
        try:
            local_servers.announce(self._copy.directory, self._server)
        except OSError as error:
            _log.warning("rollback without the ledger will not find this server: %s", error)
        self._listening.set()

    def give(self, version: str | None, reason: str, actor: str) -> dict[str, object]:
        """Let `version`, by default what is being rolled out, answer no more; see `giving.give`."""
        progress, wanted = self.progress, (version, reason, actor)
        return abort_handler.give(
            self._plane, self.swap, self.aborts, progress.under_way, progress.rollout, wanted, self._clock_us
        )

    def stop(self) -> None:
        """Follow no longer. Does not wait: the thread may hang in a database that does not answer."""
        self._stopping.set()
        self.aborts.stop()
        self.keeper.stop()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _forever(self) -> None:
        while not self._stopping.is_set():
            try:
                store, changes = self._open()
                self._look(store, changes)
                if time.monotonic() >= self._round_at:
                    self._round(store, changes)
                    self._round_at = time.monotonic() + self._poll_seconds
            except (
                Exception
            ) as error:  # drivers raise what they like; the next round tries again, the page shows it
                self._in_trouble(error)
                self._stopping.wait(TROUBLE_SECONDS)
                continue
            self.progress.trouble = ""
            self.progress.ledger_read_us = self._clock_us()
            self.first_read.set()
            self._stopping.wait(min(changes.pause_seconds, self._poll_seconds))

    def _look(self, store: Store, changes: Changes) -> None:
        """Follow a newer plan, if there is one: between all that takes its time, so that nothing of it is in a plan's way."""
        if changes.since_last():
            self._follow_newest(store)

    def _round(self, store: Store, changes: Changes) -> None:
        if self._listening.is_set() and not self._announced:
            servers.announce(store, self._server)
            self._announced = True
        newest = self._follow_newest(store)
        self._follow_online(store, self.swap.loaded)
        self._look(store, changes)
        self._learn(store)
        self._look(store, changes)
        self._keep(store)
        if newest is not None and self.swap.aborts and not self._copy_due and self.keeper.has_kept:
            self._end_aborts(store, newest)
        if time.monotonic() >= self._asked_at:
            with store.ledger.read() as connection:
                self.progress.asked = asked.last(connection, self._plane.model)
            self._asked_at = time.monotonic() + ASKED_SECONDS

    def _is_due(self, plan: TrafficPlan) -> bool:
        """Whether `plan` is new, or was not followed completely a while ago."""
        followed = self.swap.plan
        if followed is not None and (
            plan.plan_id < followed.plan_id or (plan.plan_id == followed.plan_id and not self.swap.left_out)
        ):
            return False
        tried, at = self._tried
        return plan.plan_id != tried or time.monotonic() >= at + RETRY_SECONDS

    def _open(self) -> tuple[Store, Changes]:
        if self._store is None:
            url = self._settings.ledger_url
            path = Path(url.removeprefix(_SQLITE))
            # Opening would make an empty ledger in the place of the lost one.
            if url.startswith(_SQLITE) and not path.exists():
                raise UnavailableError("HF302", f"the ledger {path} is not there")
            self._store = Store.of(self._settings)
        if self._changes is None:
            self._changes = Changes(self._store, self._plane.model)
        return self._store, self._changes

    def _in_trouble(self, error: Exception) -> None:
        what = str(error) if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}"
        if what != self.progress.trouble:
            _log.warning("ledger unavailable, serving goes on: %s", what)
        self.progress.trouble = what
        store, self._store = self._store, None
        changes, self._changes = self._changes, None
        if store is not None:
            try:
                if changes is not None:
                    changes.close()
                store.ledger.close()
            except (
                Exception
            ) as failed:  # a driver in trouble may fail to close, too; a new connection is made anyway
                _log.warning("closing the ledger failed: %s: %s", type(failed).__name__, failed)

    # --- the plan -----------------------------------------------------------------------------------------------------

    def _follow_newest(self, store: Store) -> TrafficPlan | None:
        plan = traffic_plans.newest(store, self._plane.model)
        if plan is not None and self._is_due(plan):
            self._follow(store, plan)
        return plan

    def _follow(self, store: Store, plan: TrafficPlan) -> None:
        self._tried = (plan.plan_id, time.monotonic())
        loaded = self.swap.loaded
        try:
            warmed, left_out = self._make_warm(plan, lambda name: loaded.get(name) or self._warm(store, name))
        except HoldfastError as error:
            self._refuse(f"plan {plan.plan_id}: {error}")
            return
        if plan == self.swap.plan and warmed.keys() == loaded.keys():
            self.swap.left_out = left_out
            return  # tried again in vain
        if not warmed.keys() <= loaded.keys():
            # Values first: a version that reads an aggregate must not answer its first requests without it.
            self._follow_online(store, warmed)
        self._serve(plan, warmed, left_out)
        self.configured.follow(store)

    def _make_warm(
        self, plan: TrafficPlan, warm: Callable[[str], LoadedVersion]
    ) -> tuple[dict[str, LoadedVersion], dict[str, str]]:
        """The plan's versions as `warm` makes them, and why others are missing. Without the champion there is no plan."""
        champion = _made(plan.champion, warm)
        warmed, left_out = {plan.champion: champion}, dict[str, str]()
        for name in plan.versions():
            if name == plan.champion:
                continue
            try:
                version = _made(name, warm)
                if name == plan.challenger:
                    must_understand(version, champion)
            except HoldfastError as error:
                left_out[name] = str(error)
                if self.swap.left_out.get(name) != str(error):
                    _log.warning("plan %d is served without version %s: %s", plan.plan_id, name, error)
                continue
            warmed[name] = version
        return warmed, left_out

    def _serve(
        self, plan: TrafficPlan, warmed: Mapping[str, LoadedVersion], left_out: Mapping[str, str]
    ) -> None:
        self.swap.follow(plan, warmed, left_out)
        self.progress.refusal = ""
        self.progress.rollout = max(self.progress.rollout, plan.rollout_id or 0)
        self._copy_due = True

    def _learn(self, store: Store) -> None:
        """What a roll-back without the ledger would have to know."""
        with store.ledger.read() as connection:
            tainted = taints.versions_of(connection, self._plane.model)
            row = rollouts.under_way_in(connection, self._plane.model)
        under_way = None if row is None else UnderWay(row.rollout_id, row.challenger)
        progress = self.progress
        if (tainted, under_way) != (self.swap.tainted, progress.under_way):
            self.swap.learn(tainted)
            progress.under_way = under_way
            progress.rollout = max(progress.rollout, 0 if row is None else row.rollout_id)
            self._copy_due = True

    def _end_aborts(self, store: Store, newest: TrafficPlan) -> None:
        """Forget the aborts that the ledger agrees with, and those of versions that were pushed again, once the copy could
        begin without them."""
        if self.swap.plan is None or newest.plan_id != self.swap.plan.plan_id:
            return
        runs = rollouts.of_model(store, self._plane.model)
        ended = []
        for abort in self.swap.aborts.values():
            last = next((row for row in runs if row.challenger == abort.version), None)
            pushed_anew = last is not None and last.rollout_id > abort.rollout_id
            at_rest = last is None or last.state in {*RESTING, State.ROLLING_BACK}
            if pushed_anew or (at_rest and abort.version not in newest.versions()):
                ended.append(abort)
        if ended:
            aborts.remove(self.aborts.directory, ended)
            self.swap.end(ended)

    def _warm(self, store: Store, name: str) -> LoadedVersion:
        row = versions.get(store, name)
        data = self._copy.file(row.digest) or blobs.get(store, row.digest)
        return load(name, row.digest, data, created_at_us=row.created_at_us)

    def _from_copy(self, name: str, kept: Kept) -> LoadedVersion:
        version = kept.versions.get(name)
        data = self._copy.file(version.digest) if version is not None else None
        if version is None or data is None:
            raise IntegrityError("HF316", f"the local copy of version {name} is missing or was altered")
        return load(name, version.digest, data, created_at_us=version.created_at_us)

    def _keep(self, store: Store) -> None:
        """Have the local copy brought to the plan that is served."""
        if self._copy_due and self.swap.plan is not None:
            kept = self._kept(self.swap.plan)
            self.keeper.keep("plan", lambda copy: copy.save(kept, lambda digest: blobs.get(store, digest)))
            self._copy_due = False
        values = self.online.due(store, self.swap.loaded)
        if values is not None:
            self.keeper.keep("values", values)

    def _kept(self, plan: TrafficPlan) -> Kept:
        swap, progress = self.swap, self.progress
        versions_kept = {
            name: KeptVersion(version.digest, version.created_at_us, swap.deployed_us.get(name, 0))
            for name, version in swap.loaded.items()
        }
        return Kept(
            plan,
            versions_kept,
            swap.rolled_back_us,
            tuple(sorted(swap.tainted)),
            progress.under_way,
            progress.rollout,
            "" if self.configured.limits is None else self.configured.limits.to_json(),
        )

    def _refuse(self, why: str) -> None:
        if why != self.progress.refusal:
            self.progress.plans_refused += 1
            _log.error("plan rejected: %s", why)
        self.progress.refusal = why

    def _follow_online(self, store: Store, loaded: Mapping[str, LoadedVersion]) -> None:
        """Bring the values up to date. What goes wrong with them holds back no plan: unknown is what an aggregate can be."""
        try:
            self.online.follow(store, loaded)
        except Exception as error:  # a driver's, whatever it is; the next round asks again
            what = f"{type(error).__name__}: {error}"
            if what != self.progress.online_trouble:
                _log.warning("online features cannot be read: %s", what)
            self.progress.online_trouble = what
        else:
            self.progress.online_trouble = ""


def _made(name: str, warm: Callable[[str], LoadedVersion]) -> LoadedVersion:
    try:
        return warm(name)
    except OSError as error:
        raise IntegrityError("HF301", f"the file of version {name} cannot be read: {error}") from error
