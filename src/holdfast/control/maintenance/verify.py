"""Verification of the store against the ledger, and of the ledger against itself.

It checks every file, footer, checksum, count, blob, exported table, log and tombstone, and sweeps orphans. It changes
nothing else, and may run alongside loaders, servers and the control loop. `repair` repairs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formatting import counted
from holdfast.records import Progress
from holdfast.store import Store
from holdfast.store.db import event_chain, events
from holdfast.store.db.ledger import Transaction
from holdfast.store.files import blobs
from holdfast.store.maintenance import (
    derived_checks,
    duplicate_keys,
    file_checks,
    ledger_checks,
    orphans,
    version_checks,
)

_DAMAGED: Final = "HF301"
_REPEATED: Final = "HF206"
_LEDGER: Final = "HF309"
_RESTORE: Final = "holdfast verify --repair --backup BACKUP; until then its readers fail"
_LOST_LOAD: Final = "its files are complete, but the ledger lost the transaction that published them"
_RECOVER: Final = "holdfast restore BACKUP, or holdfast rebuild-ledger"
_REPAIR: Final = "holdfast verify --repair"
_CHANGED: Final = "HF308"
_AUDIT: Final = "holdfast audit; only a backup has the former events: holdfast restore BACKUP"


@dataclass(frozen=True, slots=True)
class Finding:
    """One error that was found: a code of `errors.CODES`, its subject, what is wrong, and the next command."""

    code: str
    subject: str
    explanation: str
    next_command: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification. Orphans are no finding: a killed loader leaves them.

    `checksums_verified` is True if the ledger's file has page checksums; having none is no finding.
    """

    files: int
    rows: int
    blobs: int
    swept: int
    findings: tuple[Finding, ...]
    checksums_verified: bool = False

    @property
    def clean(self) -> bool:
        """Return True if there is no finding."""
        return not self.findings

    @property
    def broken_ledger(self) -> bool:
        """Return True if the ledger itself is damaged: then nothing else could be checked."""
        return any((each.code, each.subject) == (_LEDGER, "ledger") for each in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the verification as plain JSON."""
        return asdict(self) | {"clean": self.clean}


def verify(
    store: Store, *, now_us: int | None = None, quick: bool = False, progress: Progress | None = None
) -> Verification:
    """Check everything that was acknowledged, and return every difference.

    Every file that the ledger names is read to its last byte. One changed bit is a finding, and so are rows whose key
    another batch of the feed has too (HF206), and a complete load that the ledger does not know (HF309). A SQLite ledger
    that was closed by all processes is checked against its page checksums: one changed bit is a finding. One that is in
    use, or that a killed process left, is checked against its files.

    Parameters
    ----------
    now_us
        Timestamp of the verification, microseconds since 1970 UTC; if given, findings and swept orphans are an event.
    quick
        Check only names, sizes and the ledger: no content is read and nothing is swept. It runs before a start.
    progress
        Called with (files done, files in all).
    """
    try:
        with store.ledger.read() as connection:
            verified, broken = _check_pages(connection)
            if not quick:
                broken += file_checks.check_database(connection)
        outcome = (
            _broken(broken)
            if broken
            else replace(_verified(store, quick, progress), checksums_verified=verified)
        )
    except file_checks.LEDGER_ERRORS as error:
        outcome = _broken([f"it cannot be read: {error}"])
    if now_us is not None and (outcome.swept or outcome.findings) and not outcome.broken_ledger:
        _append_event(store, outcome.swept, outcome.findings, now_us)
    return outcome


def _check_pages(connection: Transaction) -> tuple[bool, list[str]]:
    """Return whether the ledger has page checksums, and how it differs from them."""
    try:
        return file_checks.has_valid_checksums(connection), []
    except IntegrityError as error:
        return False, [error.what]


def _broken(reasons: list[str]) -> Verification:
    """Return the findings of a damaged ledger: no other check or sweep can rely on it."""
    found = tuple(Finding(_LEDGER, "ledger", reason, _RECOVER) for reason in reasons)
    return Verification(0, 0, 0, 0, found)


def _verified(store: Store, quick: bool, progress: Progress | None) -> Verification:
    swept = [] if quick else orphans.sweep(store)
    with store.ledger.read() as connection:
        expected = file_checks.expected_files(connection)
        version_blobs = file_checks.version_blobs(connection)
        key_files = [] if quick else duplicate_keys.live_files(connection)
        findings = [
            Finding(_DAMAGED, subject, reason, _REPAIR)
            for look in (ledger_checks.find_mismatches, version_checks.find_mismatches)
            for subject, reason in look(connection)
        ]
        findings += _findings(derived_checks.tombstone_files(connection, store.root))
    findings += [
        Finding(_LEDGER, f"batch {feed}/{batch}", _LOST_LOAD, _REPAIR)
        for feed, batch, _ in sorted(orphans.lost_loads(store))
    ]
    findings += _check_files(store, expected, progress, quick=quick)
    if not quick:
        findings += _check_blobs(store, version_blobs)
        findings += _check_events(store)
        findings += _check_derived(store)
        damaged = {finding.subject for finding in findings}
        findings += _check_keys(store, [file for file in key_files if file.path not in damaged])
    return Verification(
        files=len(expected),
        rows=sum(file.rows for file in expected),
        blobs=len(version_blobs),
        swept=len(swept),
        findings=tuple(findings),
    )


def _check_derived(store: Store) -> Iterator[Finding]:
    with store.ledger.read() as connection:
        copies = derived_checks.damaged_copies(connection, store.root)
        yield from _findings((f"contract {contract_hash}", reason) for contract_hash, reason in copies)
        manifests = derived_checks.damaged_manifests(connection, store.root)
        yield from _findings((f"snapshot {name}", reason) for name, reason in manifests)
        for found in (
            (
                (table.directory, reason)
                for table, reason in derived_checks.exported_tables(connection, store.root)
            ),
            derived_checks.local_copies(store.root, derived_checks.newest_plans(connection)),
            derived_checks.log_segments(connection, store.root),
        ):
            yield from _findings((str(path.relative_to(store.root)), reason) for path, reason in found)


def _check_events(store: Store) -> list[Finding]:
    with store.ledger.read() as connection:
        broken = event_chain.check(connection).broken
    return [] if broken is None else [Finding(_CHANGED, "events", broken.explanation, _AUDIT)]


def _findings(reasons: Iterable[tuple[str, str]]) -> list[Finding]:
    return [Finding(_DAMAGED, subject, reason, _REPAIR) for subject, reason in reasons]


def _check_files(
    store: Store, expected: list[file_checks.Expected], progress: Progress | None, *, quick: bool
) -> list[Finding]:
    findings = []
    look = file_checks.check_file_quickly if quick else file_checks.check_file
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        # Reading a size takes less time than handing the call to a thread.
        over = map if quick else pool.map
        looked = over(lambda file: look(store.root, file), expected)
        for done, (file, reasons) in enumerate(zip(expected, looked, strict=True), start=1):
            findings += [Finding(_DAMAGED, file.path, reason, _RESTORE) for reason in reasons]
            if progress is not None:
                progress(done, len(expected))
    return findings


def _check_blobs(store: Store, version_blobs: list[tuple[str, str, int]]) -> list[Finding]:
    findings = []
    for version, digest, size in version_blobs:
        try:
            found = len(blobs.get(store.root, digest))
        except HoldfastError as error:
            findings.append(Finding(_DAMAGED, f"version {version}", error.what, _RESTORE))
            continue
        if found != size:
            reason = f"its file has {found} bytes, {size} in the ledger"
            findings.append(Finding(_DAMAGED, f"version {version}", reason, _RESTORE))
    return findings


def _check_keys(store: Store, files: list[duplicate_keys.KeyFile]) -> list[Finding]:
    return [
        Finding(
            _REPEATED,
            f"feed {repeated.feed}",
            f"{counted(repeated.rows, 'row', 'has', 'have')} a key that another batch has too, such as {repeated.example} "
            f"in {_some(repeated.batches)}: they count twice",
            "back out the batch that repeats them: holdfast backout FEED BATCH",
        )
        for repeated in duplicate_keys.repeated(store.root, files)
    ]


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ("batches " if len(names) > 1 else "batch ") + ", ".join(names[:3]) + more


def _append_event(store: Store, swept: int, findings: Sequence[Finding], now_us: int) -> None:
    parts = []
    if swept:
        parts.append(f"{counted(swept, 'orphan')} swept")
    if findings:
        parts.append(f"{len(findings)} findings, the first: {findings[0].subject} {findings[0].explanation}")
    with store.ledger.write() as connection:
        events.append(
            connection, at_us=now_us, kind="store.verified", subject="store", explanation="; ".join(parts)
        )
