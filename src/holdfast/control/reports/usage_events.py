"""Emit an event when requests stop, and when callers send what the contract refuses (R133, R140)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from holdfast.control.reports.status import read_usage
from holdfast.formatting import timestamp
from holdfast.monitor.health import is_refusing
from holdfast.records import Verdict
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch

EVERY_US: Final = 15_000_000
"""Time between two looks, in microseconds."""


@dataclass(slots=True)
class UsageEvents:
    """The concern of the control loop. It remembers only when it last looked."""

    looked_at_us: int = 0

    def __call__(self, store: Store, model: str, lease: Lease, *, now_us: int) -> None:
        """Report each silence once, and refused requests once a day. Raises `ConflictError` HF304 without the lease."""
        if now_us - self.looked_at_us < EVERY_US:
            return
        self.looked_at_us = now_us
        with store.ledger.read() as connection:
            usage, last_us = read_usage(connection, model, now_us)
        found: list[tuple[str, str, str]] = []
        if usage.verdict is Verdict.FAIL:
            text = (
                f"{usage.explanation} The last request of {model} was in the minute of {timestamp(last_us)}."
            )
            found.append(("requests.silent", f"{model}/{last_us}", text))
        if is_refusing(usage.requests, usage.refused):
            kinds = sorted(
                {kind.kind for version in usage.versions for kind in version.errors if kind.is_callers_fault}
            )
            day = datetime.fromtimestamp(now_us / 1e6, UTC).date()
            text = (
                f"{usage.refused:,} of {usage.requests:,} requests of {model} in the last hour were refused by their "
                f"callers' fault ({', '.join(kinds)}): callers and the contract disagree"
            )
            found.append(("requests.refused", f"{model}/{day}", text))
        for kind, subject, text in found:
            with store.ledger.write() as connection:
                assert_epoch(connection, lease.name, lease.epoch)
                events.append_once(connection, at_us=now_us, kind=kind, subject=subject, explanation=text)
