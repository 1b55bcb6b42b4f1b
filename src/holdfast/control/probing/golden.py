"""Request the golden queries of servers: after each new plan, such as a deployment or a rollback, and every hour (R83)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from holdfast.control.http.open_inference import inference_request
from holdfast.control.http.server_client import FAILURES, TIMEOUT_SECONDS, ServerClient, call_all
from holdfast.qualify import GoldenQuery
from holdfast.qualify.golden import wrong_predictions
from holdfast.records import HOUR_US
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.models import versions
from holdfast.store.rollout import traffic_plans
from holdfast.store.serving import servers
from holdfast.store.serving.servers import Server

if TYPE_CHECKING:
    from holdfast.declaration import Model

EVERY_US: Final = HOUR_US
FAILED: Final = "golden.failed"
"""The kind of the event, whose subject is the model."""
_READ_EVENTS: Final = 20

Response: TypeAlias = tuple[str, list[float]]
"""The version of a server, and its predictions of the golden queries, in order."""
Look: TypeAlias = Callable[[Sequence[Server]], Mapping[str, Response]]
"""Returns the responses by server; one that did not respond is absent."""


class GoldenQueries:
    """A concern of the control loop that requests the golden queries of every server, as probes, which are not logged.

    Of a model with aggregates none is requested: a prediction then depends on the online values, which no query has.

    Parameters
    ----------
    model
        The declared model.
    look
        Replaces the network, for tests.
    """

    def __init__(self, model: Model, look: Look | None = None) -> None:
        self._queries: tuple[GoldenQuery, ...] = () if model.aggregates else tuple(model.golden)
        columns = model.contract.request_columns
        self._bodies = [_probe_of(inference_request(columns, each.row, each.name)) for each in self._queries]
        self._look = look or self._responses
        self._seen: dict[str, tuple[int, int]] = {}
        """The plan and the time of the last response of each server."""

    def __call__(self, store: Store, model: str, lease: Lease, *, now_us: int) -> None:
        """Request them of the servers that are due, and report wrong predictions of a candidate."""
        if not self._queries:
            return
        with store.ledger.read() as connection:
            plan = traffic_plans.newest(connection, model)
            here = servers.current(servers.registered(connection, model))
        if plan is None:
            return
        due = [each for each in here if not self._is_recent(each.server, plan.plan_id, now_us)]
        for server, (version, predictions) in self._look(due).items() if due else ():
            if version != plan.intended:
                continue  # it does not follow the plan yet
            self._seen[server] = plan.plan_id, now_us
            wrong = wrong_predictions(self._queries, predictions)
            with store.ledger.read() as connection:
                is_candidate = versions.get(connection, version).role == "candidate"
                reported = events.newest(connection, subject=model, kind=FAILED, limit=_READ_EVENTS)
            text = f"{version} on {server} under plan {plan.plan_id}: {'; '.join(wrong)}"
            if not wrong or not is_candidate or any(each.explanation == text for each in reported):
                continue
            with store.ledger.write() as connection:
                assert_epoch(connection, lease.name, lease.epoch)
                events.append(connection, at_us=now_us, kind=FAILED, subject=model, explanation=text)

    def _is_recent(self, server: str, plan: int, now_us: int) -> bool:
        under, at_us = self._seen.get(server, (0, 0))
        return under == plan and 0 <= now_us - at_us < EVERY_US

    def _responses(self, targets: Sequence[Server]) -> Mapping[str, Response]:
        found = call_all(targets, self._request, TIMEOUT_SECONDS)
        return {server: each for server, each in found.items() if each is not None}

    def _request(self, server: Server) -> Response | None:
        try:
            with ServerClient(server) as client:
                responses = [client.infer(body) for body in self._bodies]
            named = {str(each["model_version"]) for each in responses}
            predictions = [float(each["outputs"][0]["data"][0]) for each in responses]
        except (*FAILURES, KeyError, IndexError, TypeError):
            return None  # its probe reports it
        return (named.pop(), predictions) if len(named) == 1 else None


def _probe_of(body: str) -> str:
    return json.dumps(json.loads(body) | {"parameters": {"probe": True}})
