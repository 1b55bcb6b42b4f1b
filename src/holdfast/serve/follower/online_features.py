"""Follows the aggregates that the warm versions read: from the ledger into the table, and into the local copy.

A value that cannot be used is left out, counted and told; it stops neither the other values nor the plan.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Final

from holdfast.features import Aggregate, OnlineTable
from holdfast.serve.follower.local_copy import KeptValue, LocalCopy
from holdfast.serve.follower.local_copy_writer import Write
from holdfast.serve.inference.loaded_model import LoadedVersion
from holdfast.store import Store
from holdfast.store.catalog import batches, online_features
from holdfast.store.catalog.online_features import OnlineValue

_log = logging.getLogger(__name__)

KEEP_SECONDS: Final = 30.0
"""The shortest time between two copies of the values."""
HELD_WINDOWS: Final = 8
"""How many windows of an aggregate, before its newest value, are held at least; but never less than `HELD_LEAST_US`."""
HELD_LEAST_US: Final = 45 * 86_400 * 1_000_000


class OnlineValues:
    """Keeps `table` in step with the ledger for the aggregates of the versions that are warm.

    Parameters
    ----------
    table
        What requests look values up in.
    copy
        Where the values are kept for a start without the ledger.
    """

    def __init__(self, table: OnlineTable, copy: LocalCopy) -> None:
        self.table_version = 0
        """The ledger's table version that `table` has reached."""
        self.unusable = 0
        """Values that were left out because they are not finite numbers, since the start."""
        self._table = table
        self._copy = copy
        self._followed: dict[str, int] = {}
        self._changed = False
        self._keep_at = 0.0

    def start_from_copy(self) -> None:
        """Take the values that the last run kept."""
        for value in self._copy.load_online():
            self._add(value.aggregate, value.entity, value.known_at_us, value.value)

    def follow(self, store: Store, loaded: Mapping[str, LoadedVersion]) -> None:
        """Bring the table to the ledger's state, and forget what none of `loaded` reads."""
        wanted = _aggregates(loaded)
        with store.ledger.read() as connection:
            newest = batches.current_version(connection)
            for key, aggregate in wanted.items():
                since = self._followed.get(key, 0)
                if since >= newest:
                    continue
                followed, values = online_features.since(connection, [key], since)
                used = [value for value in values if self._take(value)]
                self._changed = self._changed or bool(values)
                if used:
                    self._table.trim(key, used[-1].known_at_us - _held_us(aggregate))
                self._followed[key] = max(followed, newest)
        for key in self._followed.keys() - wanted.keys():
            self._table.remove_aggregate(key)
            del self._followed[key]
        self.table_version = newest

    def due(self, store: Store, loaded: Mapping[str, LoadedVersion]) -> Write | None:
        """What copies the values, when they have changed; None when they have not, and for `KEEP_SECONDS` after the last."""
        now = time.monotonic()
        if not self._changed or now < self._keep_at:
            return None
        kept: list[KeptValue] = []
        with store.ledger.read() as connection:
            for key, aggregate in _aggregates(loaded).items():
                _, values = online_features.since(connection, [key], 0)
                kept += _held(aggregate, values)
        self._keep_at, self._changed, reached = now + KEEP_SECONDS, False, self.table_version
        return lambda copy: copy.save_online(kept, reached)

    def _take(self, value: OnlineValue) -> bool:
        """Whether `value` is in the table now; one that was backed out leaves it."""
        if value.value is None:
            self._table.remove(value.aggregate, value.entity, value.known_at_us)
            return False
        return self._add(value.aggregate, value.entity, value.known_at_us, value.value)

    def _add(self, key: str, entity: str, known_at_us: int, value: float) -> bool:
        if _usable(value):
            self._table.add(key, entity, known_at_us, value)
            return True
        self.unusable += 1
        if self.unusable == 1:
            _log.warning(
                "invalid online feature ignored: %s of %r at %d is %r", key, entity, known_at_us, value
            )
        return False


def _usable(value: object) -> bool:
    """Whether `value` can stand in the table; a ledger that somebody else wrote to may hold anything."""
    return isinstance(value, float | int) and math.isfinite(value)


def _aggregates(loaded: Mapping[str, LoadedVersion]) -> dict[str, Aggregate]:
    """The aggregates of all versions, by their keys: equal definitions are one."""
    return {aggregate.key: aggregate for version in loaded.values() for aggregate in version.aggregates}


def _held(aggregate: Aggregate, values: list[OnlineValue]) -> list[KeptValue]:
    kept = [
        KeptValue(each.aggregate, each.entity, each.known_at_us, each.value)
        for each in values
        if each.value is not None and _usable(each.value)
    ]
    oldest = kept[-1].known_at_us - _held_us(aggregate) if kept else 0
    return [value for value in kept if value.known_at_us >= oldest]


def _held_us(aggregate: Aggregate) -> int:
    return max(HELD_LEAST_US, HELD_WINDOWS * aggregate.window_us)
