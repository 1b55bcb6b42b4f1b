"""Rows of `probes`: the observed state of each server against the plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, select

from holdfast.records import Verdict
from holdfast.store.db import rows
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.schema import probes


@dataclass(frozen=True, slots=True)
class Probe:
    """The last observation of one server: its plan, the version that should answer, the version that did."""

    server: str
    model: str
    plan_id: int | None
    planned_version: str | None
    observed_version: str | None
    verdict: Verdict
    explanation: str
    probed_at_us: int
    serving_config: str | None = None
    """The serving config that the server reports."""
    runtime: str | None = None
    """The runtime that the server reports."""


def record(connection: Connection, probe: Probe, lease: Lease) -> None:
    """Store `probe` as the last one of its server. Raises `ConflictError` HF304 when another loop has the lease."""
    assert_epoch(connection, lease.name, lease.epoch)
    rows.put(connection, probes, asdict(probe))


def last(connection: Connection, model: str) -> tuple[Probe, ...]:
    """Return the last probe of every server of `model`, by server name."""
    query = select(probes).where(probes.c.model == model).order_by(probes.c.server)
    return tuple(rows.read(connection, query, Probe))
