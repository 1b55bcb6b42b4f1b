"""Abort a version on this server, and follow the aborts of this machine's other servers and commands.

An abort is on disk and out of the traffic before the response goes out. The abort file is followed in a thread that never
touches the ledger, so that no ledger can delay a rollback. The process that writes the file nudges that thread; it also
calls stat(2) once a second, for a nudge that is lost. Aborts apply at once, with versions that are loaded already.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from holdfast.errors import HoldfastError, NotFoundError, RefusedError, UnavailableError
from holdfast.records import TrafficPlan
from holdfast.rollout.model.abort import Abort, is_repeated, target
from holdfast.rollout.model.state_machine import WITHOUT_TRAFFIC
from holdfast.rollout.model.withdrawal import may_serve
from holdfast.serve.follower.plan_switch import PlanSwitch
from holdfast.serve.inference.data_plane import DataPlane
from holdfast.store import Store
from holdfast.store.catalog import name_lookup
from holdfast.store.durability.nudges import Listener
from holdfast.store.rollout import rollouts, withdrawals
from holdfast.store.serving import aborts

_log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
"""How often the file is looked at when no nudge comes."""
UNNUDGED_SECONDS: Final = 0.02
"""How often it is looked at if the directory takes no pipe for nudges."""
RESERVE_SECONDS: Final = 0.9
"""How often the disk space for the next abort is checked."""


class AbortFollower:
    """Follows the aborts of one directory.

    Parameters
    ----------
    directory
        Holds the abort file, which servers and commands of this machine share.
    apply
        Called with the aborts that stand, whenever they change.
    """

    def __init__(self, directory: Path, apply: Callable[[Iterable[Abort]], None]) -> None:
        self.error = ""
        """Why the file cannot be read."""
        self.reserve_error = ""
        """Why no disk space is reserved for an abort."""
        self._directory = directory
        self._apply = apply
        self._seen: aborts.Stamp | None = None
        self._reserve_at = 0.0
        self._stopping = threading.Event()
        self._nudges: Listener | None = None
        self._thread = threading.Thread(target=self._run, name="aborts", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Return True while the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Look once now, then in a thread."""
        self._nudges = Listener(aborts.nudges_of(self._directory))
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        if self._nudges is not None:
            self._nudges.wake()

    def look(self) -> None:
        """Apply the aborts of the file if it changed."""
        try:
            stamp = aborts.stamp(self._directory)
            if stamp == self._seen:
                return
            self._apply(aborts.load(self._directory))
            self._seen = stamp
        except (HoldfastError, OSError) as error:
            if str(error) != self.error:
                _log.error("abort file cannot be followed: %s", error)
            self.error = str(error)
        else:
            self.error = ""

    def _run(self) -> None:
        nudges = self._nudges
        assert nudges is not None, "`start` makes it"
        poll_seconds = POLL_SECONDS if nudges.is_nudged else UNNUDGED_SECONDS
        while not self._stopping.is_set():
            self.look()
            if time.monotonic() >= self._reserve_at:
                self._reserve()
            nudges.wait(poll_seconds)
        nudges.close()

    def _reserve(self) -> None:
        self._reserve_at = time.monotonic() + RESERVE_SECONDS
        try:
            aborts.reserve(self._directory)
        except OSError as error:
            # The next round tries again; an abort may still find the space that it needs.
            if str(error) != self.reserve_error:
                _log.warning("reserving disk space for an abort failed: %s", error)
            self.reserve_error = str(error)
        else:
            self.reserve_error = ""


