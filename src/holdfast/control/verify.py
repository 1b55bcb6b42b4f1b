"""The store's fsck: holds every file, footer, checksum, count and blob against the ledger, and sweeps
orphans.

It changes nothing but orphans, and may run beside loaders, servers and the control loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

from holdfast.errors import HoldfastError
from holdfast.store import Store, audit, blobs, events, keys, orphans

Step = Callable[[int, int], None]
"""Told how much of the work is done, of how much."""

_DAMAGED: Final = "HF301"
_REPEATED: Final = "HF206"
_RESTORE: Final = "restore it from a copy of the store; until then nothing that reads it will run"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: a code of `errors.CODES`, what it is about, what is wrong with it, what to do
    next.
    """

    code: str
    subject: str
    explanation: str
    next_command: str

    def as_dict(self) -> dict[str, str]:
        """The finding as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at and what was found. Orphans are no finding: a killed loader leaves them and they
    mean nothing.
    """

    files: int
    rows: int
    blobs: int
    swept: int
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """The verification as plain JSON."""
        return asdict(self) | {
            "clean": self.clean,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def verify(store: Store, *, now_us: int | None = None, progress: Step | None = None) -> Verification:
    """Look at everything that was acknowledged and say what is not as it was.

    Parameters
    ----------
    now_us
        The moment, microseconds since 1970 UTC; when given, findings and swept orphans go into the story.
    progress
        Told (files done, files in all).

    Guarantee: every file that the ledger names is read to its last byte; one changed bit in one of them is a
    finding, and so are rows whose key their feed holds in another batch too (HF206).
    """
    swept = orphans.sweep(store)
    with store.ledger.read() as connection:
        expected = audit.expected_files(connection)
        version_blobs = audit.version_blobs(connection)
        key_files = keys.live_files(connection)
        findings = [*_of_the_ledger(connection)]
    findings += _of_the_files(store, expected, progress)
    findings += _of_the_blobs(store, version_blobs)
    findings += _of_the_keys(store, key_files)
    if now_us is not None and (swept or findings):
        _tell(store, len(swept), findings, now_us)
    return Verification(
        files=len(expected),
        rows=sum(file.rows for file in expected),
        blobs=len(version_blobs),
        swept=len(swept),
        findings=tuple(findings),
    )


def _of_the_ledger(connection: Any) -> Iterator[Finding]:
    for trouble in audit.database_troubles(connection):
        yield Finding("HF302", "ledger", trouble, "restore the ledger from a copy of the store")
    for what, troubles in (
        ("batch", audit.miscounted_batches(connection)),
        ("snapshot", audit.changed_snapshots(connection)),
        ("lease", audit.strange_leases(connection)),
    ):
        for name, trouble in troubles:
            yield Finding(_DAMAGED, f"{what} {name}", trouble, "restore the ledger from a copy of the store")


def _of_the_files(store: Store, expected: list[audit.Expected], progress: Step | None) -> list[Finding]:
    findings = []
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        looked = pool.map(lambda file: audit.troubles(store.root, file), expected)
        for done, (file, troubles) in enumerate(zip(expected, looked, strict=True), start=1):
            findings += [Finding(_DAMAGED, file.path, trouble, _RESTORE) for trouble in troubles]
            if progress is not None:
                progress(done, len(expected))
    return findings


def _of_the_blobs(store: Store, version_blobs: list[tuple[str, str, int]]) -> list[Finding]:
    findings = []
    for version, digest, size in version_blobs:
        try:
            found = len(blobs.get(store, digest))
        except HoldfastError as error:
            findings.append(Finding(_DAMAGED, f"version {version}", error.what, _RESTORE))
            continue
        if found != size:
            trouble = f"its file has {found} bytes, the ledger says {size}"
            findings.append(Finding(_DAMAGED, f"version {version}", trouble, _RESTORE))
    return findings


def _of_the_keys(store: Store, files: list[keys.KeyFile]) -> list[Finding]:
    return [
        Finding(
            _REPEATED,
            f"feed {repeated.feed}",
            f"{repeated.rows} rows have a key that was loaded before, such as {repeated.example} "
            f"in {_some(repeated.batches)}: they count twice",
            "send each row once; a loaded batch cannot be taken back yet, so training on this feed sees them twice",
        )
        for repeated in keys.repeated(store.root, files)
    ]


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ("batches " if len(names) > 1 else "batch ") + ", ".join(names[:3]) + more


def _tell(store: Store, swept: int, findings: list[Finding], now_us: int) -> None:
    parts = []
    if swept:
        parts.append(f"{swept} things of unfinished work were swept")
    if findings:
        parts.append(
            f"{len(findings)} things are wrong, the first: {findings[0].subject} {findings[0].explanation}"
        )
    with store.ledger.write() as connection:
        events.append(
            connection, at_us=now_us, kind="store.verified", subject="store", explanation="; ".join(parts)
        )
