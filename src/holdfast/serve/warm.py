"""Follows the plan: a thread that reads the ledger, makes versions warm, and then swaps one pointer.

The request path never waits for it. A ledger that is gone, hung or damaged stops this thread, and nothing else: the server
goes on with the newest plan that it could verify, and a fresh start finds that plan in its local copy (R135, reliability
F10, D7). The current and the previous champion are both warm, so that a roll-back is the swap alone (R113).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from holdfast.contract.changes import Border, Kind, worst
from holdfast.contract.evolution import compare
from holdfast.errors import HoldfastError, IntegrityError, UnavailableError
from holdfast.monitor.asked import Asked
from holdfast.records import TrafficPlan
from holdfast.serve.local_copy import Kept, KeptVersion, LocalCopy
from holdfast.serve.online_values import OnlineValues
from holdfast.serve.plane import Plane, Serving
from holdfast.serve.tell import tell
from holdfast.serve.version import LoadedVersion, load
from holdfast.settings import Settings
from holdfast.store import Store, asked, blobs, plans, servers, versions

POLL_SECONDS: Final = 0.2
"""How often the ledger is asked for a newer plan and newer values."""
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
    left_out: dict[str, str] = field(default_factory=dict)
    """Versions of the plan that is served which could not be made warm, and why. Never changed in place."""
    online_trouble: str = ""
    copy_trouble: str = ""
    rolled_back_us: int = 0
    asked: Asked | None = None
    """What callers ask, as the control loop last compared it."""


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
    champion_back = after.champion != before.champion and after.champion == before.previous
    return (challenger_left and before.share_ppm > 0) or champion_back


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
        self.deployed_us: dict[str, int] = {}
        self._plane = plane
        self._settings = settings
        self._server = server
        self._clock_us = clock_us
        self._poll_seconds = poll_seconds
        self._copy = LocalCopy(settings.root / "serve" / plane.model)
        self.online = OnlineValues(plane.table, self._copy)
        self._loaded: dict[str, LoadedVersion] = {}
        self._plan: TrafficPlan | None = None
        self._tried: tuple[int, float] = (0, 0.0)
        self._copy_due = False
        self._copy_at = 0.0
        self._asked_at = 0.0
        self._store: Store | None = None
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
        """Serve what the last run kept, if it is there and whole; the ledger may then be away."""
        try:
            with self._copy.read():
                kept = self._copy.load()
                if kept is None:
                    return
                warmed = self._make_warm(kept.plan, lambda name: self._from_copy(name, kept))
                self.online.start_from_copy()
        except (HoldfastError, OSError) as error:
            self._refuse(str(error))
            return
        self.deployed_us = {
            name: version.deployed_us for name, version in kept.versions.items() if version.deployed_us
        }
        self.progress.rolled_back_us = kept.rolled_back_us
        self._serve(kept.plan, warmed)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def listening(self) -> None:
        """Announce the server from now on: whoever asks it finds it."""
        self._listening.set()

    def stop(self) -> None:
        """Follow no longer. Does not wait: the thread may hang in a database that does not answer."""
        self._stopping.set()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _forever(self) -> None:
        while not self._stopping.is_set():
            try:
                self._round(self._open())
            except (
                Exception
            ) as error:  # drivers raise what they like; the next round tries again, the page shows it
                self._in_trouble(error)
                self._stopping.wait(TROUBLE_SECONDS)
                continue
            self.progress.trouble = ""
            self.progress.ledger_read_us = self._clock_us()
            self.first_read.set()
            self._stopping.wait(self._poll_seconds)

    def _round(self, store: Store) -> None:
        if self._listening.is_set() and not self._announced:
            servers.announce(store, self._server)
            self._announced = True
        plan = plans.newest(store, self._plane.model)
        if plan is not None and self._is_due(plan):
            self._follow(store, plan)
        self._follow_online(store, self._loaded)
        self._keep(store)
        if time.monotonic() >= self._asked_at:
            with store.ledger.read() as connection:
                self.progress.asked = asked.last(connection, self._plane.model)
            self._asked_at = time.monotonic() + ASKED_SECONDS

    def _is_due(self, plan: TrafficPlan) -> bool:
        """Whether `plan` is new, or was not followed completely a while ago."""
        if self._plan is not None and (
            plan.plan < self._plan.plan or (plan.plan == self._plan.plan and not self.progress.left_out)
        ):
            return False
        tried, at = self._tried
        return plan.plan != tried or time.monotonic() >= at + RETRY_SECONDS

    def _open(self) -> Store:
        if self._store is None:
            url = self._settings.ledger_url
            path = Path(url.removeprefix(_SQLITE))
            # Opening would make an empty ledger in the place of the lost one.
            if url.startswith(_SQLITE) and not path.exists():
                raise UnavailableError("HF302", f"the ledger {path} is not there")
            self._store = Store.of(self._settings)
        return self._store

    def _in_trouble(self, error: Exception) -> None:
        what = str(error) if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}"
        if what != self.progress.trouble:
            tell(f"the ledger cannot be followed, serving goes on: {what}")
        self.progress.trouble = what
        store, self._store = self._store, None
        if store is not None:
            try:
                store.ledger.close()
            except (
                Exception
            ) as failed:  # a driver in trouble may fail to close, too; a new connection is made anyway
                tell(f"the ledger could not be closed: {type(failed).__name__}: {failed}")

    # --- the plan -----------------------------------------------------------------------------------------------------

    def _follow(self, store: Store, plan: TrafficPlan) -> None:
        self._tried = (plan.plan, time.monotonic())
        try:
            warmed = self._make_warm(plan, lambda name: self._loaded.get(name) or self._warm(store, name))
        except HoldfastError as error:
            self._refuse(f"plan {plan.plan}: {error}")
            return
        if plan == self._plan and warmed.keys() == self._loaded.keys():
            return  # tried again in vain
        # Values first: a version that reads an aggregate must not answer its first requests without it.
        self._follow_online(store, warmed)
        self._serve(plan, warmed)

    def _make_warm(self, plan: TrafficPlan, warm: Callable[[str], LoadedVersion]) -> dict[str, LoadedVersion]:
        """The plan's versions as `warm` makes them. Without the champion there is no plan; the others may be missing."""
        champion = _made(plan.champion, warm)
        warmed, left_out = {plan.champion: champion}, dict[str, str]()
        for name in plan.versions():
            if name == plan.champion:
                continue
            try:
                version = _made(name, warm)
                if name == plan.challenger:
                    _must_understand(version, champion)
            except HoldfastError as error:
                left_out[name] = str(error)
                if self.progress.left_out.get(name) != str(error):
                    tell(f"plan {plan.plan} is followed without {name}: {error}")
                continue
            warmed[name] = version
        self.progress.left_out = left_out
        return warmed

    def _serve(self, plan: TrafficPlan, warmed: dict[str, LoadedVersion]) -> None:
        before, now_us = self._plan, self._clock_us()
        self._plane.serving = Serving.of(_without(plan, self.progress.left_out), warmed)
        self._plan, self._loaded = plan, warmed
        self.progress.refusal = ""
        for name in (plan.champion, plan.challenger if plan.share_ppm else None):
            if name in warmed:
                self.deployed_us.setdefault(name, now_us)
        if before is not None and is_roll_back(before, plan):
            self.progress.rolled_back_us = now_us
        self._copy_due = True

    def _warm(self, store: Store, name: str) -> LoadedVersion:
        row = versions.get(store, name)
        data = self._copy.file(row.digest) or blobs.get(store, row.digest)
        return load(name, row.digest, data, created_us=row.created_us)

    def _from_copy(self, name: str, kept: Kept) -> LoadedVersion:
        version = kept.versions.get(name)
        data = self._copy.file(version.digest) if version is not None else None
        if version is None or data is None:
            raise IntegrityError("HF301", f"the local copy of version {name} is missing or was altered")
        return load(name, version.digest, data, created_us=version.created_us)

    def _keep(self, store: Store) -> None:
        """Bring the local copy to the plan that is served; a disk that refuses is asked again."""
        now = time.monotonic()
        if now < self._copy_at:
            return
        try:
            if self._copy_due and self._plan is not None:
                self._copy_due = not self._copy.save(
                    self._kept(self._plan), lambda digest: blobs.get(store, digest)
                )
            self.online.keep(store, self._loaded)
        except (OSError, IntegrityError) as error:
            self._copy_at = now + TROUBLE_SECONDS
            if str(error) != self.progress.copy_trouble:
                tell(f"the local copy cannot be kept, a start without the ledger would be behind: {error}")
            self.progress.copy_trouble = str(error)
        else:
            self.progress.copy_trouble = ""

    def _kept(self, plan: TrafficPlan) -> Kept:
        versions_kept = {
            name: KeptVersion(version.digest, version.created_us, self.deployed_us.get(name, 0))
            for name, version in self._loaded.items()
        }
        return Kept(plan, versions_kept, self.progress.rolled_back_us)

    def _refuse(self, why: str) -> None:
        if why != self.progress.refusal:
            self.progress.plans_refused += 1
            tell(f"refused: {why}")
        self.progress.refusal = why

    def _follow_online(self, store: Store, loaded: Mapping[str, LoadedVersion]) -> None:
        """Bring the values up to date. What goes wrong with them holds back no plan: unknown is what an aggregate can be."""
        try:
            self.online.follow(store, loaded)
        except Exception as error:  # a driver's, whatever it is; the next round asks again
            what = f"{type(error).__name__}: {error}"
            if what != self.progress.online_trouble:
                tell(f"the online values cannot be read: {what}")
            self.progress.online_trouble = what
        else:
            self.progress.online_trouble = ""