class AbortHandler:
    """Takes aborts for one server, and ends those that the ledger has caught up with.

    Parameters
    ----------
    plane, switch
        The data plane and the switch that sets its active plan.
    directory
        Holds the abort file, which servers and commands of this machine share.
    clock_us
        Microseconds since 1970 UTC.
    """

    def __init__(
        self, plane: DataPlane, switch: PlanSwitch, directory: Path, clock_us: Callable[[], int]
    ) -> None:
        self._plane = plane
        self._switch = switch
        self._directory = directory
        self._clock_us = clock_us
        self._one_at_a_time = threading.Lock()
        self._end_error = ""

    def abort(self, version: str | None, reason: str, actor: str) -> dict[str, object]:
        """Take traffic from `version`, by default from the version that is being rolled out.

        Returns
        -------
        The aborted version, the version that serves now, the newest known rollout, and whether the abort is on disk.

        Raises
        ------
        UnavailableError
            HF503 when no version is loaded; HF307 when no other version can serve since a new plan, and the disk does not take
            that back.
        NotFoundError
            HF303 for a version without traffic here.
        RefusedError
            HF404 when no other version can serve; or when no version is named and the target would be the champion to which
            traffic has just been rolled back. Then nothing changes: every earlier abort stands.
        """
        with self._one_at_a_time:
            return self._abort(version, reason, actor)

    def _abort(self, version: str | None, reason: str, actor: str) -> dict[str, object]:
        switch = self._switch
        plan, under_way = switch.plan, switch.facts.under_way
        if plan is None:
            raise UnavailableError("HF503", "no version is loaded yet")
        known = {*plan.versions(), *([under_way.challenger] if under_way else [])}
        version = name_lookup.meant(version, known) if version else self._target(plan)
        if version not in known:
            raise NotFoundError("HF303", f"{version[:64]!r} has no traffic here")
        rollout = max(switch.newest_rollout, plan.rollout_id or 0)
        abort = Abort(version, plan.plan_id, rollout, reason, actor, self._clock_us())
        durable = is_new = True

        def check(standing: Iterable[Abort]) -> None:
            if why := switch.refusal(abort, standing):
                raise RefusedError("HF404", f"{abort.version} cannot be aborted: {why}")

        try:
            abort, is_new = aborts.add(self._directory, abort, check=check)
        except UnavailableError:
            check(())
            durable = False  # traffic is rolled back all the same; a restart would not know, and the response has this
        switch.apply_aborts([*switch.aborts.values(), abort])
        if why := switch.last_resort.get(version):
            # A plan that came meanwhile leaves no other version.
            if is_new:
                if durable:
                    self._take_back(abort, why)
                switch.apply_aborts(each for each in switch.aborts.values() if each != abort)
            raise RefusedError("HF404", f"{version} cannot be aborted: {why}")
        active = self._plane.active
        return {
            "version": version,
            "serves": None if active is None else active.intended,
            "rollout": abort.rollout_id,
            "durable": durable,
        }

    def _take_back(self, abort: Abort, why: str) -> None:
        """Remove `abort` from the file. Raises `UnavailableError` HF307 if the disk does not take it: then it stands."""
        try:
            aborts.remove(self._directory, [abort])
        except OSError as error:
            raise UnavailableError(
                "HF307",
                f"{abort.version} cannot be aborted now: {why}; the abort file cannot be written: {error.strerror}",
                state="the abort stands: it is carried out as soon as another version can serve",
            ) from error

    def end_settled(self, store: Store, newest: TrafficPlan) -> None:
        """End the aborts of versions that were pushed again, and those that the ledger has recorded.

        The latter only when this server serves `newest`, the ledger's newest plan, and it does not name the version. Until the
        disk takes their end, they stand.
        """
        switch = self._switch
        if not switch.aborts:
            return
        is_followed = switch.plan is not None and newest.plan_id == switch.plan.plan_id
        with store.ledger.read() as connection:
            standings = withdrawals.standings(connection, self._plane.model, list(switch.aborts))
            row = rollouts.under_way(connection, self._plane.model)
        waiting = row.challenger if row is not None and row.state in WITHOUT_TRAFFIC else None
        ended = []
        for abort in switch.aborts.values():
            known = standings[abort.version]
            is_pushed_again = may_serve(pushed=known.pushed, withdrawn=abort.rollout_id)
            is_in_plan = abort.version in newest.versions()
            is_recorded = not known.may_serve and abort.version != waiting
            if is_pushed_again or (is_followed and not is_in_plan and is_recorded):
                ended.append(abort)
        if not ended:
            return
        try:
            aborts.remove(self._directory, ended)
        except OSError as error:
            if str(error) != self._end_error:
                _log.warning("aborts that are settled stand until the abort file can be written: %s", error)
            self._end_error = str(error)
            return
        self._end_error = ""
        switch.end_aborts(ended)

    def _target(self, plan: TrafficPlan) -> str:
        """Return the version that an abort without a name is about."""
        switch = self._switch
        version = target(plan, switch.facts.under_way)
        if version not in switch.aborts and is_repeated(
            version,
            plan,
            switch.facts.under_way,
            deployed_us=switch.deployed_us.get(version, 0),
            rolled_back_us=switch.rolled_back_us,
            now_us=self._clock_us(),
        ):
            raise RefusedError(
                "HF404", f"traffic was rolled back to {version} just now: name it to abort it as well"
            )
        return version
