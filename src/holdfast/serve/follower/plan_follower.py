"""Follow the traffic plan: a thread that reads the ledger, has versions loaded, and switches to a new plan.

It looks once a second, and at once when a commit nudges it. No request waits for it. A ledger that is gone, hung or damaged
stops this thread alone: the server goes on with the newest plan that it could verify, and a fresh start finds that plan in its
local copy (R135). The current and the previous champion are both loaded, so that a rollback is one assignment (R113).
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from holdfast.errors import HoldfastError, UnavailableError
from holdfast.feedback import SECRET_BYTES
from holdfast.monitor.traffic_record import TrafficComparison
from holdfast.records import Corrections, TrafficPlan
from holdfast.rollout.model.abort import UnderWay
from holdfast.rollout.model.server_name import Stated
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.follower.aborts import AbortFollower, AbortHandler
from holdfast.serve.follower.label_rules import LabelRulesFollower
from holdfast.serve.follower.local_copy import LocalCopy, LocalCopyWriter, LocalState, LocalVersion
from holdfast.serve.follower.membership import Membership
from holdfast.serve.follower.model_loader import LoadedPlan, ModelLoader
from holdfast.serve.follower.online_features import OnlineFeatureFollower
from holdfast.serve.follower.plan_switch import PlanSwitch, RollbackFacts
from holdfast.serve.follower.trial import Trials
from holdfast.serve.inference.active_plan import inputs_of, merge_inputs
from holdfast.serve.inference.data_plane import DataPlane
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.db.commit_listener import CommitListener
from holdfast.store.feeds import contracts
from holdfast.store.files import blobs
from holdfast.store.models import serving_configs
from holdfast.store.rollout import rollouts, traffic_plans
from holdfast.store.rollout.plan_watch import POLL_SECONDS, Changes
from holdfast.store.serving import aborts, local_servers, servers
from holdfast.store.telemetry import traffic_comparison

_log = logging.getLogger(__name__)

JITTER: Final = 0.1
"""How far a wait may be from its length, as a share: servers that were started together do not read together."""
UNSETTLED_SECONDS: Final = 0.2
"""How often values and facts are read at most, and while a copy is written, an abort stands or a plan is incomplete."""
REFRESH_SECONDS: Final = 5.0
"""How often values and facts are read without a reason: a commit may leave the revision as it is, and its nudge be lost."""
ERROR_SECONDS: Final = 1.0
"""How long to wait after the ledger could not be read."""
RETRY_SECONDS: Final = 2.0
"""How long to wait before an incomplete plan is tried again."""
COMPARISON_SECONDS: Final = 5.0
"""How often the traffic comparison is read; the control loop makes a new one every half minute."""
_SQLITE: Final = "sqlite:///"


@dataclass(slots=True)
class Progress:
    """The follower's state. Its thread writes it; others read one field at a time."""

    ledger_read_us: int = 0
    plans_rejected: int = 0
    ledger_error: str = ""
    plan_error: str = ""
    """Why the newest plan is not served."""
    comparison: TrafficComparison | None = None
    """The control loop's last comparison of traffic with training data."""


