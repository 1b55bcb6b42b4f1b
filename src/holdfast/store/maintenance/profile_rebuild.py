"""Rows of `admissions` of a ledger that is rebuilt: profiles computed from the rows of each load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import polars as pl
from sqlalchemy import Connection, insert

from holdfast.contract import Contract
from holdfast.contract.profile.profile import profile_batch
from holdfast.errors import HoldfastError
from holdfast.feeds import Expectations
from holdfast.feeds.measurements import measure
from holdfast.store.db import schema
from holdfast.store.feeds import contracts
from holdfast.store.files import parquet
from holdfast.store.files.parquet import concat
from holdfast.store.maintenance.footer_scan import Choice, Part
from holdfast.tables.snapshots import LoadKey

_ADMISSIONS: Final = schema.admissions
_LEFT: Final = (HoldfastError, pl.exceptions.PolarsError, KeyError, ValueError)


def rebuild_profiles(
    connection: Connection,
    root: Path,
    choice: Choice,
    loads: Iterable[LoadKey],
    expects: Mapping[str, Expectations],
    groups: Mapping[str, str | None],
) -> list[str]:
    """Measure and profile the valid rows of each of `loads` and insert the result. Returns a message for each that failed.

    Not recoverable: the sender's declared row count. The value digest and the sequence need `expects`; the group needs
    `groups`. One load is in memory at a time.

    Parameters
    ----------
    root
        The store's directory.
    choice
        The files of the loads.
    loads
        The loads: feed, batch, epoch.
    expects
        Expectations of each feed, as far as known.
    groups
        The group of each declared feed; None for a feed of no group.
    """
    parts = _valid_parts(choice)
    not_rebuilt = []
    for load in loads:
        feed, batch, epoch = load
        contract = contracts.find(connection, choice.loads[load].manifest.contract_hash)
        if contract is None:
            not_rebuilt.append(f"profile of batch {feed}/{batch}: its contract is lost")
            continue
        try:
            row = _measured(root, contract, expects.get(feed, Expectations()), parts.get(load, []))
        except _LEFT as error:
            not_rebuilt.append(f"profile of batch {feed}/{batch}: {error}")
            continue
        # A feed that is not declared has no known group; one of no group has the empty name.
        group = groups[feed] or "" if feed in groups else None
        named = {"feed": feed, "batch": batch, "epoch": epoch, "group_name": group}
        connection.execute(insert(_ADMISSIONS).values(named | row))
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
    valid = concat(frames, {}).select([column.name for column in contract.columns])
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
