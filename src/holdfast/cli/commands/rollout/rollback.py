"""Roll traffic back: through the ledger while it responds, and without it otherwise."""

from __future__ import annotations

import threading
import time
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from holdfast.cli.app import command
from holdfast.cli.commands.rollout.server_rollback import through_server
from holdfast.cli.output import Output, escape
from holdfast.cli.project import UNSTATED, NoWait, Reason, Run, now_us, with_project
from holdfast.control.probing import convergence
from holdfast.control.rollout import rollback as rolling
from holdfast.control.rollout.plan_parts import Part
from holdfast.control.rollout.rollback import Request, RolledBack
from holdfast.errors import (
    HoldfastError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from holdfast.formatting import counted
from holdfast.rollout.model.abort import Abort, banned, is_repeated, permitted, target
from holdfast.serve.follower.local_copy import LocalCopy, LocalState
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.catalog import name_lookup
from holdfast.store.serving import aborts, local_servers, members
from holdfast.store.serving.servers import Server

LEDGER_SECONDS: Final = 3.0
"""How long the ledger may take before the traffic is rolled back without it."""
SEEN_SECONDS: Final = 10.0
"""How long servers may take to converge before the command fails."""
REPLACED_SECONDS: Final = 40.0
"""The same when server processes have to be replaced."""
_SQLITE: Final = "sqlite:///"
_LEDGER_CODES: Final = ("HF205", "HF302", "HF307", "HF309", "HF310")
"""The codes of a ledger that cannot be opened, does not respond, or cannot be written."""


@dataclass(frozen=True, slots=True)
class _Committed:
    """A rollback that the ledger has committed, and when, on the clock of `time.monotonic`."""

    result: RolledBack
    servers: tuple[Server, ...]
    at: float


@command("Versions")
@with_project
def rollback(
    run: Run,
    reason: Reason = UNSTATED,
    version: Annotated[
        str | None,
        typer.Option(
            "--version",
            help="The version that must not answer.",
            show_default="the one being rolled out, else the champion",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server", help="Only roll back the server at this URL, with the token in HOLDFAST_ABORT_TOKEN."
        ),
    ] = None,
    only: Annotated[
        Part | None,
        typer.Option(
            "--only",
            help="The part to roll back.",
            show_default="the version, and what was pushed since its rollout began",
        ),
    ] = None,
    no_wait: NoWait = False,
    ledger_timeout: Annotated[
        float,
        typer.Option(
            "--ledger-timeout", help="Seconds to wait for the ledger; then roll back without it.", min=0.0
        ),
    ] = LEDGER_SECONDS,
) -> None:
    """Return all traffic to the version before, at once. Works in every state, and while the ledger is down.

    Waits until every server that responds was seen to answer with that version. Giving the command again is safe: a
    version that traffic has just returned to is rolled back only if --version names it.

    Example: holdfast rollback --reason "predicts 1.0 for everybody"
    """
    if server is not None:
        through_server(run, server, version, reason)
        return
    settings = run.project.settings
    request = Request(run.model.name, run.actor, reason, version, only)
    attempt = _through_ledger(settings, request, ledger_timeout)
    has_ended = attempt.done()
    error = attempt.exception() if has_ended else None
    if isinstance(error, HoldfastError) and not _is_ledger_unavailable(error):
        raise error
    if has_ended and error is None:
        _print_committed(run.out, attempt.result(), no_wait=no_wait)
        return
    why = f"the ledger did not answer within {ledger_timeout:g} s"
    if error is not None:
        message = error.what if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}"
        why = f"the ledger cannot be used: {message}"
    if only in (Part.SERVING_CONFIG, Part.RUNTIME):
        raise UnavailableError(
            "HF302",
            f"{why}, and a {only} is rolled back only through it",
            state="nothing was changed",
            next_command="the same command again, when the ledger can be reached",
        )
    _without_ledger(run.out, settings, request, why, no_wait=no_wait)


# --- through the ledger -----------------------------------------------------------------------------------------------