class PlanFollower:
    """Keeps a plane's active plan and online features up to date.

    Parameters
    ----------
    plane
        The data plane to keep up to date.
    settings
        Names the ledger.
    server
        The server's entry in the ledger, written before it serves a plan, or once it listens without one.
    clock_us
        Microseconds since 1970 UTC.
    poll_seconds
        How often the ledger is read when no commit nudges; see `store.rollout.plan_watch`.
    corrections
        Which of several labels of one prediction counts, as declared; None leaves it to the ledger.
    """

    def __init__(
        self,
        plane: DataPlane,
        settings: Settings,
        server: servers.Server,
        clock_us: Callable[[], int],
        *,
        poll_seconds: float = POLL_SECONDS,
        corrections: Corrections | None = None,
    ) -> None:
        self.progress = Progress()
        self.switch = PlanSwitch(plane, clock_us)
        self._model = plane.model
        self._server = server
        self._clock_us = clock_us
        self._poll_seconds = poll_seconds
        directory = aborts.directory_of(settings.root, plane.model)
        self._copy = LocalCopy(directory)
        self._loader = ModelLoader(self._copy, Trials(directory))
        self.aborts = AbortFollower(directory, self.switch.apply_aborts)
        self.abort_handler = AbortHandler(plane, self.switch, directory, clock_us)
        self.copy_writer = LocalCopyWriter(self._copy)
        self.online = OnlineFeatureFollower(plane.table, self._copy)
        self.label_rules = LabelRulesFollower(plane, directory, self.copy_writer, corrections)
        self._root = settings.root
        self.membership = Membership(server, plane.log, clock_us)
        self.config = ConfigFollower(plane.model)
        self._ledger = _LedgerLink(settings, plane.model)
        self._tried: tuple[int, float] = (0, 0.0)
        self._contracts: frozenset[str] = frozenset()
        """The contracts whose inputs are known to the switch."""
        self._is_copy_due = False
        self._kept_last_resort: tuple[str, ...] = ()
        """The last resorts that the local copy names."""
        self._looked_at = self._went_round_at = self._round_at = self._comparison_at = 0.0
        self._listening = threading.Event()
        self._is_announced = False
        self._stopping = threading.Event()
        self.has_left = threading.Event()
        """Set when the ledger knows that the server has ended, or cannot know it."""
        self.first_read = threading.Event()
        """Set when the ledger has been read once."""
        self._thread = threading.Thread(target=self._run, name="plan-follower", daemon=True)

    @property
    def is_alive(self) -> bool:
        """True while the thread runs. Only `stop` ends it; a ledger that hangs holds it, see `ledger_read_us`."""
        return self._thread.is_alive()

    def start_from_copy(self) -> None:
        """Serve what the last run stored, if it is there and intact; the ledger may be away. Aborts come first."""
        self.aborts.look()
        self.label_rules.start_from_copy()
        try:
            with self._copy.read():
                state = self._copy.load()
                if state is None:
                    return
                found = self._loader.load_local_plan(state)
                self.online.start_from_copy()
        except (HoldfastError, OSError) as error:
            self._reject(str(error))
            return
        self.switch.restore(state)
        self._kept_last_resort = state.last_resort
        self.config.start_from_copy(state.serving_config)
        self._serve(found)

    def start(self) -> None:
        """Start the threads."""
        self.aborts.start()
        self.copy_writer.start()
        self._thread.start()

    def announce(self, local_address: str) -> None:
        """Register the server in its directory, so that it is found without the ledger, and in the ledger if it is not yet.

        `local_address` is the URL at which this machine reaches it.
        """
        try:
            local_servers.announce(self._copy.directory, replace(self._server, address=local_address))
        except OSError as error:
            _log.warning("rollback without the ledger will not find this server: %s", error)
        self._listening.set()

    def drain(self) -> None:
        """State that the server takes no new connections, with the next look at the ledger."""
        self.membership.leave(Stated.DRAINING)

    def stop(self) -> None:
        """Stop the threads. Does not wait: one may hang in a database that does not respond."""
        self._stopping.set()
        self._ledger.wake()
        self.aborts.stop()
        self.copy_writer.stop()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                store, changes, commits = self._ledger.open()
                self._look(store, changes)
                if time.monotonic() >= self._round_at:
                    self._went_round_at = time.monotonic()
                    self._round_at = self._went_round_at + REFRESH_SECONDS
                    self._round(store, changes)
                elif self._is_announced and not self.membership.seconds_until_due:
                    self.membership.follow(store)
            except Exception as error:  # drivers raise what they like; the next round tries again
                self._report_ledger_error(error)
                self._ledger.close()
                self._stopping.wait(ERROR_SECONDS)
                continue
            self.progress.ledger_error = ""
            self.progress.ledger_read_us = self._clock_us()
            self.first_read.set()
            self._wait(changes, commits)
        self._leave()

    def _wait(self, changes: Changes, commits: CommitListener) -> None:
        """Wait until something was committed or it is time to look; at least the shortest time between two looks."""
        if not self._is_settled:
            self._hasten_round()
        poll = self._poll_seconds if commits.is_nudged else min(self._poll_seconds, changes.pause_seconds)
        until_round = max(0.0, self._round_at - time.monotonic())
        if self._is_announced:
            until_round = min(until_round, self.membership.seconds_until_due)
        # No secret depends on it.
        if commits.wait(min(until_round, poll * random.uniform(1 - JITTER, 1 + JITTER))):  # noqa: S311
            self._hasten_round()
            self._stopping.wait(max(0.0, self._looked_at + changes.pause_seconds - time.monotonic()))

    @property
    def _is_settled(self) -> bool:
        """True if nothing is left to do until the ledger changes."""
        return (
            self._is_announced
            and not self._is_copy_due
            and self.copy_writer.is_idle
            and not self.switch.aborts
            and not self.switch.unavailable
            and not (self.progress.plan_error or self.online.error or self.label_rules.error)
        )

    def _hasten_round(self) -> None:
        earliest = self._went_round_at + min(UNSETTLED_SECONDS, self._poll_seconds)
        self._round_at = min(self._round_at, earliest)

    def _look(self, store: Store, changes: Changes) -> None:
        # Called between all slow steps, so that none of them delays a plan.
        self._looked_at = time.monotonic()
        if changes.since_last():
            self._follow_newest(store)
            self._hasten_round()

    def _round(self, store: Store, changes: Changes) -> None:
        newest = self._follow_newest(store)
        # Before it can be ready: predictions are collected only from the logs of registered servers.
        if self.switch.plan is not None or self._listening.is_set():
            self._announce(store)
        self.label_rules.follow(store)
        self.online.follow(store, self.switch.loaded)
        self._look(store, changes)
        self._read_rollback_facts(store)
        self._look(store, changes)
        self._write_copy(store)
        # Not before the copy could start without them: else a start without the ledger would serve what they stopped.
        if newest is not None and not self._is_copy_due and self.copy_writer.is_idle:
            self.abort_handler.end_settled(store, newest)
        if time.monotonic() >= self._comparison_at:
            with store.ledger.read() as connection:
                self.progress.comparison = traffic_comparison.last(connection, self._model)
            self._comparison_at = time.monotonic() + COMPARISON_SECONDS

    def _announce(self, store: Store) -> None:
        if not self.membership.seconds_until_due:
            self.membership.follow(store)
        if not self._is_announced:
            with store.ledger.write() as connection:
                self.label_rules.announce(
                    connection, self._root, os.urandom(SECRET_BYTES), now_us=self._clock_us()
                )
            self._is_announced = True

    def _leave(self) -> None:
        """State that the server has ended, if it ever was announced and the ledger can be written."""
        try:
            if self._is_announced:
                self.membership.leave(Stated.ENDED)
                self.membership.follow(self._ledger.open()[0])
        except Exception as error:  # it is silent then, and found lost later
            _log.warning("the ledger does not know that this server has ended: %s", error)
        finally:
            self.has_left.set()

    def _report_ledger_error(self, error: Exception) -> None:
        what = str(error) if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}"
        if what != self.progress.ledger_error:
            _log.warning("ledger unavailable, serving goes on: %s", what)
        self.progress.ledger_error = what

    # --- the plan -----------------------------------------------------------------------------------------------------

    def _follow_newest(self, store: Store) -> TrafficPlan | None:
        with store.ledger.read() as connection:
            plan = traffic_plans.newest(connection, self._model)
        if plan is not None and self._is_due(plan):
            self._follow(store, plan)
        return plan

    def _is_due(self, plan: TrafficPlan) -> bool:
        """Return True if `plan` is new, or was incomplete when it was last tried a while ago."""
        current = self.switch.plan
        if current is not None and (
            plan.plan_id < current.plan_id
            or (plan.plan_id == current.plan_id and not self.switch.unavailable)
        ):
            return False
        tried, at = self._tried
        return plan.plan_id != tried or time.monotonic() >= at + RETRY_SECONDS

    def _follow(self, store: Store, plan: TrafficPlan) -> None:
        self._tried = (plan.plan_id, time.monotonic())
        loaded = self.switch.loaded
        try:
            found = self._loader.load_plan(store, plan, loaded, self.switch.unavailable)
        except HoldfastError as error:
            self._reject(f"plan {plan.plan_id}: {error}")
            return
        if plan == self.switch.plan and found.versions.keys() == loaded.keys():
            self.switch.unavailable = dict(found.unavailable)
            return
        if not found.versions.keys() <= loaded.keys():
            # Features first: a version that reads an aggregate must not predict without it.
            self.online.follow(store, found.versions)
        if self._serve(found):
            self.config.follow(store)

    def _serve(self, found: LoadedPlan) -> bool:
        if why := self.switch.apply(found.plan, found.versions, found.unavailable):
            self._reject(f"plan {found.plan.plan_id}: {why}")
            return False
        self.progress.plan_error = ""
        self._is_copy_due = True
        return True

    def _reject(self, why: str) -> None:
        if why != self.progress.plan_error:
            self.progress.plans_rejected += 1
            _log.error("plan rejected: %s", why)
        self.progress.plan_error = why

    # --- what a start or a rollback without the ledger needs ----------------------------------------------------------

    def _read_rollback_facts(self, store: Store) -> None:
        with store.ledger.read() as connection:
            tainted = taints.versions_of(connection, self._model)
            row = rollouts.under_way(connection, self._model)
            hashes = rollouts.contract_hashes(connection, self._model)
            found = [contracts.find(connection, each) for each in sorted(hashes - self._contracts)]
        if hashes - self._contracts:
            self._contracts |= hashes
            inputs = merge_inputs(inputs_of(each) for each in found if each is not None)
            self._is_copy_due |= self.switch.set_inputs(inputs)
        under_way = None if row is None else UnderWay(row.rollout_id, row.challenger)
        if self.switch.set_rollback_facts(RollbackFacts(tainted, under_way)):
            self._is_copy_due = True
        if self._last_resort() != self._kept_last_resort:
            self._is_copy_due = True

    def _last_resort(self) -> tuple[str, ...]:
        return tuple(sorted(self.switch.last_resort))

    def _write_copy(self, store: Store) -> None:
        plan = self.switch.plan
        if self._is_copy_due and plan is not None:
            self._kept_last_resort = self._last_resort()
            state = self._local_state(plan)
            self.copy_writer.submit(
                "plan", lambda copy: copy.save(state, lambda digest: blobs.get(store.root, digest))
            )
            self._is_copy_due = False
        write = self.online.pending_write(store, self.switch.loaded)
        if write is not None:
            self.copy_writer.submit("online features", write)

    def _local_state(self, plan: TrafficPlan) -> LocalState:
        switch, facts = self.switch, self.switch.facts
        return LocalState(
            plan,
            {
                name: LocalVersion(version.digest, version.created_at_us, switch.deployed_us.get(name, 0))
                for name, version in switch.loaded.items()
            },
            switch.rolled_back_us,
            tuple(sorted(facts.tainted)),
            facts.under_way,
            switch.newest_rollout,
            "" if self.config.limits is None else self.config.limits.to_json(),
            dict(switch.inputs),
            self._kept_last_resort,
        )


