"""Which runtime serves is pushed and taken back by a plan; what was not tried with who answers is not pushed (R116, R119).

`holdfast up` follows: it starts the other command beside the one that runs, and ends that one when the other answers.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from holdfast.contract import Contract
from holdfast.control.drills.bad_push import requests_of, tensors
from holdfast.control.drills.live import Place
from holdfast.control.drills.on_copy import copied, copy, no_room, scratch
from holdfast.control.drills.server import START_SECONDS, Child
from holdfast.control.http.server_client import FAILURES, ServerClient
from holdfast.control.rollout import compatibility, plan_parts, serving_config
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
from holdfast.store.models.runtimes import Release, RuntimeRow
from holdfast.store.rollout import traffic_plans
from holdfast.train.artifact import read_metadata

FAILED: Final = "runtime.failed"
"""The kind of the event of a runtime that could not take over, whose subject is the model."""

FACTS_SECONDS: Final = 60.0
"""How long a command may take to say what it is."""
ROWS: Final = 200
"""How many rows two runtimes are compared by."""


def facts_of(command: Sequence[str]) -> Runtime:
    """What `command` says that it is; `InputError` HF101 when it does not."""
    asked = [*command, "runtime", "show", "--json"]
    try:
        ended = subprocess.run(
            asked,
            capture_output=True,
            text=True,
            timeout=FACTS_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _says_nothing(command, str(error)) from error
    if ended.returncode != 0:
        raise _says_nothing(command, (ended.stderr.strip().splitlines() or ["no word"])[-1])
    try:
        return Runtime.from_json(json.dumps(json.loads(ended.stdout)["facts"]))
    except (ValueError, KeyError, TypeError, HoldfastError) as error:
        raise _says_nothing(command, str(error)) from error


def _says_nothing(command: Sequence[str], why: str) -> InputError:
    return InputError(
        "HF101",
        f"{' '.join(command)[:200]} does not say what it is: {why[:300]}",
        state="nothing was registered",
        next_command="name a command that runs Holdfast, as in: holdfast runtime register -- /opt/new/bin/python -m holdfast",
    )


# --- trial ------------------------------------------------------------------------------------------------------------


def try_out(
    place: Place, version: str, candidate: RuntimeRow, present: Sequence[str], arguments: Sequence[str]
) -> Release:
    """Let `candidate` and the command `present` answer the same rows by `version` on a copy of the store, and keep whether
    they are the same within `TOLERANCE`, under the serving config that is in force.

    `arguments` make a server of a command, `requests` the rows. Raises `InputError` HF101 for a candidate without a
    command, `NotFoundError` HF303 for a version that there is not, `UnavailableError` HF306 without room for the copy.
    """
    if not candidate.command:
        raise InputError(
            "HF101",
            f"nobody said how {candidate.runtime} is started",
            state="nothing was tried",
            next_command="holdfast runtime register -- COMMAND",
        )
    store = place.store
    with store.ledger.read() as connection:
        limits = serving_config.current(connection, place.model.name)
        taints.refuse(connection, "version", version)
    with store.ledger.read() as connection:
        versions.get(connection, version)
    try:
        with scratch(store) as home:
            if narrow := no_room(home, copied(store)):
                raise UnavailableError("HF306", narrow.explanation, state="nothing was tried")
            rows = requests(store, place.model.name, version)  # of the store: the copy has no file of answers
            twin = copy(store, home / "root")
            try:
                number = _plan(twin, place.model.name, version, place.clock_us())
            finally:
                twin.ledger.close()
            ours, theirs = (
                _answers(replace(place, serve=[*command, *arguments]), home, number, version, rows)
                for command in (candidate.command, present)
            )
        apart = furthest(ours, theirs)
        verdict = Verdict.PASS if apart <= TOLERANCE else Verdict.FAIL
        words = f"{len(rows)} rows answered by both; at most {apart:.2g} apart, {TOLERANCE:g} is let through"
        if not rows:
            verdict, words = (
                Verdict.INCONCLUSIVE,
                "both start, and no row that the contract lets through is known",
            )
        elif tuple(present) == candidate.command:
            words += "; both are this runtime, for want of another"
    except HoldfastError as error:
        if error.code == "HF306":  # that there is no place for a copy says nothing of the runtime
            raise
        verdict, words = Verdict.FAIL, f"it does not answer: {error.what}"
    release = Release(version, candidate.runtime, limits.id, verdict, words, place.clock_us())
    with store.ledger.write() as connection:
        serving_configs.register(connection, limits, now_us=place.clock_us())
        runtimes.judge(connection, release)
        events.append(
            connection,
            at_us=place.clock_us(),
            kind="runtime.tried",
            subject=version,
            explanation=f"{candidate.runtime} with {limits.id} {verdict}: {words}",
        )
    return release


def qualified(store: Store, model: str, version: str, own: Runtime, *, now_us: int) -> None:
    """Keep that `version` passed its gates as answered by `own`, under the serving config in force. A trial stands above it."""
    with store.ledger.write() as connection:
        runtimes.register(connection, own, (), now_us=now_us)
        words = "qualified: every gate was judged by what this runtime answered"
        compatibility.record(connection, model, version, own.id, words, now_us=now_us)


def to_try(store: Store, model: str, runtime: str) -> tuple[str, ...]:
    """The versions that have yet to pass a trial with `runtime` before it may be pushed; none before the model's first plan."""
    with store.ledger.read() as connection:
        plan = traffic_plans.newest_committed(connection, model)
        wanted = () if plan is None else compatibility.versions_to_test(connection, plan.plan)
        return tuple(each for each in wanted if not compatibility.is_tested(connection, model, each, runtime))


