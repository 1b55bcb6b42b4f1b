"""Test a version with a runtime before the two serve together."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from holdfast.cli.commands.drills.drill_workspace import workspace_of
from holdfast.cli.output import escape
from holdfast.cli.processes.supervisor import OWN
from holdfast.cli.project import Run, now_us
from holdfast.control.http.server_client import FAILURES, ServerClient
from holdfast.control.rollout import compatibility
from holdfast.control.runtimes import runtime as pushing
from holdfast.errors import RefusedError
from holdfast.records import Verdict
from holdfast.store import Store
from holdfast.store.models import runtimes
from holdfast.store.models.runtimes import CompatibilityResult, RuntimeRow
from holdfast.store.serving import members, servers


def compatibility_test(run: Run, name: str, version: str) -> CompatibilityResult:
    """Test `version` with the runtime `name`, print the result and return it."""
    with run.out.progress(f"testing {version} with {name}"):
        found = _run_test(run, name, version)
    colour = "green" if found.verdict is Verdict.PASS else "red"
    run.out.print(
        f"[{colour}]{found.verdict}[/] {found.version} with {found.runtime}: {escape(found.explanation)}"
    )
    return found


def ensure_compatible(run: Run, version: str, *, quiet: bool = False) -> CompatibilityResult | None:
    """Test `version` with the runtime in force unless it passed before; return the result, None if no test was due.

    Raises `RefusedError` HF403 if it fails, because its rollout would be refused. Prints the result unless `quiet`.
    """
    with run.store.ledger.read() as connection:
        name = compatibility.untested_runtime(connection, run.model.name, version)
    if name is None:
        return None
    found = (_run_test if quiet else compatibility_test)(run, name, version)
    with run.store.ledger.read() as connection:
        compatibility.refuse(connection, run.model.name, version)
    return found


def serving(run: Run) -> RuntimeRow:
    """Return the runtime that serves: by the plans, else by what the servers report, else this one."""
    store, model = run.store, run.model.name
    own = RuntimeRow("", runtimes.here(run.settings.build), OWN, 0)
    with store.ledger.write() as connection:
        runtimes.register(connection, own.facts, OWN, now_us=now_us())
        current = runtimes.current(connection, model)
        known = {each.runtime: each for each in runtimes.listed(connection)}
    if current is not None:
        return current[1]
    found = sorted(set(running_in(store, model).values())) or [own.facts.id]
    if unknown := [each for each in found if each not in known]:
        raise RefusedError(
            "HF403",
            f"servers run {unknown[0]}, which is not registered, so that there would be no way back",
            state="nothing was written",
            next_command="holdfast runtime register -- COMMAND, with the command that starts the servers",
        )
    return known[found[0]]


def running_in(store: Store, model: str) -> dict[str, str]:
    """Return the runtime that each server reports, by server; those that do not respond are left out."""
    reported: dict[str, str] = {}
    with store.ledger.read() as connection:
        registered = members.polled(connection, model)
    for server in registered:
        if servers.has_ended(server):
            continue
        try:
            with ServerClient(server) as client:
                found = client.status().get("runtime")
        except FAILURES:
            continue
        if isinstance(found, str):
            reported[server.server] = found
    return reported


def _run_test(run: Run, name: str, version: str) -> CompatibilityResult:
    workspace = workspace_of(run)
    with run.store.ledger.read() as connection:
        candidate = runtimes.get(connection, name)
    reference = _reference(run, candidate, version)
    return pushing.try_out(workspace, version, candidate, reference, workspace.serve[len(OWN) :])


def _reference(run: Run, candidate: RuntimeRow, version: str) -> Sequence[str]:
    """Return the command whose predictions `candidate` must reproduce: that of the runtime that serves.

    If that is the candidate itself: one that the version passed with and that can be started here, else this one.
    """
    present = serving(run)
    if present.runtime != candidate.runtime:
        return present.command or OWN
    with run.store.ledger.read() as connection:
        known = [runtimes.get(connection, each) for each in runtimes.passed(connection, version)]
    others = [each.command for each in known if each.runtime != candidate.runtime and each.command]
    return next((each for each in others if shutil.which(each[0])), OWN)