def _through_ledger(settings: Settings, request: Request, seconds: float) -> Future[_Committed]:
    """Roll back through the ledger in a thread, because a database may hang; return its state after `seconds`.

    A late attempt may still commit. Then ledger and abort file agree.
    """
    attempt: Future[_Committed] = Future()

    def work() -> None:
        try:
            attempt.set_result(_commit(settings, request))
        except Exception as error:  # a driver may raise anything on a broken ledger
            attempt.set_exception(error)

    if seconds > 0:
        threading.Thread(target=work, daemon=True).start()
        futures.wait([attempt], seconds)
    return attempt


def _commit(settings: Settings, request: Request) -> _Committed:
    path = Path(settings.ledger_url.removeprefix(_SQLITE))
    # Opening would create an empty ledger in place of a lost one, in which nothing was ever rolled out.
    if settings.ledger_url.startswith(_SQLITE) and not path.exists():
        raise UnavailableError(
            "HF302",
            f"the ledger {path} does not exist",
            next_command="holdfast restore BACKUP, or holdfast rebuild-ledger",
        )
    store = Store.of(settings)
    with store.ledger.read() as connection:
        if request.version is not None:
            version = name_lookup.version(connection, request.version, request.model)
            request = replace(request, version=version)
        registered = members.polled(connection, request.model)
    result = rolling.rollback(store, request, now_us=now_us())
    return _Committed(result, registered, time.monotonic())


def _is_ledger_unavailable(error: HoldfastError) -> bool:
    """Return True if `error` means an unusable ledger, not a rule that forbids the rollback."""
    return isinstance(error, UnavailableError | IntegrityError) and error.code in _LEDGER_CODES


def _print_committed(out: Output, committed: _Committed, *, no_wait: bool) -> None:
    result, row = committed.result, committed.result.rollout
    config, runtime = result.returns_to(Part.SERVING_CONFIG), result.returns_to(Part.RUNTIME)
    for step in result.steps:
        out.print(f"[green]decided[/] {escape(step.describe())}; plan {result.plan}")
    if result.dropped is not None:
        out.print(
            f"[yellow]dropped[/] {result.dropped} was queued, and is not rolled out after a rollback; "
            f"next: [cyan]holdfast rollout start {result.dropped}[/], if it should be"
        )
    converged = None
    if not no_wait and result.intended is not None:
        wanted = convergence.on_plan(result.plan, result.intended, serving_config=config, runtime=runtime)
        seconds = SEEN_SECONDS if runtime is None else REPLACED_SECONDS
        converged = convergence.wait(committed.servers, wanted, decided=committed.at, seconds=seconds)
        _print_converged(out, converged)
    out.result(
        {
            "by": "ledger",
            "steps": result.steps,
            "rollout": None if row is None else row.rollout_id,
            "state": None if row is None else row.state,
            "champion": None if row is None else row.champion,
            "challenger": None if row is None else row.challenger,
            "serving_config": config,
            "runtime": runtime,
            "plan": result.plan,
            "dropped": result.dropped,
            **_as_document(converged),
        }
    )
    _end(converged, f"plan {result.plan} is in the ledger")


# --- without the ledger -----------------------------------------------------------------------------------------------


def _without_ledger(out: Output, settings: Settings, request: Request, why: str, *, no_wait: bool) -> None:
    directory = aborts.directory_of(settings.root, request.model)
    abort, is_new = _decide(directory, request, why)
    at = time.monotonic()
    found = local_servers.running(directory)
    converged = None
    if not no_wait:
        seen = convergence.without_version(abort.version, directory)
        converged = convergence.wait(found, seen, decided=at, seconds=SEEN_SECONDS)
    if converged is not None and converged.last_resort and not converged.versions:
        if is_new:
            aborts.remove(directory, [abort])
        raise _no_other(abort, next(iter(converged.last_resort.values())), why)
    out.print(f"[yellow]{escape(why)}[/]")
    out.print(
        f"[green]decided[/] without it: {abort.version} must not answer on this machine under any plan up to rollout "
        f"{abort.rollout_id}"
    )
    if converged is not None:
        _print_converged(out, converged)
    out.print(
        "next: `holdfast up` or `holdfast control` records this rollback when the ledger is back; servers elsewhere: "
        "[cyan]holdfast rollback --server URL[/]"
    )
    out.result(
        {
            "by": "servers",
            "why": why,
            "version": abort.version,
            "rollout": abort.rollout_id,
            **_as_document(converged),
        }
    )
    _end(converged, f"{directory / 'abort.json'} keeps {abort.version} from answering")


