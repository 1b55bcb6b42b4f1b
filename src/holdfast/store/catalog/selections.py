"""Rows of `selections` and `snapshot_slices`: the training rows of a snapshot, and their number by slice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from holdfast.records import SLICE_CHARACTERS, canonical_json, sha256_hex, shortened
from holdfast.store.db import schema
from holdfast.store.db.statements import inserting
from holdfast.tables.row_selection import SelectedRows, SliceCount
from holdfast.tables.selection import Selection

_SELECTIONS: Final = schema.selections
_SLICES: Final = schema.snapshot_slices


@dataclass(frozen=True, slots=True)
class KeptSelection:
    """A selection as it was applied to a snapshot."""

    snapshot: str
    seed: int
    selection: dict[str, object]
    counts: dict[str, int]
    rows_total: int
    rows_selected: int
    slices: tuple[SliceCount, ...]


def keep(
    connection: Connection,
    snapshot: str,
    selection: Selection,
    seed: int,
    chosen: SelectedRows,
    *,
    found: int,
) -> None:
    """Record what `selection` chose of the `found` training rows of `snapshot`, in the caller's transaction.

    The same choice again changes nothing, because it gives the same rows.

    Parameters
    ----------
    seed
        The seed of the random choice.
    chosen
        The selected rows and their counts.
    found
        Number of rows that were selected from.
    """
    name = sha256_hex(f"{seed} {selection.to_json()}")
    row = {
        "snapshot": snapshot,
        "selection_hash": name,
        "seed": seed,
        "selection_json": selection.to_json(),
        "removed_rows_json": canonical_json(chosen.counts),
        "rows_total": found,
        "rows_selected": chosen.frame.height,
    }
    connection.execute(inserting(connection, _SELECTIONS).values(row).on_conflict_do_nothing())
    slices = [
        {
            "snapshot": snapshot,
            "selection_hash": name,
            "column_name": each.column,
            "value": shortened(each.value, SLICE_CHARACTERS),
            "rows_total": each.found,
            "rows_selected": each.kept,
            "weight_selected": each.weight,
        }
        for each in chosen.slices
    ]
    if slices:
        connection.execute(inserting(connection, _SLICES).on_conflict_do_nothing(), slices)


def of_snapshot(connection: Connection, snapshot: str) -> list[KeptSelection]:
    """Return every selection that was applied to `snapshot`."""
    rows = connection.execute(
        select(_SELECTIONS).where(_SELECTIONS.c.snapshot == snapshot).order_by(_SELECTIONS.c.selection_hash)
    )
    return [
        KeptSelection(
            row.snapshot,
            row.seed,
            json.loads(row.selection_json),
            json.loads(row.removed_rows_json),
            row.rows_total,
            row.rows_selected,
            _slices_of(connection, snapshot, row.selection_hash),
        )
        for row in rows.all()
    ]


def _slices_of(connection: Connection, snapshot: str, name: str) -> tuple[SliceCount, ...]:
    query = (
        select(_SLICES)
        .where(_SLICES.c.snapshot == snapshot, _SLICES.c.selection_hash == name)
        .order_by(_SLICES.c.column_name, _SLICES.c.value)
    )
    return tuple(
        SliceCount(row.column_name, row.value, row.rows_total, row.rows_selected, row.weight_selected)
        for row in connection.execute(query)
    )