class ConfigFollower:
    """Follows the serving config of one model. Until a plan names one, the server has the limits it was started with."""

    def __init__(self, model: str) -> None:
        self.limits: ConnectionLimits | None = None
        """The limits that a plan names; None if none does."""
        self.error = ""
        """Why the newest serving config is not used."""
        self._model = model
        self._apply: Callable[[ConnectionLimits], None] | None = None

    def on_change(self, apply: Callable[[ConnectionLimits], None]) -> None:
        """Call `apply` with each new serving config from now on, on the follower's thread."""
        self._apply = apply

    def start_from_copy(self, document: str) -> None:
        """Use the serving config of the local copy."""
        if document:
            self._use(document)

    def follow(self, store: Store) -> None:
        """Use the serving config of the newest plan that names one. One that cannot be read changes nothing."""
        with store.ledger.read() as connection:
            in_force = serving_configs.in_force(connection, self._model)
            document = serving_configs.document(connection, in_force[0][1]) if in_force else ""
        if document and (self.limits is None or document != self.limits.to_json()):
            self._use(document)

    def _use(self, document: str) -> None:
        try:
            limits = ConnectionLimits.from_json(document)
        except HoldfastError as error:
            if str(error) != self.error:
                _log.error("serving config rejected: %s", error)
            self.error = str(error)
            return
        if self._apply is not None:
            self._apply(limits)
        self.limits, self.error = limits, ""