def _decide(directory: Path, request: Request, why: str) -> aborts.Added:
    """Abort what the request means by the plan that the servers of this machine stored. Idempotent.

    Raises `RefusedError` HF404 if no version of that plan would be left. Then nothing is written.
    """
    state = LocalCopy(directory).load()
    if state is None:
        raise NotFoundError(
            "HF303",
            f"{why}, and no server of {request.model!r} has left a copy of its plan on this machine",
            state="nothing was changed",
            next_command="holdfast rollback --server URL",
        )
    abort = _abort(directory, state, request, why)

    def fit(version: str, _: str) -> bool:
        return version in state.versions and version not in state.tainted

    def check(standing: tuple[Abort, ...]) -> None:
        carried_out = [each for each in standing if each.version not in state.last_resort]
        if permitted(state.plan, banned([*carried_out, abort], state.plan), fit) is None:
            raise _no_other(abort, "no other version of the plan is left", why)

    return aborts.add(directory, abort, check=check)


def _no_other(abort: Abort, reason: str, why: str) -> RefusedError:
    return RefusedError(
        "HF404",
        f"{abort.version} cannot be replaced: {reason} ({why})",
        state="nothing was changed",
        next_command="holdfast up, and the same command again when the ledger responds",
    )


def _abort(directory: Path, state: LocalState, request: Request, why: str) -> Abort:
    """Return what to abort."""
    known = {*state.plan.versions(), *([state.under_way.challenger] if state.under_way else [])}
    version = request.version and name_lookup.meant(request.version, known)
    if version is not None and version not in known:
        raise NotFoundError(
            "HF303",
            f"{version} has no traffic by the plan that servers stored; they know {', '.join(sorted(known))}",
            state="nothing was changed",
            next_command="holdfast rollback --version VERSION, with one of these",
        )
    abort = abort_of(state, version, request.reason, request.actor)
    version_info = state.versions.get(abort.version)
    repeated = version is None and is_repeated(
        abort.version,
        state.plan,
        state.under_way,
        deployed_us=version_info.deployed_us if version_info else 0,
        rolled_back_us=state.rolled_back_us,
        now_us=abort.at_us,
    )
    if repeated and abort.version not in {each.version for each in aborts.load(directory)}:
        raise RefusedError(
            "HF404",
            f"{why}, and traffic has just returned to {abort.version}: it is rolled back only if it is named",
            state="nothing was changed",
            next_command=f"nothing, or holdfast rollback --version {abort.version}",
        )
    return abort


def abort_of(state: LocalState, version: str | None, reason: str, actor: str) -> Abort:
    """Return the abort of `version`; None: of the version that a rollback would take the traffic from."""
    return Abort(
        version or target(state.plan, state.under_way),
        state.plan.plan_id,
        max(state.rollout_id, state.plan.rollout_id or 0),
        reason,
        actor,
        now_us(),
    )


# --- output -----------------------------------------------------------------------------------------------------------


def _print_converged(out: Output, converged: convergence.Convergence) -> None:
    if converged.has_converged:
        version = ", ".join(sorted(set(converged.versions.values())))
        out.print(
            f"[green]done[/] {counted(len(converged.versions), 'server')} answered a probe with {version} "
            f"{converged.duration_ms:.0f} ms after the decision"
        )
    for name in converged.silent:
        out.print(
            f"[yellow]silent[/] {escape(name)} does not respond; it follows the plan as soon as it runs"
        )


def _as_document(converged: convergence.Convergence | None) -> dict[str, Any]:
    if converged is None:
        return {"done": None}
    return {
        "done": converged.has_converged,
        "duration_ms": converged.duration_ms if converged.has_converged else None,
        "answered": dict(converged.versions),
        "waiting": list(converged.late),
        "silent": list(converged.silent),
    }


def _end(converged: convergence.Convergence | None, state: str) -> None:
    """Raise `UnavailableError` HF409 if servers respond and did not converge; it is no error that none runs."""
    if converged is None or converged.has_converged or not (converged.late or converged.last_resort):
        return
    late = ", ".join([*converged.late, *converged.last_resort])
    raise UnavailableError(
        "HF409",
        f"{late} did not converge in time",
        state=f"the rollback is decided: {state}",
        next_command="holdfast status",
    )
