"""Repairs of what can be proved, and nothing else; each repair is reported with its proof.

What cannot be proved stays a finding, HF305: a guess could be a wrong row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from holdfast.store.maintenance.catalog_rebuild import reregister

_UNREPAIRED: Final = "HF305"
_DERIVED: Final = "HF206"


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair: what was repaired, how, and what proves that it is right."""

    subject: str
    action: str
    proof: str


@dataclass(frozen=True, slots=True)
class Repaired:
    """The repairs, and the verification after them."""

    repairs: tuple[Repair, ...]
    verification: Verification

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as plain JSON."""
        return {"repairs": self.repairs, **self.verification.as_dict()}


Repairer = Callable[[Store, Sequence[Path], int], Iterator[Repair]]


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
    for find_and_repair in _REPAIRERS:
        for done in find_and_repair(store, sources, now_us):
            made.append(done)
            _append_event(store, done, now_us)
    outcome = verify(store, now_us=now_us, progress=progress)
    left = tuple(_unrepaired(finding) for finding in outcome.findings)
    return Repaired(tuple(made), replace(outcome, findings=left))


def _unrepaired(finding: Finding) -> Finding:
    if finding.code == _DERIVED:
        return finding
    return replace(finding, code=_UNREPAIRED, next_command="holdfast verify --repair --backup BACKUP")


def _files(store: Store, sources: Sequence[Path], _now_us: int) -> Iterator[Repair]:
    for lost in repairs.damaged_files(store):
        found = repairs.find_bytes(store, lost, sources)
        if found is not None:
            repairs.restore_file(store, lost, found)
            yield Repair(lost.path, "restored", f"{found} has its size and SHA-256 {lost.sha256[:12]}")


def _counts(store: Store, _sources: Sequence[Path], _now_us: int) -> Iterator[Repair]:
    for fixed in repairs.correct_counts(store):
        yield Repair(fixed.subject, fixed.action, fixed.proof)


def _lost_loads(store: Store, _sources: Sequence[Path], now_us: int) -> Iterator[Repair]:
    paths = [path for listed in orphans.lost_loads(store).values() for path in listed]
    if not paths:
        return
    choice = footer_scan.choose(footer_scan.scan(store.root, path) for path in paths)
    with store.ledger.write() as connection:
        done = reregister(connection, store.root, choice, {}, now_us=now_us)
    for feed, batch, _ in done.loads:
        proof = "all its files are intact and name it, and the ledger has neither its id nor its content"
        yield Repair(f"batch {feed}/{batch}", "re-registered", proof)


def _tombstones(store: Store, _sources: Sequence[Path], _now_us: int) -> Iterator[Repair]:
    for name in repairs.rewrite_tombstones(store):
        yield Repair(f"tombstones/{name}", "written again", "the ledger has the back-out of that load")


def _contracts(store: Store, _sources: Sequence[Path], now_us: int) -> Iterator[Repair]:
    for contract_hash in repairs.rewrite_contracts(store, now_us=now_us):
        yield Repair(f"contract {contract_hash[:12]}", "written again", "its SHA-256 is its name")


def _snapshot_manifests(store: Store, _sources: Sequence[Path], _now_us: int) -> Iterator[Repair]:
    for name in repairs.rewrite_snapshot_manifests(store):
        yield Repair(f"snapshot {name}", "given its manifest again", "the ledger has its loads")


def _published(store: Store, _sources: Sequence[Path], _now_us: int) -> Iterator[Repair]:
    for directory, reason in list(derived_checks.published_tables(store)):
        moved = repairs.set_aside(store.root, directory)
        try:
            delta.publish(store, directory.parent.name)
        except HoldfastError:
            proof = f"it {reason}; no snapshot can restore it, and it was moved to {moved}"
            yield Repair(f"published/{directory.parent.name}/{directory.name}", "withdrawn", proof)
        else:
            proof = f"it {reason}; it was exported again from the files of its snapshot"
            yield Repair(f"published/{directory.parent.name}/{directory.name}", "published again", proof)


def _local_copies(store: Store, _sources: Sequence[Path], _now_us: int) -> Iterator[Repair]:
    with store.ledger.read() as connection:
        plans = derived_checks.newest_plans(connection)
    for path, reason in list(derived_checks.local_copies(store.root, plans)):
        if "does not have" not in reason and path.exists():
            repairs.set_aside(store.root, path)
            proof = f"it {reason}; the server copies it from the ledger again"
            yield Repair(str(path.relative_to(store.root)), "removed", proof)


def _torn_tails(store: Store, _sources: Sequence[Path], _now_us: int) -> Iterator[Repair]:
    for path, size in repairs.truncate_torn_tails(store):
        proof = f"no record from byte {size} on is complete, and an incomplete one was never acknowledged"
        yield Repair(str(path.relative_to(store.root)), "truncated", proof)


def _leases(store: Store, _sources: Sequence[Path], _now_us: int) -> Iterator[Repair]:
    for lease in repairs.remove_invalid_leases(store):
        yield Repair(
            f"lease {lease}", "removed", "no holder can have written it; the next holder creates it anew"
        )


_REPAIRERS: Final[tuple[Repairer, ...]] = (
    _files,
    _contracts,
    _counts,
    _lost_loads,
    _tombstones,
    _snapshot_manifests,
    _published,
    _local_copies,
    _torn_tails,
    _leases,
)


def _append_event(store: Store, done: Repair, now_us: int) -> None:
    with store.ledger.write() as connection:
        events.append(
            connection,
            at_us=now_us,
            kind="store.repaired",
            subject=done.subject[:127],
            explanation=f"{done.subject} was {done.action}: {done.proof}",
        )
