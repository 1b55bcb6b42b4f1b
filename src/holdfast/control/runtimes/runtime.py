"""Push and roll back the runtime by a plan; one that was not tested with the serving versions is refused (R116, R119).

`holdfast up` follows: it starts the other command next to the running one, and ends that one when the other responds.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from holdfast.contract import Contract
from holdfast.control.http.open_inference import inference_request
from holdfast.control.http.server_client import FAILURES, ServerClient
from holdfast.control.rollout import compatibility, plan_parts
from holdfast.control.rollout.plan_parts import PUSHED, ROLLED_BACK, Part
from holdfast.errors import HoldfastError, InputError, RefusedError, UnavailableError
from holdfast.records import Verdict
from holdfast.rollout.model.runtime import TOLERANCE, Runtime, furthest
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.files import blobs
from holdfast.store.models import runtimes, serving_configs, versions
from holdfast.store.models.runtimes import CompatibilityResult, RuntimeRow
from holdfast.store.rollout import traffic_plans

# `holdfast up` pushes and never tests: what a test imports would be half of its memory.
if TYPE_CHECKING:
    from holdfast.control.drills.live import Workspace

FAILED: Final = "runtime.failed"
"""The kind of the event of a runtime that could not take over, whose subject is the model."""

FACTS_SECONDS: Final = 60.0
"""How long a command may take to report its runtime."""
ROWS: Final = 200
"""Number of rows by which two runtimes are compared."""


def facts_of(command: Sequence[str]) -> Runtime:
    """Return the runtime that `command` reports. Raises `InputError` HF101 if it does not."""
    show = [*command, "runtime", "show", "--json"]
    try:
        ended = subprocess.run(
            show,
            capture_output=True,
            text=True,
            timeout=FACTS_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unreported(command, str(error)) from error
    if ended.returncode != 0:
        raise _unreported(command, (ended.stderr.strip().splitlines() or ["no output"])[-1])
    try:
        return Runtime.from_json(json.dumps(json.loads(ended.stdout)["facts"]))
    except (ValueError, KeyError, TypeError, HoldfastError) as error:
        raise _unreported(command, str(error)) from error


def _unreported(command: Sequence[str], why: str) -> InputError:
    return InputError(
        "HF101",
        f"reading the runtime of {' '.join(command)[:200]} failed: {why[:300]}",
        state="nothing was registered",
        next_command="name a command that runs Holdfast, as in: holdfast runtime register -- /opt/new/bin/python -m holdfast",
    )


# --- test -------------------------------------------------------------------------------------------------------------


def try_out(
    workspace: Workspace,
    version: str,
    candidate: RuntimeRow,
    present: Sequence[str],
    arguments: Sequence[str],
) -> CompatibilityResult:
    """Compare predictions of `version` by `candidate` and by the command `present` on a copy of the store; record the result.

    It passes if they agree within `TOLERANCE`, under the serving config in force.

    Parameters
    ----------
    workspace, version
        The project, and the version that predicts.
    candidate, present
        The runtime under test, and the command of the one that serves.
    arguments
        Make a server of a command.

    Raises `InputError` HF101 for a candidate without a command, `NotFoundError` HF303 for an unknown version,
    `UnavailableError` HF306 without space for the copy.
    """
    from holdfast.control.drills.on_copy import copied, copy, no_room, scratch

    if not candidate.command:
        raise InputError(
            "HF101",
            f"runtime {candidate.runtime} has no command that starts it",
            state="nothing was tested",
            next_command="holdfast runtime register -- COMMAND",
        )
    store = workspace.store
    with store.ledger.read() as connection:
        limits = plan_parts.serving_config_in_force(connection, workspace.model.name)
        taints.refuse(connection, "version", version)
        versions.get(connection, version)
    try:
        with scratch(store) as home:
            if narrow := no_room(home, copied(store)):
                raise UnavailableError("HF306", narrow.explanation, state="nothing was tested")
            rows = requests(
                store, workspace.model.name, version
            )  # of the store: the copy has no file of predictions
            twin = copy(store, home / "root")
            try:
                number = _plan(twin, workspace.model.name, version, workspace.clock_us())
            finally:
                twin.ledger.close()
            ours, theirs = (
                _predictions(replace(workspace, serve=[*command, *arguments]), home, number, version, rows)
                for command in (candidate.command, present)
            )
        difference = furthest(ours, theirs)
        verdict = Verdict.PASS if difference <= TOLERANCE else Verdict.FAIL
        words = (
            f"{len(rows)} rows predicted by both; at most {difference:.2g} apart, {TOLERANCE:g} is tolerated"
        )
        if not rows:
            verdict, words = (
                Verdict.INCONCLUSIVE,
                "both start, and no row that the contract admits is known",
            )
        elif tuple(present) == candidate.command:
            words += "; both are this runtime, because there is no other"
    except HoldfastError as error:
        if error.code == "HF306":  # a lack of space for a copy is no result about the runtime
            raise
        verdict, words = Verdict.FAIL, f"it does not serve: {error.what}"
    result = CompatibilityResult(version, candidate.runtime, limits.id, verdict, words, workspace.clock_us())
    with store.ledger.write() as connection:
        serving_configs.register(connection, limits, now_us=workspace.clock_us())
        runtimes.judge(connection, result)
        events.append(
            connection,
            at_us=workspace.clock_us(),
            kind="runtime.tried",
            subject=version,
            explanation=f"{candidate.runtime} with {limits.id} {verdict}: {words}",
        )
    return result


def qualified(store: Store, model: str, version: str, own: Runtime, *, now_us: int) -> None:
    """Record that `version` passed its gates with `own`, under the serving config in force.

    A compatibility test takes precedence.
    """
    with store.ledger.write() as connection:
        runtimes.register(connection, own, (), now_us=now_us)
        words = "qualified: every gate was evaluated with predictions of this runtime"
        compatibility.record(connection, model, version, own.id, words, now_us=now_us)


def to_try(store: Store, model: str, runtime: str) -> tuple[str, ...]:
    """Return the versions that have yet to pass a test with `runtime` before it may be pushed.

    There are none before the model's first plan.
    """
    with store.ledger.read() as connection:
        plan = traffic_plans.newest_committed(connection, model)
        wanted = () if plan is None else compatibility.versions_to_test(connection, plan.plan)
        return tuple(each for each in wanted if not compatibility.is_tested(connection, model, each, runtime))


def requests(store: Store, model: str, version: str) -> list[str]:
    """Return the requests of one row for a test of `version`.

    They are rows that callers sent to the intended version, if it has the same contract, else those sent to `version`; without
    any, synthetic rows.
    """
    from holdfast.control.drills.bad_push import requests_of
    from holdfast.train.artifact import read_metadata

    with store.ledger.read() as connection:
        row = versions.get(connection, version)
    contract = Contract.from_json(read_metadata(blobs.get(store.root, row.digest)).contract_json)
    with store.ledger.read() as connection:
        plan = traffic_plans.newest(connection, model)
        is_alike = (
            plan is not None and versions.get(connection, plan.intended).contract_hash == row.contract_hash
        )
    rows = requests_of(store, model, plan.intended if plan is not None and is_alike else version, contract)
    columns = contract.request_columns
    return [inference_request(columns, each, f"drill-{at}") for at, each in enumerate(rows[:ROWS])]


def _plan(store: Store, model: str, version: str, now_us: int) -> int:
    """Let `version` serve everything in the copy."""
    with store.ledger.write() as connection:
        before = plan_parts.newest(connection, model, now_us)
        alone = replace(
            before,
            champion=version,
            challenger=None,
            share_ppm=0,
            previous=None,
            shadow=None,
            shadow_ppm=0,
        )
        return traffic_plans.append(connection, alone, now_us=now_us)


def _predictions(
    workspace: Workspace, home: Path, number: int, version: str, rows: Sequence[str]
) -> list[float]:
    from holdfast.control.drills.server import START_SECONDS, Child

    found: list[float] = []
    with Child(workspace, home / "root") as child, ServerClient(child.server) as client:
        child.wait(lambda status: status["plan"] == number and status["ready"], START_SECONDS)
        for body in rows:
            try:
                response = client.infer(body)
            except FAILURES as error:
                raise RefusedError("HF403", f"predicting a row failed: {error}") from error
            if response.get("model_version") != version:
                raise RefusedError("HF403", f"{response.get('model_version')} served in place of {version}")
            found += response["outputs"][0]["data"]
    return found


# --- push and rollback -----------------------------------------------------------------------------------------------


def push(
    store: Store, model: str, runtime: str, present: Runtime, *, actor: str, reason: str, now_us: int
) -> int:
    """Let `model` be served by `runtime`; return the number of the plan, the newest one if it is in force already.

    `present` is what serves before the first push.

    Raises `NotFoundError` HF410 before the model's first plan, HF303 for a runtime that is not registered, `RefusedError` HF403
    when it did not pass a test with the serving config in force and each version that it would serve.
    """
    with store.ledger.write() as connection:
        before = plan_parts.newest(connection, model, now_us)
        runtimes.get(connection, runtime)
        periods = runtimes.in_force(connection, model)
        if (periods[0][1] if periods else present.id) == runtime:
            return before.plan_id
        for version in compatibility.versions_to_test(connection, before):
            compatibility.require_tested(connection, model, version, runtime)
        if not periods:
            runtimes.register(connection, present, (), now_us=now_us)
            traffic_plans.append(connection, replace(before, runtime=present.id), now_us=now_us)
        return _append(connection, model, runtime, PUSHED[Part.RUNTIME], actor, reason, now_us)


def failed(store: Store, model: str, runtime: str, why: str, *, actor: str, now_us: int) -> int | None:
    """Report that `runtime` could not take over, and return to the one before it; None when it is not in force any more."""
    with store.ledger.write() as connection:
        periods = runtimes.in_force(connection, model)
        if len(periods) < 2 or periods[0][1] != runtime:
            return None
        events.append(
            connection, at_us=now_us, kind=FAILED, subject=model, actor=actor, explanation=f"{runtime}: {why}"
        )
        return _append(connection, model, periods[1][1], ROLLED_BACK[Part.RUNTIME], actor, why, now_us)


def _append(
    connection: Transaction, model: str, runtime: str, kind: str, actor: str, reason: str, now_us: int
) -> int:
    before = plan_parts.newest(connection, model, now_us)
    words = f"{runtime} serves: {reason}"
    events.append(connection, at_us=now_us, kind=kind, subject=model, actor=actor, explanation=words)
    return traffic_plans.append(connection, replace(before, runtime=runtime), now_us=now_us)
