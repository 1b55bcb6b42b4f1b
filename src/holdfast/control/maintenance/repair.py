"""Repairs of what can be proved, and nothing else; each repair is reported with its proof.

What cannot be proved stays a finding, HF305: a guess could be a wrong row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from holdfast.control.maintenance.verify import Finding, Verification, verify
from holdfast.errors import HoldfastError
from holdfast.records import Progress
from holdfast.store import Store
from holdfast.store.catalog import delta
from holdfast.store.db import events
from holdfast.store.maintenance import derived_checks, footer_scan, orphans, repairs
from holdfast.store.maintenance.rebuild_catalog import reregister
from holdfast.store.maintenance.repairs import Repair

_UNREPAIRED: Final = "HF305"
_DERIVED: Final = "HF206"


@dataclass(frozen=True, slots=True)
class Repaired:
    """The repairs, and the verification after them."""

    repairs: tuple[Repair, ...]
    verification: Verification

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as plain JSON."""
        return {"repairs": self.repairs, **self.verification.as_dict()}


def repair(
    store: Store, *, now_us: int, sources: Sequence[Path] = (), progress: Progress | None = None
) -> Repaired:
    """Repair the store and verify it. It may be killed at any time and run again.

    Stop loaders and servers first: a log that is being written looks torn.

    Parameters
    ----------
    now_us
        Timestamp of the repair, microseconds since 1970 UTC; each repair is an event.
    sources
        Backups or other stores that are searched for lost bytes, by their SHA-256.
    progress
        Called with (files verified, files in all).
    """
    made: list[Repair] = []
    for done in _repairs(store, sources, now_us):
        made.append(done)
        _append_event(store, done, now_us)
    outcome = verify(store, now_us=now_us, progress=progress)
    left = tuple(_unrepaired(finding) for finding in outcome.findings)
    return Repaired(tuple(made), replace(outcome, findings=left))


def _unrepaired(finding: Finding) -> Finding:
    if finding.code == _DERIVED:
        return finding
    return replace(finding, code=_UNREPAIRED, next_command="holdfast verify --repair --backup BACKUP")


def _repairs(store: Store, sources: Sequence[Path], now_us: int) -> Iterator[Repair]:
    """Make the repairs in an order in which each may rely on those before it. Each is committed before it is yielded."""
    root = store.root
    with store.ledger.read() as connection:
        damaged = repairs.damaged_files(connection, root)
    yield from repairs.restore_files(root, damaged, sources)
    with store.ledger.write() as connection:
        made = repairs.rewrite_contracts(connection, root, now_us=now_us)
    yield from made
    with store.ledger.read() as connection:
        footers = repairs.read_footers(connection, root)
    with store.ledger.write() as connection:
        made = repairs.correct_counts(connection, footers)
    yield from made
    yield from _lost_loads(store, now_us)
    with store.ledger.read() as connection:
        made = [
            *repairs.rewrite_tombstones(connection, root),
            *repairs.rewrite_snapshot_manifests(connection, root),
        ]
    yield from made
    yield from _exported(store, now_us)
    with store.ledger.read() as connection:
        plans = derived_checks.newest_plans(connection)
        made = list(repairs.truncate_torn_tails(connection, root))
    yield from _local_copies(root, plans)
    yield from made
    with store.ledger.write() as connection:
        made = repairs.remove_invalid_leases(connection)
    yield from made


def _lost_loads(store: Store, now_us: int) -> Iterator[Repair]:
    paths = [path for listed in orphans.lost_loads(store).values() for path in listed]
    if not paths:
        return
    choice = footer_scan.choose(footer_scan.scan(store.root, path) for path in paths)
    with store.ledger.write() as connection:
        done = reregister(connection, store.root, choice, {}, now_us=now_us)
    for feed, batch, _ in done.loads:
        proof = "all its files are intact and name it, and the ledger has neither its id nor its content"
        yield Repair(f"batch {feed}/{batch}", "re-registered", proof)


def _exported(store: Store, now_us: int) -> Iterator[Repair]:
    """Export damaged tables again. A table loses its older versions; they stay in the directory aside."""
    with store.ledger.read() as connection:
        damaged = list(derived_checks.exported_tables(connection, store.root))
    for table, reason in damaged:
        path, snapshot = str(table.directory.relative_to(store.root)), table.snapshot
        moved = repairs.set_aside(store.root, table.directory).relative_to(store.root)
        try:
            if snapshot is not None:
                delta.export_to(store, table, snapshot, now_us=now_us)
        except HoldfastError:
            snapshot = None
        if snapshot is None:
            proof = f"it {reason}; no snapshot can restore it, and it was moved to {moved}"
            yield Repair(path, "withdrawn", proof)
        else:
            proof = f"it {reason}; it was exported again from {snapshot}, and moved to {moved} before"
            yield Repair(path, "exported again", proof)


def _local_copies(root: Path, plans: dict[str, int]) -> Iterator[Repair]:
    for path, reason in list(derived_checks.local_copies(root, plans)):
        if "does not have" not in reason and path.exists():
            repairs.set_aside(root, path)
            proof = f"it {reason}; the server copies it from the ledger again"
            yield Repair(str(path.relative_to(root)), "removed", proof)


def _append_event(store: Store, done: Repair, now_us: int) -> None:
    with store.ledger.write() as connection:
        events.append(
            connection,
            at_us=now_us,
            kind="store.repaired",
            subject=done.subject,
            explanation=f"{done.subject} was {done.action}: {done.proof}",
        )
