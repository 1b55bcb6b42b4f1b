"""Tombstones: small durable files that say of a load that it was backed out.

They lie beside the rows, so that a catalogue that is made again from the files does not bring back rows that were taken
out. A tombstone is written before the transaction that backs the load out, and never removed by it: a load whose
tombstone is there and which the ledger holds as published is a back-out that was not finished.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, select

from holdfast.errors import IntegrityError
from holdfast.records import canonical_json, sha256_hex
from holdfast.store import durable, schema

TOMBSTONES_DIRECTORY: Final = "tombstones"
"""Where they lie, under the store's root: `tombstones/<feed>.<batch>.<epoch>.json`."""

LoadKey = tuple[str, str, int]
"""Feed, batch and epoch of one load."""

_BATCHES: Final = schema.batches
_KEPT: Final = (
    "digest",
    "contract_hash",
    "rows_received",
    "rows_loaded",
    "rows_quarantined",
    "event_low_us",
    "event_high_us",
    "source",
)


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is kept of a load that was backed out: its row of `batches`, by whom and when (microseconds UTC)."""

    load: LoadKey
    backout: int
    at_us: int
    batch: dict[str, Any]


def record(root: Path, connection: Connection, loads: Sequence[LoadKey], *, backout: int, at_us: int) -> None:
    """Write a tombstone for each of `loads`; durable when this returns. Call it in the transaction that marks them as
    backed out, before it commits. One that is there is written again.
    """
    durable.make_directory(root / TOMBSTONES_DIRECTORY)
    for feed, batch, epoch in loads:
        query = select(*(_BATCHES.c[name] for name in _KEPT)).where(
            _BATCHES.c.feed == feed, _BATCHES.c.batch == batch, _BATCHES.c.epoch == epoch
        )
        kept = dict(connection.execute(query).mappings().one())
        content = {
            "feed": feed,
            "batch": batch,
            "epoch": epoch,
            "backout": backout,
            "at_us": at_us,
            "kept": kept,
        }
        sealed = {"sha256": sha256_hex(canonical_json(content)), "content": content}
        durable.replace(path_of(root, (feed, batch, epoch)), canonical_json(sealed).encode())


def path_of(root: Path, load: LoadKey) -> Path:
    """Where the tombstone of `load` lies, or would lie; names hold no dot, so the parts cannot run together."""
    feed, batch, epoch = load
    return root / TOMBSTONES_DIRECTORY / f"{feed}.{batch}.{epoch}.json"


def on_disk(root: Path) -> list[Path]:
    """Every tombstone, in order of its name."""
    return sorted(path for path in (root / TOMBSTONES_DIRECTORY).glob("*.json") if path.name[0] != ".")


def read(path: Path) -> Tombstone:
    """The tombstone at `path`; `IntegrityError` HF301 when it is missing, damaged, or another's."""
    try:
        sealed = json.loads(path.read_bytes())
        content = sealed["content"]
        whole = sealed["sha256"] == sha256_hex(canonical_json(content))
        load = (str(content["feed"]), str(content["batch"]), int(content["epoch"]))
        found = Tombstone(load, int(content["backout"]), int(content["at_us"]), dict(content["kept"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "is missing or cannot be read") from error
    if not whole:
        raise _damaged(path, "was altered: its SHA-256 is not the one that was written")
    if path.name != path_of(path.parent, load).name:
        raise _damaged(path, f"holds the tombstone of another load, {load[0]}/{load[1]}")
    return found


def _damaged(path: Path, trouble: str) -> IntegrityError:
    return IntegrityError(
        "HF301",
        f"tombstone {path.name} {trouble}",
        state="nothing was changed",
        next_command="holdfast verify --repair",
    )