def requests(store: Store, model: str, version: str) -> list[str]:
    """The requests of one row that a trial of `version` asks: what callers asked the intended version, where that has the same
    contract, else what callers asked `version`; where nobody did, such as the contract lets through."""
    with store.ledger.read() as connection:
        row = versions.get(connection, version)
    contract = Contract.from_json(read_metadata(blobs.get(store, row.digest)).contract_json)
    with store.ledger.read() as connection:
        plan = traffic_plans.newest(connection, model)
    with store.ledger.read() as connection:
        is_alike = (
            plan is not None and versions.get(connection, plan.intended).contract_hash == row.contract_hash
        )
    asked = requests_of(store, model, plan.intended if plan is not None and is_alike else version, contract)
    return [tensors(contract, each, at) for at, each in enumerate(asked[:ROWS])]


def _plan(store: Store, model: str, version: str, now_us: int) -> int:
    """In the copy `version` answers everything."""
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


def _answers(place: Place, home: Path, number: int, version: str, rows: Sequence[str]) -> list[float]:
    found: list[float] = []
    with Child(place, home / "root") as child, ServerClient(child.server) as client:
        child.wait(lambda status: status["plan"] == number and status["ready"], START_SECONDS)
        for body in rows:
            try:
                answer = client.infer(body)
            except FAILURES as error:
                raise RefusedError("HF403", f"a row was not answered: {error}") from error
            if answer.get("model_version") != version:
                raise RefusedError(
                    "HF403", f"{answer.get('model_version')} answered in the place of {version}"
                )
            found += answer["outputs"][0]["data"]
    return found


# --- push and rollback -----------------------------------------------------------------------------------------------


def push(
    store: Store, model: str, runtime: str, present: Runtime, *, actor: str, reason: str, now_us: int
) -> int:
    """Let `model` be served by `runtime`; the number of the plan. Before the first push stands `present`, what serves now.

    Raises `NotFoundError` HF303 before the model's first plan or for a runtime that is not registered, `RefusedError` HF403
    when it is in force, or did not pass a trial with the serving config in force and each of `tried.answering`.
    """
    with store.ledger.write() as connection:
        before = plan_parts.newest(connection, model, now_us)
        runtimes.get(connection, runtime)
        periods = runtimes.in_force(connection, model)
        if (periods[0][1] if periods else present.id) == runtime:
            raise RefusedError(
                "HF403",
                f"{runtime} is in force already",
                state="nothing was written",
                next_command="holdfast status",
            )
        for version in compatibility.versions_to_test(connection, before):
            compatibility.require_tested(connection, model, version, runtime)
        if not periods:
            runtimes.register(connection, present, (), now_us=now_us)
            traffic_plans.append(connection, replace(before, runtime=present.id), now_us=now_us)
        return _append(connection, model, runtime, PUSHED[Part.RUNTIME], actor, reason, now_us)


def failed(store: Store, model: str, runtime: str, why: str, *, actor: str, now_us: int) -> int | None:
    """Tell that `runtime` could not take over, and return to the one before it; None when it is not in force any more."""
    with store.ledger.write() as connection:
        periods = runtimes.in_force(connection, model)
        if len(periods) < 2 or periods[0][1] != runtime:
            return None
        events.append(
            connection, at_us=now_us, kind=FAILED, subject=model, actor=actor, explanation=f"{runtime}: {why}"
        )
        return _append(connection, model, periods[1][1], ROLLED_BACK[Part.RUNTIME], actor, why, now_us)


def current(connection: Transaction, model: str) -> tuple[int, RuntimeRow] | None:
    """The runtime that the plans of `model` ask for, with the plan that did; None while none does."""
    periods = runtimes.in_force(connection, model)
    return (periods[0][0], runtimes.get(connection, periods[0][1])) if periods else None


def _append(
    connection: Transaction, model: str, runtime: str, kind: str, actor: str, reason: str, now_us: int
) -> int:
    before = plan_parts.newest(connection, model, now_us)
    plan_parts.record(connection, model, kind, f"{runtime} serves: {reason}", actor=actor, now_us=now_us)
    return traffic_plans.append(connection, replace(before, runtime=runtime), now_us=now_us)
