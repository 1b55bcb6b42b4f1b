"""Measure how long a model had no clean version after a back-out, and report when that exceeds what is declared (R9)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from holdfast.records import Verdict
from holdfast.store import Store
from holdfast.store.backout import backouts, taints
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.serving import members, servers
from holdfast.tables.data_incident import DataIncident, Observed, find_recovery, tainted_in_traffic

RECOVERED: Final = "data_incident.recovered"
EXCEEDED: Final = "data_incident.exceeded"
"""The kinds of the events; their subject is the model and the back-out, as in `flights/backout-3`."""
EVERY_US: Final = 1_000_000
"""How often open incidents are looked at, microseconds."""


def find_incidents(
    connection: Transaction, model: str, recover_within: timedelta | None = None
) -> list[DataIncident]:
    """Return the data incidents of `model`, the oldest first: open ones, and those that ended.

    `recover_within` is the declared bound; None for none.
    """
    bound_us = None if recover_within is None else recover_within // timedelta(microseconds=1)
    found: list[DataIncident] = []
    for row in backouts.tainting(connection, model):
        version = tainted_in_traffic(row.plan, model)
        if version is None:
            continue
        incident = DataIncident(
            row.backout_id, row.feed, row.batch, model, version, row.requested_at_us, bound_us
        )
        ended = events.newest(connection, subject=_subject(incident), kind=RECOVERED, limit=1)
        if ended:
            by = ended[0].explanation.partition(" ")[0]
            incident = replace(incident, recovered_at_us=ended[0].at_us, recovered_by=by)
        found.append(incident)
    return found


class RecoveryMonitor:
    """A concern of the control loop: one event when an incident ends, and one when it lasts longer than declared.

    Parameters
    ----------
    recover_within
        The declared bound; None for none.
    """

    def __init__(self, recover_within: timedelta | None = None) -> None:
        self._recover_within = recover_within
        self._looked_at_us = 0
        self._settled: tuple[int, int] | None = None

    def __call__(self, store: Store, model: str, lease: Lease, *, now_us: int) -> None:
        """Look once a second while an incident is open, and after each new taint."""
        if 0 <= now_us - self._looked_at_us < EVERY_US:
            return
        self._looked_at_us = now_us
        with store.ledger.read() as connection:
            current = taints.count(connection)
            if current == self._settled:
                return
            incidents = [
                each for each in find_incidents(connection, model, self._recover_within) if each.is_open
            ]
            tainted = taints.versions_of(connection, model)
            observed = _observed(connection, model)
        for incident in incidents:
            recovery = find_recovery(observed, tainted, since_us=incident.started_at_us)
            _report(store, lease, incident, recovery, now_us)
        with store.ledger.read() as connection:
            left = [each for each in find_incidents(connection, model) if each.is_open]
        self._settled = None if left else current


def _observed(connection: Transaction, model: str) -> list[Observed]:
    """Return what the last probe of each running server saw."""
    current = {each.server for each in members.running(connection, model)}
    return [
        Observed(each.observed_version, each.verdict is Verdict.PASS, each.probed_at_us)
        for each in servers.last_probes(connection, model)
        if each.server in current
    ]


def _report(
    store: Store, lease: Lease, incident: DataIncident, recovery: tuple[str, int] | None, now_us: int
) -> None:
    """Append the event that is due, once."""
    if recovery is not None:
        version, at_us = recovery
        ended = replace(incident, recovered_at_us=at_us, recovered_by=version)
        missed = ", which is longer" if ended.is_exceeded(now_us) else ""
        explanation = f"{version} serves, seen by a probe of every server; {ended.describe(now_us)}{missed}"
        kind, happened_us = RECOVERED, at_us
    elif incident.is_exceeded(now_us):
        kind, explanation, happened_us = EXCEEDED, incident.describe(now_us), now_us
    else:
        return
    subject = _subject(incident)
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        if not events.newest(connection, subject=subject, kind=kind, limit=1):
            events.append(connection, at_us=happened_us, kind=kind, subject=subject, explanation=explanation)


def _subject(incident: DataIncident) -> str:
    return f"{incident.model}/backout-{incident.backout_id}"