class _LedgerLink:
    """The follower's connection to the ledger: opened when it is needed, closed after an error. It belongs to one thread."""

    def __init__(self, settings: Settings, model: str) -> None:
        self._settings = settings
        self._model = model
        self._store: Store | None = None
        self._changes: Changes | None = None
        self._commits: CommitListener | None = None

    def open(self) -> tuple[Store, Changes, CommitListener]:
        if self._store is None:
            url = self._settings.ledger_url
            path = Path(url.removeprefix(_SQLITE))
            # Opening would make an empty ledger in the place of the lost one.
            if url.startswith(_SQLITE) and not path.exists():
                raise UnavailableError("HF302", f"the ledger {path} is not there")
            self._store = Store.of(self._settings)
        if self._changes is None:
            self._changes = Changes(self._store, self._model)
        if self._commits is None:
            self._commits = self._store.ledger.listen()
        return self._store, self._changes, self._commits

    def wake(self) -> None:
        """End the wait for a commit; any thread may."""
        commits = self._commits
        if commits is not None:
            commits.wake()

    def close(self) -> None:
        store, self._store = self._store, None
        changes, self._changes = self._changes, None
        commits, self._commits = self._commits, None
        try:
            if commits is not None:
                commits.close()
            if changes is not None:
                changes.close()
            if store is not None:
                store.ledger.close()
        except (
            Exception
        ) as error:  # a driver may fail here, too; the next round makes a new connection anyway
            _log.warning("closing the ledger failed: %s: %s", type(error).__name__, error)
