"""Follow the aggregates that the loaded versions read: from the ledger into the table, and into the local copy.

A value that is no finite number is ignored, counted and logged. It stops neither the other values nor the plan.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Final

from holdfast.features import Aggregate, OnlineTable
from holdfast.serve.follower.local_copy import LocalCopy, LocalFeature, Write
from holdfast.serve.inference.loaded_model import LoadedVersion
from holdfast.store import Store
from holdfast.store.catalog import batches, online_features
from holdfast.store.catalog.online_features import OnlineValue

_log = logging.getLogger(__name__)

COPY_SECONDS: Final = 30.0
"""The shortest time between two writes of the local copy."""
RETAINED_WINDOWS: Final = 8
"""Windows of an aggregate, before its newest value, that stay in memory; at least `MIN_RETAINED_US`."""
MIN_RETAINED_US: Final = 45 * 86_400 * 1_000_000


class OnlineFeatureFollower:
    """Keeps `table` up to date for the aggregates of the loaded versions.

    Parameters
    ----------
    table
        The table that requests read.
    copy
        Where the values are stored for a start without the ledger.
    """

    def __init__(self, table: OnlineTable, copy: LocalCopy) -> None:
        self.table_version = 0
        """The table version of the ledger that `table` has reached."""
        self.invalid = 0
        """Values since the start that are not finite numbers."""
        self.error = ""
        """Why the ledger's values cannot be read."""
        self._table = table
        self._copy = copy
        self._followed: dict[str, int] = {}
        self._changed = False
        self._copy_at = 0.0

    def start_from_copy(self) -> None:
        """Load the values that the last run stored."""
        for value in self._copy.load_online():
            self._add(value.aggregate, value.entity, value.known_at_us, value.value)

    def follow(self, store: Store, loaded: Mapping[str, LoadedVersion]) -> None:
        """Bring the table to the ledger's state, and drop aggregates that none of `loaded` reads.

        Never raises: an aggregate may be unknown, so an error here delays no plan. See `error`.
        """
        try:
            self._read(store, loaded)
        except Exception as error:  # drivers raise what they like; the next round tries again
            what = f"{type(error).__name__}: {error}"
            if what != self.error:
                _log.warning("online features cannot be read: %s", what)
            self.error = what
        else:
            self.error = ""

    def _read(self, store: Store, loaded: Mapping[str, LoadedVersion]) -> None:
        wanted = _aggregates(loaded)
        with store.ledger.read() as connection:
            newest = batches.current_version(connection)
            for key, aggregate in wanted.items():
                since = self._followed.get(key, 0)
                if since >= newest:
                    continue
                followed, values = online_features.since(connection, [key], since)
                used = [value for value in values if self._use(value)]
                self._changed = self._changed or bool(values)
                if used:
                    self._table.trim(key, used[-1].known_at_us - _retained_us(aggregate))
                self._followed[key] = max(followed, newest)
        for key in self._followed.keys() - wanted.keys():
            self._table.remove_aggregate(key)
            del self._followed[key]
        self.table_version = newest

    def pending_write(self, store: Store, loaded: Mapping[str, LoadedVersion]) -> Write | None:
        """Return a write of changed values to the local copy; None without changes and for `COPY_SECONDS` after the last."""
        now = time.monotonic()
        if not self._changed or now < self._copy_at:
            return None
        stored: list[LocalFeature] = []
        with store.ledger.read() as connection:
            for key, aggregate in _aggregates(loaded).items():
                _, values = online_features.since(connection, [key], 0)
                stored += _retained(aggregate, values)
        self._copy_at, self._changed, reached = now + COPY_SECONDS, False, self.table_version
        return lambda copy: copy.save_online(stored, reached)

    def _use(self, value: OnlineValue) -> bool:
        """Return True if `value` is in the table now; a value that was backed out leaves it."""
        if value.value is None:
            self._table.remove(value.aggregate, value.entity, value.known_at_us)
            return False
        return self._add(value.aggregate, value.entity, value.known_at_us, value.value)

    def _add(self, key: str, entity: str, known_at_us: int, value: float) -> bool:
        if _is_usable(value):
            self._table.add(key, entity, known_at_us, value)
            return True
        self.invalid += 1
        if self.invalid == 1:
            _log.warning(
                "invalid online feature ignored: %s of %r at %d is %r", key, entity, known_at_us, value
            )
        return False


def _is_usable(value: object) -> bool:
    """Return True if `value` is a finite number. A ledger that was edited by hand may hold anything."""
    return isinstance(value, float | int) and math.isfinite(value)


def _aggregates(loaded: Mapping[str, LoadedVersion]) -> dict[str, Aggregate]:
    """Return the aggregates of all versions by key; equal definitions are one."""
    return {aggregate.key: aggregate for version in loaded.values() for aggregate in version.aggregates}


def _retained(aggregate: Aggregate, values: list[OnlineValue]) -> list[LocalFeature]:
    found = [
        LocalFeature(each.aggregate, each.entity, each.known_at_us, each.value)
        for each in values
        if each.value is not None and _is_usable(each.value)
    ]
    oldest = found[-1].known_at_us - _retained_us(aggregate) if found else 0
    return [value for value in found if value.known_at_us >= oldest]


def _retained_us(aggregate: Aggregate) -> int:
    return max(MIN_RETAINED_US, RETAINED_WINDOWS * aggregate.window_us)
