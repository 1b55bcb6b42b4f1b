"""Follows the plan: a thread that reads the ledger, makes versions warm, and then swaps one pointer.

The request path never waits for it. A ledger that is gone, hung or damaged stops this thread, and nothing else: the server
goes on with the newest plan that it could verify, and a fresh start finds that plan in its local copy (R135, reliability
F10, D7). The current and the previous champion are both warm, so that a roll-back is the swap alone (R113).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.errors import HoldfastError, IntegrityError, UnavailableError
from holdfast.features import Aggregate
from holdfast.records import TrafficPlan
from holdfast.serve.local_copy import Kept, KeptValue, KeptVersion, LocalCopy
from holdfast.serve.plane import Plane, Serving
from holdfast.serve.version import LoadedVersion, load
from holdfast.settings import Settings
from holdfast.store import Store, batches, blobs, online, plans, servers, versions

POLL_SECONDS: Final = 0.2
"""How often the ledger is asked for a newer plan and newer values."""
TROUBLE_SECONDS: Final = 1.0
"""How long to wait after the ledger could not be read."""
KEEP_ONLINE_SECONDS: Final = 30.0
"""The shortest time between two copies of the online values."""
ONLINE_WINDOWS: Final = 8
"""How many windows of an aggregate, before its newest value, are held at least; but never less than `ONLINE_LEAST_US`."""
ONLINE_LEAST_US: Final = 45 * 86_400 * 1_000_000
_SQLITE: Final = "sqlite:///"


@dataclass(slots=True)
class Progress:
    """What the follower has seen. Written by its thread, read by others one field at a time."""

    ledger_read_us: int = 0
    table_version: int = 0
    plans_refused: int = 0
    trouble: str = ""
    refusal: str = ""
    rolled_back_us: int = 0


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
        self._loaded: dict[str, LoadedVersion] = {}
        self._store: Store | None = None
        self._announced = False
        self._followed: dict[str, int] = {}
        self._online_changed = False
        self._keep_online_at = 0.0
        self._stopping = threading.Event()
        self.first_read = threading.Event()
        """Set when the ledger has been read once."""
        self._thread = threading.Thread(target=self._forever, name="plan-follower", daemon=True)

    def start_from_copy(self) -> None:
        """Serve what the last run kept, if it is there and whole; the ledger may then be away."""
        try:
            kept = self._copy.load()
        except IntegrityError as error:
            self._refuse(str(error))
            return
        if kept is None:
            return
        try:
            warmed = {name: self._from_copy(name, version) for name, version in kept.versions.items()}
        except HoldfastError as error:
            self._refuse(str(error))
            return
        self._loaded = warmed
        self.deployed_us = {
            name: version.deployed_us for name, version in kept.versions.items() if version.deployed_us
        }
        self.progress.rolled_back_us = kept.rolled_back_us
        for value in self._copy.load_online():
            self._plane.table.add(value.aggregate, value.entity, value.known_us, value.value)
        self._plane.serving = Serving.of(kept.plan, warmed)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

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
        if not self._announced:
            servers.announce(store, self._server)
            self._announced = True
        plan = plans.newest(store, self._plane.model)
        serving = self._plane.serving
        if plan is not None and (serving is None or plan.plan > serving.plan.plan):
            self._follow(store, plan)
        self._follow_online(store)

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
            _tell(f"the ledger cannot be followed, serving goes on: {what}")
        self.progress.trouble = what
        if self._store is not None:
            self._store.ledger.close()
            self._store = None

    # --- the plan -----------------------------------------------------------------------------------------------------

    def _follow(self, store: Store, plan: TrafficPlan) -> None:
        files: dict[str, bytes] = {}
        try:
            warmed = {
                name: self._loaded.get(name) or self._warm(store, name, files) for name in plan.versions()
            }
            if plan.challenger is not None and (
                warmed[plan.challenger].contract.hash != warmed[plan.champion].contract.hash
            ):
                raise IntegrityError(
                    "HF301", f"{plan.challenger} was trained under another contract than {plan.champion}"
                )
        except HoldfastError as error:
            self._refuse(f"plan {plan.plan}: {error}")
            return
        before = self._plane.serving
        now_us = self._clock_us()
        # Values first: a version that reads an aggregate must not answer its first requests without it.
        self._follow_aggregates(store, warmed)
        self._plane.serving = Serving.of(plan, warmed)
        self._loaded = warmed
        self.progress.refusal = ""
        for name in (plan.champion, plan.challenger if plan.share_ppm else None):
            if name is not None:
                self.deployed_us.setdefault(name, now_us)
        if before is not None and is_roll_back(before.plan, plan):
            self.progress.rolled_back_us = now_us
        self._copy.save(self._kept(plan, warmed), files)

    def _warm(self, store: Store, name: str, files: dict[str, bytes]) -> LoadedVersion:
        row = versions.get(store, name)
        data = self._copy.file(row.digest) or blobs.get(store, row.digest)
        files[row.digest] = data
        return load(name, row.digest, data, created_us=row.created_us)

    def _from_copy(self, name: str, kept: KeptVersion) -> LoadedVersion:
        data = self._copy.file(kept.digest)
        if data is None:
            raise IntegrityError("HF301", f"the local copy of version {name} is missing or was altered")
        return load(name, kept.digest, data, created_us=kept.created_us)

    def _kept(self, plan: TrafficPlan, warmed: Mapping[str, LoadedVersion]) -> Kept:
        versions_kept = {
            name: KeptVersion(version.digest, version.created_us, self.deployed_us.get(name, 0))
            for name, version in warmed.items()
        }
        return Kept(plan, versions_kept, self.progress.rolled_back_us)

    def _refuse(self, why: str) -> None:
        if why != self.progress.refusal:
            self.progress.plans_refused += 1
            _tell(f"refused: {why}")
        self.progress.refusal = why

    # --- the online values --------------------------------------------------------------------------------------------

    def _follow_online(self, store: Store) -> None:
        self._follow_aggregates(store, self._loaded)
        now = time.monotonic()
        if self._online_changed and now >= self._keep_online_at:
            self._keep_online(store)
            self._online_changed, self._keep_online_at = False, now + KEEP_ONLINE_SECONDS

    def _follow_aggregates(self, store: Store, loaded: Mapping[str, LoadedVersion]) -> None:
        """Bring the table to the ledger's state."""
        table = self._plane.table
        with store.ledger.read() as connection:
            newest = batches.current_version(connection)
            for aggregate in _aggregates(loaded):
                name = aggregate.name
                since = self._followed.get(name, 0)
                if since >= newest:
                    continue
                followed, values = online.since(connection, [name], since)
                for value in values:
                    table.add(name, value.entity, value.known_us, value.value)
                if values:
                    self._online_changed = True
                    table.trim(name, values[-1].known_us - _horizon_us(aggregate))
                self._followed[name] = max(followed, newest)
        self.progress.table_version = newest

    def _keep_online(self, store: Store) -> None:
        kept: list[KeptValue] = []
        with store.ledger.read() as connection:
            for aggregate in _aggregates(self._loaded):
                _, values = online.since(connection, [aggregate.name], 0)
                oldest = values[-1].known_us - _horizon_us(aggregate) if values else 0
                kept += [
                    KeptValue(value.aggregate, value.entity, value.known_us, value.value)
                    for value in values
                    if value.known_us >= oldest
                ]
        self._copy.save_online(kept)


def _tell(what: str) -> None:
    sys.stderr.write(f"holdfast: {what}\n")  # a server's log is its standard error
    sys.stderr.flush()


def _aggregates(loaded: Mapping[str, LoadedVersion]) -> list[Aggregate]:
    """The aggregates of all versions; of several windows under one name the widest."""
    found: dict[str, Aggregate] = {}
    for version in loaded.values():
        for aggregate in version.aggregates:
            held = found.get(aggregate.name)
            if held is None or held.window_us < aggregate.window_us:
                found[aggregate.name] = aggregate
    return list(found.values())


def _horizon_us(aggregate: Aggregate) -> int:
    return max(ONLINE_LEAST_US, ONLINE_WINDOWS * aggregate.window_us)
