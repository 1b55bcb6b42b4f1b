"""Rebuild of the catalog from files: the rows of the ledger that their loads would have written.

It registers loads that the ledger lost (a torn write-ahead log), and all of them if the ledger itself is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl
from sqlalchemy import Connection, func, insert, select, update

from holdfast.contract import Contract
from holdfast.contract.profile.profile import profile_batch
from holdfast.errors import HoldfastError
from holdfast.feeds import Expectations, Feed, Manifest
from holdfast.feeds.measurements import measure
from holdfast.feeds.state_machine import State as FeedState
from holdfast.records import BatchId, Level, Violation
from holdfast.store.backout.tombstones import Tombstone
from holdfast.store.db import events, schema
from holdfast.store.db.statements import BACKED_OUT, LIVE, PUBLISHED, inserting, not_removed, of_load
from holdfast.store.feeds import contracts, violations
from holdfast.store.files import parquet
from holdfast.store.maintenance.file_checks import COUNTED
from holdfast.store.maintenance.footer_scan import Choice, Part, ScannedFile
from holdfast.tables.snapshots import LoadKey

_BATCHES: Final = schema.batches
_FILES: Final = schema.files
_PARTS: Final = schema.file_row_groups
_VERSIONS: Final = schema.table_versions
_FEEDS: Final = schema.feeds
_LOAD: Final = ("feed", "batch", "epoch")
_LAST: Final = 2**63
_UNREADABLE: Final = (HoldfastError, pl.exceptions.PolarsError, KeyError, ValueError)
_UNKNOWN: Final = "it was re-registered from its files; its violations are not known"


@dataclass(slots=True)
class Reregistered:
    """The re-registered loads; `not_rebuilt` describes everything else."""

    loads: list[LoadKey] = field(default_factory=list)
    backed_out: list[LoadKey] = field(default_factory=list)
    rows: int = 0
    not_rebuilt: list[str] = field(default_factory=list)


def reregister(
    connection: Connection,
    root: Path,
    choice: Choice,
    tombstones: Mapping[LoadKey, Tombstone],
    *,
    now_us: int,
    numbers: Mapping[LoadKey, int] | None = None,
    feeds: Sequence[Feed] = (),
) -> Reregistered:
    """Re-register the loads of `choice` in the caller's transaction, in the order in which they were written.

    The profile of a load is computed from its rows. Its violations are not in its files: the load is suspect, and so is
    every snapshot that has it, until a user accepts it.

    Parameters
    ----------
    tombstones
        Loads that were backed out: they are inserted as such, so that their rows stay out and their ids may be loaded again.
    numbers
        The table version of each load; None for the next ones.
    feeds
        The declared feeds, as far as known. By their expectations it is decided which digests of the rows are stored, and
        loads of a group are backed out together.
    """
    done = Reregistered()
    done.not_rebuilt += [
        f"batch {load[0]}/{load[1]}: {why}"
        for load, why in sorted(choice.open.items())
        if load not in tombstones
    ]
    versions: dict[LoadKey, int] = {}
    live: set[tuple[str, ...]] = set()
    for load in sorted(choice.loads, key=lambda load: (choice.loads[load].written_us, load)):
        complete = choice.loads[load]
        names = {load[:2], (load[0], "digest", complete.manifest.digest)}
        gone = load in tombstones
        if not gone and names & live:
            done.not_rebuilt.append(
                f"batch {load[0]}/{load[1]} of epoch {load[2]}: another load has the same id or content"
            )
            continue
        _register_contract(connection, root, complete.manifest.contract_hash, done, now_us)
        number = (numbers or {}).get(load)
        versions[load] = _version(connection, f"load {load[0]}/{load[1]}", complete.written_us, number)
        _insert_batch(connection, _batch(complete.manifest), load, versions[load], live=not gone)
        (done.backed_out if gone else done.loads).append(load)
        if not gone:
            live |= names
            done.rows += complete.manifest.rows_loaded + complete.manifest.rows_quarantined
    not_rebuilt = _insert_files(connection, choice, versions)
    _remove_backed_out(connection, tombstones, versions, done, now_us)
    # Last, so that no version that a tombstone names is taken.
    _take_out(connection, not_rebuilt, "incomplete loads", now_us)
    done.not_rebuilt += _rebuild_profiles(
        connection, root, choice, done.loads, {feed.name: feed for feed in feeds}
    )
    _mark_suspect(connection, choice, done, now_us)
    return done


def is_free(connection: Connection, manifest: Manifest) -> bool:
    """Return True if the ledger has neither the epoch, nor the id, nor the content of the load of `manifest`."""
    same_id = (_BATCHES.c.batch == manifest.batch) & ((_BATCHES.c.epoch >= manifest.epoch) | LIVE)
    same_content = (_BATCHES.c.digest == manifest.digest) & LIVE
    query = select(_BATCHES.c.batch).where(_BATCHES.c.feed == manifest.feed, same_id | same_content)
    return connection.execute(query.limit(1)).first() is None


def _register_contract(
    connection: Connection, root: Path, contract_hash: str, done: Reregistered, now_us: int
) -> None:
    if contracts.find(connection, contract_hash) is not None:
        return
    try:
        contracts.put(connection, Contract.from_json(contracts.read_copy(root, contract_hash)), now_us=now_us)
    except HoldfastError as error:
        not_rebuilt = f"contract {contract_hash[:12]}: {error.what}"
        if not_rebuilt not in done.not_rebuilt:
            done.not_rebuilt.append(not_rebuilt)


def _version(connection: Connection, reason: str, at_us: int, number: int | None = None) -> int:
    newest = int(
        connection.execute(select(func.coalesce(func.max(_VERSIONS.c.table_version), 0))).scalar_one()
    )
    version = newest + 1 if number is None else number
    values = {"committed_at_us": at_us, "reason": reason[:64]}
    statement = inserting(connection, _VERSIONS).values(table_version=version, **values)
    # A snapshot of this version may be there already.
    connection.execute(statement.on_conflict_do_update(index_elements=["table_version"], set_=values))
    return version


def _batch(manifest: Manifest) -> dict[str, Any]:
    copied = {name: getattr(manifest, name) for name in ("digest", "contract_hash", *COUNTED)}
    return copied | {"rows_received": manifest.rows_loaded + manifest.rows_quarantined}


def _insert_batch(
    connection: Connection, columns: Mapping[str, Any], load: LoadKey, version: int, *, live: bool
) -> None:
    state = PUBLISHED if live else BACKED_OUT
    named = dict(zip(_LOAD, load, strict=True))
    values = {**named, **columns, "state": state, "table_version": version}
    connection.execute(insert(_BATCHES).values(values))


def _insert_files(connection: Connection, choice: Choice, versions: dict[LoadKey, int]) -> list[LoadKey]:
    """Insert the files of the loads in `versions`. Returns the incomplete loads."""
    for file in choice.files:
        loads = [part.load for part in file.parts]
        added = max((versions[load] for load in loads if load in versions), default=None)
        if added is None:
            choice.left[file.path] = "none of its loads is complete"
            continue
        connection.execute(insert(_FILES).values(_file_row(file, added)))
        for part in file.parts:
            if part.load not in versions:  # some of its rows are missing: the others stay out
                versions[part.load] = added
                _insert_batch(connection, _batch(part.manifest), part.load, added, live=False)
            named = dict(zip(_LOAD, part.load, strict=True))
            values = {"path": file.path, "row_group": part.row_group, "rows": part.rows}
            connection.execute(insert(_PARTS).values(named | values))
    return [load for load in choice.open if load in versions]


def _file_row(file: ScannedFile, added: int) -> dict[str, Any]:
    # Bounds of the whole load are wider than those of the file: a reader may read it in vain, but misses no row.
    loads = [part.manifest for part in file.parts if file.table == file.feed]
    lows = [load.event_time_min_us for load in loads if load.event_time_min_us is not None]
    highs = [load.event_time_max_us for load in loads if load.event_time_max_us is not None]
    return {
        "path": file.path,
        "table_name": file.table,
        "feed": file.feed,
        "rows": file.rows,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "event_time_min_us": min(lows, default=None),
        "event_time_max_us": max(highs, default=None),
        "added_version": added,
    }


def _remove_backed_out(
    connection: Connection,
    tombstones: Mapping[LoadKey, Tombstone],
    versions: Mapping[LoadKey, int],
    done: Reregistered,
    now_us: int,
) -> None:
    """Remove the loads that have a tombstone, and register those without files: their epoch was used."""
    when: dict[int | None, list[LoadKey]] = {}
    for load in done.backed_out:
        when.setdefault(tombstones[load].removed_version, []).append(load)
    for version, loads in sorted(when.items(), key=lambda each: each[0] or _LAST):
        _take_out(connection, loads, "back-outs with a tombstone", now_us, version)
    for load, tombstone in sorted(tombstones.items()):
        feed, batch, epoch = load
        known = select(_BATCHES.c.batch).where(of_load(_BATCHES, load))
        if load in versions or connection.execute(known).first():
            continue
        if not tombstone.batch:
            done.not_rebuilt.append(
                f"the back-out of {feed}/{batch} of epoch {epoch}: its tombstone cannot be read"
            )
            continue
        number = _version(connection, f"back-out of {feed}/{batch}", tombstone.at_us)
        _insert_batch(connection, tombstone.batch, load, number, live=False)
        done.backed_out.append(load)


def _take_out(
    connection: Connection, loads: list[LoadKey], reason: str, now_us: int, number: int | None = None
) -> None:
    if not loads:
        return
    version = _version(connection, reason, now_us, number)
    for load in loads:
        connection.execute(update(_PARTS).where(of_load(_PARTS, load)).values(removed_version=version))
    living = select(_PARTS.c.path).where(not_removed(_PARTS))
    dead = _FILES.c.path.not_in(living) & not_removed(_FILES)
    connection.execute(update(_FILES).where(dead).values(removed_version=version))


def _mark_suspect(connection: Connection, choice: Choice, done: Reregistered, now_us: int) -> None:
    """Mark each load as suspect by itself, independent of the others."""
    broken = Violation(violations.REREGISTERED, "", Level.ERROR, _UNKNOWN, None, None)
    first: dict[str, LoadKey] = {}
    for load in done.loads:
        first.setdefault(load[0], load)
        violations.add(connection, BatchId(*load[:2]), load[2], [broken], now_us=now_us)
        events.append(
            connection,
            at_us=now_us,
            kind="batch.reregistered",
            subject=f"{load[0]}/{load[1]}",
            explanation="The ledger did not have this load; its files are intact and name it.",
        )
    for feed, load in first.items():
        count = sum(each[0] == feed for each in done.loads)
        why = f"{count} of its loads were re-registered from their files; their violations are not known"
        contract_hash = choice.loads[load].manifest.contract_hash
        row = {"state": FeedState.SUSPECT, "reason": why, "changed_at_us": now_us}
        statement = inserting(connection, _FEEDS).values(feed=feed, contract_hash=contract_hash, **row)
        connection.execute(statement.on_conflict_do_update(index_elements=["feed"], set_=row))


def _rebuild_profiles(
    connection: Connection, root: Path, choice: Choice, loads: Iterable[LoadKey], feeds: Mapping[str, Feed]
) -> list[str]:
    """Measure and profile the valid rows of each of `loads` and insert the result. Returns a message for each that failed.

    Not recoverable: the sender's declared row count, and what needs the declaration of a feed that is not in `feeds`. One
    load is in memory at a time.
    """
    parts = _valid_parts(choice)
    not_rebuilt = []
    for load in loads:
        feed = feeds.get(load[0])
        contract = contracts.find(connection, choice.loads[load].manifest.contract_hash)
        if contract is None:
            not_rebuilt.append(f"profile of batch {load[0]}/{load[1]}: its contract is lost")
            continue
        try:
            row = _measured(root, contract, feed.expects if feed else Expectations(), parts.get(load, []))
        except _UNREADABLE as error:
            not_rebuilt.append(f"profile of batch {load[0]}/{load[1]}: {error}")
            continue
        # A feed that is not declared has no known group; one of no group has the empty name.
        group = feed.membership if feed else None
        row["group_name"] = feed.group or "" if feed else None
        row["group_period_us"] = None if group is None else group.period_us
        row["group_zone"] = None if group is None else group.zone
        connection.execute(insert(schema.admissions).values(dict(zip(_LOAD, load, strict=True)) | row))
    return not_rebuilt


def _valid_parts(choice: Choice) -> dict[LoadKey, list[tuple[str, bool, Part]]]:
    """Return for each load the parts with its valid rows, in order: path, whether the file has other loads too, part."""
    found: dict[LoadKey, list[tuple[str, bool, Part]]] = {}
    for file in choice.files:
        for part in file.parts if file.table == file.feed else ():
            found.setdefault(part.load, []).append((file.path, len(file.parts) > 1, part))
    return {load: sorted(parts, key=lambda each: each[2].number) for load, parts in found.items()}


def _measured(
    root: Path, contract: Contract, expects: Expectations, parts: list[tuple[str, bool, Part]]
) -> dict[str, object]:
    frames = [
        parquet.read(root / path, row_groups=[part.row_group] if shared else None)
        for path, shared, part in parts
    ]
    # A file put together of several has every column that any of them had, as the contract now types it.
    valid = parquet.concat(frames, {}).select([column.name for column in contract.columns])
    facts = measure(contract, expects, valid, valid.clear(), {})
    return {
        "event_time": contract.event_time,
        "rows_expected": None,
        "profile_json": profile_batch(contract, valid).to_json(),
        "rows_digest": facts.rows_digest,
        "values_digest": facts.values_digest,
        "sequence_min": facts.sequence.low if facts.sequence else None,
        "sequence_max": facts.sequence.high if facts.sequence else None,
        "sequence_gaps": facts.sequence.holes if facts.sequence else None,
    }
