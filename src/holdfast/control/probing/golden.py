"""Request the golden queries of servers: after each new plan, such as a deployment or a rollback, and every hour (R83)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from holdfast.control.http.open_inference import inference_request
from holdfast.control.http.server_client import (
    FAILURES,
    TIMEOUT_SECONDS,
    ServerClient,
    StatusError,
    call_all,
)
from holdfast.feedback.probe_token import probe_token
from holdfast.qualify import GoldenQuery
from holdfast.qualify.golden import set_id, wrong_predictions
from holdfast.records import HOUR_US
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.models import versions
from holdfast.store.rollout import traffic_plans
from holdfast.store.serving import label_rules, members, servers
from holdfast.store.serving.servers import Server

if TYPE_CHECKING:
    from holdfast.declaration import Model

EVERY_US: Final = HOUR_US
RETRY_US: Final = 30_000_000
"""A server that gave no prediction is requested again after this long, microseconds."""
FAILED: Final = "golden.failed"
"""The kind of the event, whose subject is the model."""

Result: TypeAlias = float | int
"""The prediction of a golden query as a float, or the status of a response without one, an int."""
Response: TypeAlias = tuple[str | None, list[Result]]
"""The version that predicted, None without a prediction; and the results of the golden queries, in order."""
Look: TypeAlias = Callable[[Sequence[Server]], Mapping[str, Response]]
"""Returns the responses by server; one that did not respond is absent."""


class GoldenQueries:
    """A concern of the control loop that requests the golden queries of every server, as probes, which are not logged.

    A server whose last probe did not see the newest plan is skipped: it is silent, or does not follow the plan yet.
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
        self._token = ""
        self._due: dict[str, tuple[int, int]] = {}
        """The plan of the last attempt at each server, and when the next one is due unless the plan changes."""

    def __call__(self, store: Store, model: str, lease: Lease, *, now_us: int) -> None:
        """Request them of the servers that are due, and report wrong predictions of a candidate."""
        if not self._queries:
            return
        with store.ledger.read() as connection:
            plan = traffic_plans.newest(connection, model)
            here = members.running(connection, model)
            seen = {each.server: each.plan_id for each in servers.last_probes(connection, model)}
            self._token = probe_token(label_rules.read(connection, model).secret)
        if plan is None:
            return
        following = [each for each in here if seen.get(each.server) == plan.plan_id]
        due = [each for each in following if self._is_due(each.server, plan.plan_id, now_us)]
        for each in due:
            self._due[each.server] = plan.plan_id, now_us + RETRY_US
        for server, (version, results) in self._look(due).items() if due else ():
            if version not in (plan.intended, None):
                continue  # it does not follow the plan any more
            if all(isinstance(each, float) for each in results):
                self._due[server] = plan.plan_id, now_us + EVERY_US
            wrong = _wrong(self._queries, results)
            if wrong:
                of = f"golden set {set_id(self._queries)}"
                text = f"{plan.intended} on {server} under plan {plan.plan_id}, {of}: {'; '.join(wrong)}"
                _report(store, model, lease, plan.intended, text, now_us)

    def _is_due(self, server: str, plan: int, now_us: int) -> bool:
        under, due_us = self._due.get(server, (0, 0))
        return under != plan or not due_us - EVERY_US <= now_us < due_us  # a clock may go back

    def _responses(self, targets: Sequence[Server]) -> Mapping[str, Response]:
        found = call_all(targets, self._request, TIMEOUT_SECONDS)
        return {server: each for server, each in found.items() if each is not None}

    def _request(self, server: Server) -> Response | None:
        named: set[str] = set()
        results: list[Result] = []
        try:
            with ServerClient(server) as client:
                for body in self._bodies:
                    try:
                        response = client.infer(body, self._token)
                    except StatusError as error:
                        results.append(error.status)
                        continue
                    named.add(str(response["model_version"]))
                    results.append(float(response["outputs"][0]["data"][0]))
        except (*FAILURES, KeyError, IndexError, TypeError):
            return None  # its probe reports it
        return (next(iter(named), None), results) if len(named) <= 1 else None


def _wrong(queries: Sequence[GoldenQuery], results: Sequence[Result]) -> list[str]:
    """Return each query without a correct prediction, in words."""
    wrong = []
    for query, result in zip(queries, results, strict=True):
        if isinstance(result, int):
            wrong.append(f"{query.name!r} got status {result}")
        else:
            wrong += wrong_predictions([query], [result])
    return wrong


def _report(store: Store, model: str, lease: Lease, version: str, text: str, now_us: int) -> None:
    """Append an event about a candidate, once for each text. Raises `ConflictError` HF304 when another loop has the lease."""
    with store.ledger.read() as connection:
        is_reported = events.is_reported(connection, subject=model, kind=FAILED, explanation=text)
        if is_reported or versions.get(connection, version).role != "candidate":
            return
    with store.ledger.write() as connection:
        assert_epoch(connection, lease.name, lease.epoch)
        events.append(connection, at_us=now_us, kind=FAILED, subject=model, explanation=text)


def _probe_of(body: str) -> str:
    return json.dumps(json.loads(body) | {"parameters": {"probe": True}})
