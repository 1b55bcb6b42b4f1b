"""Drill of a bad push, on a copy of the store: a version that predicts NaN bypasses the gates.

The control loop must roll it back by what the servers log, without an operator.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import numpy as np
import onnx

from holdfast.contract import Column, Contract
from holdfast.contract.row import synthetic_rows
from holdfast.control import loop
from holdfast.control.collect import collector
from holdfast.control.drills.live import Workspace
from holdfast.control.drills.on_copy import copied, copy, no_room, scratch
from holdfast.control.drills.server import START_SECONDS, Child
from holdfast.control.http.open_inference import inference_request
from holdfast.control.probing.probe import probe
from holdfast.control.rollout import compatibility, reconcile, start
from holdfast.errors import HoldfastError
from holdfast.formatting import counted
from holdfast.records import Verdict
from holdfast.rollout import RESTING, Canary, State
from holdfast.rollout.model.drills import DrillResult
from holdfast.store import Store
from holdfast.store.db.leases import Lease
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.rollout import rollouts
from holdfast.store.telemetry import recorded_requests
from holdfast.train.artifact import open_version, pack_version

MOST_REQUESTS: Final = 5_000
"""After how many requests a bad version that was not rolled back has escaped."""
MOST_SECONDS: Final = 60.0
_LEASE_SECONDS: Final = 30.0
_BATCH: Final = 50
_POLICY: Final = Canary(
    steps=(10, 50, 100),
    units_per_step=50,
    labels_per_step=0,
    latency_quantile=None,
    timeout=timedelta(hours=1),
)


def bad_push(workspace: Workspace, _drill: int) -> DrillResult:
    """Let a version without usable predictions bypass the gates, and count the requests until it is rolled back."""
    with scratch(workspace.store) as home:
        if narrow := no_room(home, copied(workspace.store)):
            return narrow
        store = copy(workspace.store, home / "root")
        try:
            return _pushed(workspace, store)
        finally:
            store.ledger.close()


def _pushed(workspace: Workspace, store: Store) -> DrillResult:
    model = workspace.model
    with store.ledger.read() as connection:
        champion = versions.champion(connection, model.name)
        running = any(each.running for each in rollouts.of_model(connection, model.name))
    why = ""
    if champion is None:
        why = "no version serves yet"
    elif running:
        why = "a rollout is under way"
    elif champion.role != "candidate":
        why = f"{champion.version} answers, a {champion.role}, and only a candidate is rolled out"
    if champion is None or why:
        return DrillResult(Verdict.INCONCLUSIVE, f"nothing to push against: {why}")
    contract = Contract.from_json(open_version(blobs.get(store.root, champion.digest))[1].contract_json)
    recorded = requests_of(workspace.store, model.name, champion.version, contract)
    if not recorded:
        why = "no request is recorded, and the contract's rules admit no synthetic row"
        return DrillResult(Verdict.INCONCLUSIVE, why)
    bad = _broken(store, champion, workspace.clock_us())
    lease = loop.take_lease(  # its holder in the original does not use the copy
        store,
        f"control-{model.name}",
        holder="drill",
        duration_us=loop.LEASE_US,
        clock_us=workspace.clock_us,
        within_seconds=_LEASE_SECONDS,
    )
    if lease is None:
        why = f"taking the lease of the copy's control loop failed for {_LEASE_SECONDS:g} s"
        return DrillResult(Verdict.ERROR, why)
    with Child(workspace, store.root) as child:
        child.wait(lambda status: bool(status["ready"]), START_SECONDS)
        declared = replace(model, rollout=_POLICY)
        number = start.request(store, declared, bad, actor="drill", now_us=workspace.clock_us()).rollout
        assert number is not None, "nothing is under way in the copy"
        began = time.monotonic()
        sent, failed = _send_until_decided(
            workspace, store, lease, number, (contract.request_columns, recorded), child
        )
        measured_duration_us = round((time.monotonic() - began) * 1e6)
    with store.ledger.read() as connection:
        ended = rollouts.get(connection, number)
    evidence = {
        "requests": sent,
        "failed": failed,
        "state": ended.state,
        "reason": ended.reason,
        "version": bad,
    }
    explanation = (
        f"{counted(sent, 'request')} until the broken version was {ended.state}, {failed} of them failed"
    )
    passed = ended.state is State.ROLLED_BACK and not failed
    return DrillResult(Verdict.PASS if passed else Verdict.FAIL, explanation, measured_duration_us, evidence)


def _send_until_decided(
    workspace: Workspace,
    store: Store,
    lease: Lease,
    rollout: int,
    recorded: tuple[Sequence[Column], list[dict[str, Any]]],
    child: Child,
) -> tuple[int, int]:
    """Run the control loop and send recorded rows until the rollout rests; return how many were sent, and how many failed."""
    doing: dict[str, loop.Concern] = {
        "logs": collector.collect,
        "probing": probe,
        "rollout": reconcile.reconcile,
    }
    columns, rows = recorded
    sent = failed = 0
    until, state = time.monotonic() + MOST_SECONDS, State.PENDING
    while state not in RESTING and sent < MOST_REQUESTS and time.monotonic() < until:
        loop.run_round(store, workspace.model.name, lease, clock_us=workspace.clock_us, doing=doing)
        with store.ledger.read() as connection:
            state = rollouts.get(connection, rollout).state
        if state in (State.CANARY, State.VERIFYING):
            batch = range(sent, sent + _BATCH)
            bodies = [inference_request(columns, rows[at % len(rows)], f"drill-{at}") for at in batch]
            failed += child.failed(len(bodies), bodies)
            sent += len(bodies)
        elif state is State.ROLLING_BACK:
            time.sleep(0.02)
    return sent, failed


def _broken(store: Store, champion: versions.VersionRow, now_us: int) -> str:
    """Register the champion's twin whose every prediction is NaN, as if the gates had admitted it."""
    graph, metadata = open_version(blobs.get(store.root, champion.digest))
    bad = onnx.ModelProto()
    bad.CopyFrom(graph)
    output = bad.graph.output[0].name
    for node in bad.graph.node:
        for place, name in enumerate(node.output):
            if name == output:
                node.output[place] = f"{output}_before"
    element = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(bad.graph.output[0].type.tensor_type.elem_type))
    bad.graph.initializer.append(onnx.numpy_helper.from_array(np.array(np.nan, element), "drill_nan"))
    bad.graph.node.append(onnx.helper.make_node("Add", [f"{output}_before", "drill_nan"], [output]))
    data = pack_version(bad, metadata)
    with blobs.registering(store.root):
        digest = blobs.put(store.root, data)
        with store.ledger.write() as connection:
            row = versions.register(connection, metadata, digest=digest, size_bytes=len(data), now_us=now_us)
            if row.state == "registered":
                versions.set_state(connection, row.version, "qualified", before="registered")
            runtime = compatibility.untested_runtime(connection, metadata.model, row.version)
            if runtime is not None:
                compatibility.record(
                    connection, metadata.model, row.version, runtime, "admitted by a drill", now_us=now_us
                )
    return row.version


def requests_of(store: Store, model: str, champion: str, contract: Contract) -> list[dict[str, Any]]:
    """Return complete rows that callers sent to the champion, else synthetic rows that its contract admits."""
    names = [column.name for column in contract.request_columns]
    try:
        with store.ledger.read() as connection:
            found = recorded_requests.newest(connection, store.root, model, most=500, since_us=0).requests
    except HoldfastError:
        found = ()  # `verify` reports a damaged file of predictions
    requested = [
        dict(zip(names, row, strict=True)) for each in found if each.version == champion for row in each.rows
    ]
    complete = [row for row in requested if None not in row.values()]
    return complete or synthetic_rows.synthetic_rows(contract, 200)
