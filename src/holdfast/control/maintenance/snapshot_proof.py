"""Which snapshots the files prove: a snapshot's name holds a digest of what it cut, so that the first loads, in the order in
which they were written, either give that name or do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import permutations
from typing import Final, TypeVar

from holdfast.declaration import Model
from holdfast.store.backout.tombstones import Tombstone
from holdfast.store.maintenance.footer_scan import Choice
from holdfast.tables import GroupLoad, SnapshotTable, find_incomplete_loads, snapshot_name
from holdfast.tables.snapshots import DAY_US, LoadKey

_MOST_TABLES: Final = 5
_MOST_DAYS: Final = 400
_NEVER: Final = 2**63
_Kept = TypeVar("_Kept")


@dataclass(frozen=True, slots=True)
class ProvedCut:
    """A snapshot as its name proves it."""

    version: int
    contract_hash: str
    tables: tuple[SnapshotTable, ...]
    held_back: tuple[LoadKey, ...] = ()


@dataclass(slots=True)
class Cuts:
    """The proved snapshots by their names, the table version of each load that makes them so, and the one from which on a load
    that was backed out is gone.
    """

    proved: dict[str, ProvedCut] = field(default_factory=dict)
    numbers: dict[LoadKey, int] = field(default_factory=dict)
    removed: dict[LoadKey, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Seen:
    """What was loaded up to some moment: of each table the loads, each with its rows and files in that table."""

    tables: dict[str, dict[LoadKey, tuple[int, int]]] = field(default_factory=dict)
    bounds: dict[str, dict[LoadKey, GroupLoad]] = field(default_factory=dict)

    def add(self, choice: Choice, load: LoadKey, counted: Mapping[str, tuple[int, int]]) -> None:
        for table, rows_and_files in counted.items():
            self.tables.setdefault(table, {})[load] = rows_and_files
        manifest = choice.loads[load].manifest
        if manifest.event_time_min_us is not None and manifest.event_time_max_us is not None:
            order = sum(map(len, self.bounds.values()))
            bounds = GroupLoad(
                load[1], load[2], manifest.event_time_min_us, manifest.event_time_max_us, order
            )
            self.bounds.setdefault(load[0], {})[load] = bounds

    def without(self, loads: AbstractSet[LoadKey]) -> _Seen:
        """The same without what was backed out before."""
        if not loads:
            return self
        tables = {table: _less(found, loads) for table, found in self.tables.items()}
        bounds = {feed: _less(found, loads) for feed, found in self.bounds.items()}
        return _Seen({table: found for table, found in tables.items() if found}, bounds)

    def cut(self, table: str, left_out: AbstractSet[LoadKey]) -> SnapshotTable:
        counts = [each for load, each in self.tables[table].items() if load not in left_out]
        return SnapshotTable(table, sum(rows for rows, _ in counts), sum(files for _, files in counts))


def _less(found: Mapping[LoadKey, _Kept], loads: AbstractSet[LoadKey]) -> dict[LoadKey, _Kept]:
    return {load: each for load, each in found.items() if load not in loads}


def prove(
    choice: Choice,
    stones: Mapping[LoadKey, Tombstone],
    wanted: Iterable[tuple[str, str]],
    model: Model | None = None,
) -> Cuts:
    """Look for the snapshots `wanted` (name, contract hash) among all moments between two loads.

    Parameters
    ----------
    stones
        Loads that were backed out, with the snapshots that had their rows, from which version on and until which. One
        that does not say so was in none.
    model
        The declaration, where there is one. It says which feeds are cut together and when labels come due, and without it
        a snapshot that leaves a load out, or is of a certain day, is not found.

    Snapshots of a moment before a compaction, of which the single files are gone, cannot be found.
    """
    cuts, seen, newest = Cuts(), _Seen(), 0
    counted = _counted(choice)
    left = set(wanted)
    taken = {stone.removed_version for stone in stones.values()}
    to_come = {load for load in choice.loads if load in stones}
    ordered = sorted(choice.loads, key=lambda load: (choice.loads[load].written_us, load))
    for load in ordered:
        seen.add(choice, load, counted.get(load, {}))
        stone = stones.get(load)
        newest = max(newest + 1, (stone.table_version or 0) if stone else 0)
        while newest in taken:  # that version is a back-out
            newest += 1
        cuts.numbers[load] = newest
        if stone is not None:
            to_come.remove(load)
            if stone.removed_version is None or stone.removed_version <= newest:
                newest += 1
                cuts.removed[load] = newest
            else:
                cuts.removed[load] = stone.removed_version
        bound = min((stones[each].table_version or _NEVER for each in to_come), default=_NEVER)
        for name, contract_hash in sorted(left, key=lambda each: (_version_in(each[0]), each)):
            version = _version_in(name)
            if version < newest or version >= bound:  # what is to come was there by then
                continue
            out = {each for each, stone in stones.items() if name not in stone.snapshots}
            found = _matching(name, version, contract_hash, seen.without(out), model)
            if found is not None:
                cuts.proved[name] = found
                left.discard((name, contract_hash))
                newest = version
    return cuts


def _counted(choice: Choice) -> dict[LoadKey, dict[str, tuple[int, int]]]:
    """Of each load the rows and files that it has in each table, where it has files of its own."""
    found: dict[LoadKey, dict[str, tuple[int, int]]] = {}
    for file in choice.files:
        if len(file.parts) == 1:
            tables = found.setdefault(file.parts[0].load, {})
            rows, files = tables.get(file.table, (0, 0))
            tables[file.table] = (rows + file.rows, files + 1)
    return found


def _version_in(name: str) -> int:
    digits = name[1:].partition("-")[0]
    return int(digits) if digits.isdigit() else 0


def _matching(
    name: str, version: int, contract_hash: str, seen: _Seen, model: Model | None
) -> ProvedCut | None:
    """The cut of what was seen that has this name; None when there is none."""
    for tables, held, days in _candidates(seen, model):
        for day in days:
            if snapshot_name(version, contract_hash, tables, incomplete_loads=held, day=day) == name:
                return ProvedCut(version, contract_hash, tables, held)
    return None


def _candidates(
    seen: _Seen, model: Model | None
) -> Iterator[tuple[tuple[SnapshotTable, ...], tuple[LoadKey, ...], Sequence[int | None]]]:
    feeds = [table for table in sorted(seen.tables) if not table.endswith("__quarantine")]
    if model is not None and {feed.name for feed in model.feeds} <= set(feeds):
        held = _held(seen, model)
        tables = tuple(seen.cut(feed, set(held)) for feed in sorted(feed.name for feed in model.feeds))
        yield tables, held, _days(seen, model, set(held))
    for size in range(1, min(len(feeds), _MOST_TABLES) + 1):
        for chosen in permutations(feeds, size):
            yield tuple(seen.cut(table, set()) for table in chosen), (), (None,)


def _held(seen: _Seen, model: Model) -> tuple[LoadKey, ...]:
    held: list[LoadKey] = []
    for group in sorted({feed.group for feed in model.feeds if feed.group is not None}):
        members = sorted(feed.name for feed in model.feeds if feed.group == group)
        held += find_incomplete_loads({feed: list(seen.bounds.get(feed, {}).values()) for feed in members})
    return tuple(sorted(held))


def _days(seen: _Seen, model: Model, left_out: AbstractSet[LoadKey]) -> Sequence[int | None]:
    """The days that a cut can be of: from its newest row on, until all labels are due."""
    delay_us = model.label_delay // timedelta(microseconds=1)
    bounds = seen.bounds.get(model.examples.name, {})
    highs = [each.event_time_max_us for load, each in bounds.items() if load not in left_out]
    if delay_us <= 0 or not highs:
        return (None,)
    last = (max(highs) + delay_us) // DAY_US + 1
    return range(last, max(max(highs) // DAY_US, last - _MOST_DAYS) - 1, -1)