def _made(name: str, warm: Callable[[str], LoadedVersion]) -> LoadedVersion:
    try:
        return warm(name)
    except OSError as error:
        raise IntegrityError("HF301", f"the file of version {name} cannot be read: {error}") from error


def _must_understand(challenger: LoadedVersion, champion: LoadedVersion) -> None:
    """The champion's callers must be understood by the challenger, or their requests would be its failures (R133)."""
    evolution = compare(champion.contract, challenger.contract)
    if worst(map(evolution.at, (Border.CALLERS, Border.MODELS))) is Kind.BREAKING:
        told = "; ".join(f"{change.column}: {change.what}" for change in evolution.of(Kind.BREAKING))
        raise IntegrityError(
            "HF301",
            f"{challenger.name} was trained under another contract than {champion.name}, which breaks its callers: {told}",
        )


def _without(plan: TrafficPlan, left_out: Mapping[str, str]) -> TrafficPlan:
    """`plan` as it can be served. A rollout whose challenger is missing here gets no evidence from here either."""
    served = replace(
        plan,
        previous=None if plan.previous in left_out else plan.previous,
        fallback=None if plan.fallback in left_out else plan.fallback,
    )
    if plan.challenger in left_out:
        served = replace(served, challenger=None, share_ppm=0, rollout=None)
    return served
