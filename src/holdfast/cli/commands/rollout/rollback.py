"""The command that gives traffic back: through the ledger while it answers, and without it when it does not."""

from __future__ import annotations

import getpass
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.commands.rollout.server_rollback import through_server
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.probing import convergence
from holdfast.control.rollout import reconcile as rolling
from holdfast.control.rollout import serving_config as configuring
from holdfast.control.runtimes import runtime as pushing
from holdfast.errors import (
    HoldfastError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from holdfast.formatting import counted
from holdfast.rollout.model.abort import Abort, is_repeated, target
from holdfast.serve.follower.local_copy import Kept, LocalCopy
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.catalog import name_lookup
from holdfast.store.rollout import rollouts, traffic_plans
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.serving import aborts, local_servers, servers
from holdfast.store.serving.servers import Server

LEDGER_SECONDS: Final = 3.0
"""How long the ledger may take before the traffic is taken back without it."""
SEEN_SECONDS: Final = 10.0
"""How long servers may take to obey before the command says that they do not."""
REPLACED_SECONDS: Final = 40.0
"""The same when servers have to be replaced by others."""
_SQLITE: Final = "sqlite:///"


@dataclass(frozen=True, slots=True)
class _Decided:
    """A roll-back that the ledger has committed, and when that was on the clock of `time.monotonic`."""

    row: RolloutRow | None
    configuration: str | None
    binary: str | None
    plan: int
    version: str | None
    servers: tuple[Server, ...]
    at: float


class Part(StrEnum):
    """What a push may consist of."""

    MODEL = "model"
    SERVING_CONFIG = "serving-config"
    RUNTIME = "runtime"


@dataclass(slots=True)
class _Attempt:
    decided: _Decided | None = None
    error: Exception | None = None


@command("Versions")
def rollback(
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept in the ledger.")
    ] = "asked for by a person",
    version: Annotated[
        str | None,
        typer.Option(
            "--version",
            help="The version that must not answer.",
            show_default="what is being rolled out, else the champion",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server", help="Only ask the server at this URL, by the token in HOLDFAST_ABORT_TOKEN."
        ),
    ] = None,
    only: Annotated[
        Part | None,
        typer.Option(
            "--only", help="What to take back.", show_default="all that was pushed with the version, or since"
        ),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Only decide; do not wait until servers were seen to obey.")
    ] = False,
    ledger_timeout: Annotated[
        float,
        typer.Option(
            "--ledger-timeout", help="After how long the ledger is done without; 0 at once.", min=0.0
        ),
    ] = LEDGER_SECONDS,
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Give all traffic back to the version before. Works from every state, at once, and while the ledger is down.

    Done means that every server that answers was seen to answer with the intended version. Example:
    holdfast rollback --reason "answers 1.0 for everybody"

    Asking again does no harm: what another version has just given way to is taken back only by --version.
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    model, settings = loaded.model.name, loaded.settings
    if server is not None:
        through_server(report, settings, server, version, reason)
        return
    attempt = _through_ledger(settings, model, version, reason, only, ledger_timeout)
    if attempt.decided is not None:
        _tell_ledger(report, attempt.decided, no_wait=no_wait)
        return
    if isinstance(attempt.error, HoldfastError) and not _is_ledgers(attempt.error):
        raise attempt.error
    why = (
        f"the ledger did not answer within {ledger_timeout:g} s"
        if attempt.error is None
        else f"the ledger cannot be used: {_words(attempt.error)}"
    )
    if only in (Part.SERVING_CONFIG, Part.RUNTIME):
        raise UnavailableError(
            "HF302",
            f"{why}, and a {only} is taken back through it alone",
            state="nothing was changed",
            next_command="the same command again, when the ledger can be reached",
        )
    _without_ledger(report, settings, model, version, reason, why, no_wait=no_wait)


# --- through the ledger -----------------------------------------------------------------------------------------------


def _through_ledger(
    settings: Settings, model: str, version: str | None, reason: str, only: Part | None, seconds: float
) -> _Attempt:
    """Try it in a thread that may hang for as long as a database can; what is known of it after `seconds`.

    One that is late may still commit: then ledger and abort say the same.
    """
    attempt = _Attempt()

    def work() -> None:
        try:
            attempt.decided = _decide(settings, model, version, reason, only)
        except Exception as error:  # whatever a driver raises on a ledger in trouble; it is told below
            attempt.error = error

    if seconds > 0:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(seconds)
    return attempt


def _decide(settings: Settings, model: str, version: str | None, reason: str, only: Part | None) -> _Decided:
    path = Path(settings.ledger_url.removeprefix(_SQLITE))
    # Opening would make an empty ledger in the place of a lost one, in which nothing was ever rolled out.
    if settings.ledger_url.startswith(_SQLITE) and not path.exists():
        raise UnavailableError(
            "HF302",
            f"the ledger {path} is not there",
            next_command="holdfast restore BACKUP, or holdfast repair-ledger",
        )
    store = Store.of(settings)
    version = version and name_lookup.version(store, version, model)
    registered = servers.registered(store, model)
    who = {"actor": getpass.getuser(), "reason": reason}
    row, since = None, 0
    if only in (None, Part.MODEL):
        number = rolling.roll_back(store, model, now_us=now_us(), version=version, **who)
        row = rollouts.get(store, number)
        with store.ledger.read() as connection:
            before = traffic_plans.before_rollout_in(connection, model, row.rollout)
        since = 0 if before is None else before.plan.plan
    configured = replaced = None
    if only in (None, Part.SERVING_CONFIG):
        configured = configuring.roll_back(store, model, now_us=now_us(), since_plan=since, **who)
    if only in (None, Part.RUNTIME):
        replaced = pushing.roll_back(store, model, now_us=now_us(), since_plan=since, **who)
    if row is None and configured is None and replaced is None:
        raise RefusedError(
            "HF404",
            f"no {only} of {model!r} was pushed",
            state="nothing was written",
            next_command="holdfast status",
        )
    at = time.monotonic()
    plan = traffic_plans.newest(store, model)
    number, answers = (0, None) if plan is None else (plan.plan, plan.intended)
    running = None if plan is None or configured is None else plan.configuration
    binary = None if plan is None or replaced is None else plan.binary
    return _Decided(row, running, binary, number, answers, registered, at)


def _is_ledgers(error: HoldfastError) -> bool:
    """Whether `error` says that the ledger is away, and not that it forbids the roll-back."""
    return isinstance(error, UnavailableError | IntegrityError) and error.code in ("HF302", "HF205", "HF307")


def _tell_ledger(report: Report, decided: _Decided, *, no_wait: bool) -> None:
    row, returned = decided.row, None
    if not no_wait and decided.version is not None:
        wanted = convergence.under(decided.plan, decided.version)
        if decided.configuration is not None:
            wanted = convergence.configured(decided.plan, decided.configuration, decided.version)
        if decided.binary is not None:
            wanted = convergence.both(
                wanted, convergence.as_binary(decided.plan, decided.binary, decided.version)
            )
        seconds = SEEN_SECONDS if decided.binary is None else REPLACED_SECONDS
        returned = convergence.wait(decided.servers, wanted, decided=decided.at, seconds=seconds)
    if row is not None:
        report.say(
            f"[green]decided[/] rollout {row.rollout} of {row.challenger} is {row.state}: traffic returns to "
            f"{decided.version or 'the version before'} (plan {decided.plan})"
        )
    if decided.configuration is not None:
        report.say(f"[green]decided[/] servers run with {decided.configuration} again (plan {decided.plan})")
    if decided.binary is not None:
        report.say(f"[green]decided[/] servers are {decided.binary} again (plan {decided.plan})")
    if returned is not None:
        _say_returned(report, returned)
    report.result(
        {
            "by": "ledger",
            "rollout": None if row is None else row.rollout,
            "state": None if row is None else row.state,
            "champion": None if row is None else row.champion,
            "challenger": None if row is None else row.challenger,
            "serving_config": decided.configuration,
            "runtime": decided.binary,
            "plan": decided.plan,
            **_as_document(returned),
        }
    )
    _end(returned, f"plan {decided.plan} is in the ledger")


# --- without the ledger -----------------------------------------------------------------------------------------------


def _without_ledger(
    report: Report,
    settings: Settings,
    model: str,
    version: str | None,
    reason: str,
    why: str,
    *,
    no_wait: bool,
) -> None:
    directory = aborts.directory_of(settings.root, model)
    abort = aborts.add(directory, _abort(directory, model, version, reason, why))
    at = time.monotonic()
    found = local_servers.running(directory)
    returned = None
    if not no_wait:
        seen = convergence.without(abort.version, directory)
        returned = convergence.wait(found, seen, decided=at, seconds=SEEN_SECONDS)
    if returned is not None and returned.held and not returned.answered:
        aborts.remove(directory, [abort])
        raise RefusedError(
            "HF404",
            f"{abort.version} cannot be done without: {next(iter(returned.held.values()))} ({why})",
            state=f"{abort.version} goes on answering",
            next_command="holdfast up, and the same command again when the ledger answers",
        )
    report.say(f"[yellow]{escape(why)}[/]")
    report.say(
        f"[green]decided[/] without it: {abort.version} must not answer on this machine, whatever a plan of the rollouts "
        f"up to {abort.rollout} says"
    )
    if returned is not None:
        _say_returned(report, returned)
    report.say(
        "next: when the ledger is back, `holdfast up` or `holdfast control` writes this roll-back into it; servers elsewhere: "
        "[cyan]holdfast rollback --server URL[/]"
    )
    report.result(
        {
            "by": "servers",
            "why": why,
            "version": abort.version,
            "rollout": abort.rollout,
            **_as_document(returned),
        }
    )
    _end(returned, f"{directory / 'abort.json'} keeps {abort.version} from answering")


def _abort(directory: Path, model: str, version: str | None, reason: str, why: str) -> Abort:
    """What to abort, by what the servers of this machine kept; asking again for what stands gives it again."""
    kept = LocalCopy(directory).load()
    if kept is None:
        raise NotFoundError(
            "HF303",
            f"{why}, and no server of {model!r} has left a copy of its plan on this machine",
            state="nothing was changed",
            next_command="holdfast rollback --server URL",
        )
    known = {*kept.plan.versions(), *([kept.under_way.challenger] if kept.under_way else [])}
    version = version and name_lookup.meant(version, known)
    if version is not None and version not in known:
        raise NotFoundError(
            "HF303",
            f"{version} has no traffic by the plan that servers kept; they know {', '.join(sorted(known))}",
            state="nothing was changed",
            next_command="holdfast rollback --version with one of these",
        )
    abort = abort_of(kept, version, reason, getpass.getuser())
    told = kept.versions.get(abort.version)
    repeated = version is None and is_repeated(
        abort.version,
        kept.plan,
        kept.under_way,
        deployed_us=told.deployed_us if told else 0,
        rolled_back_us=kept.rolled_back_us,
        now_us=abort.at_us,
    )
    if repeated and abort.version not in {each.version for each in aborts.load(directory)}:
        raise RefusedError(
            "HF404",
            f"{why}, and traffic has just gone back to {abort.version}: it is not taken back unless it is named",
            state="nothing was changed",
            next_command=f"nothing, or holdfast rollback --version {abort.version}",
        )
    return abort


def abort_of(kept: Kept, version: str | None, reason: str, actor: str) -> Abort:
    """The abort of `version`, or of what a roll-back would take the traffic from, under what servers kept."""
    return Abort(
        version or target(kept.plan, kept.under_way),
        kept.plan.plan,
        max(kept.rollout, kept.plan.rollout or 0),
        reason,
        actor,
        now_us(),
    )


# --- words ------------------------------------------------------------------------------------------------------------


def _say_returned(report: Report, returned: convergence.Obedience) -> None:
    if returned.done:
        version = ", ".join(sorted(set(returned.answered.values())))
        report.say(
            f"[green]done[/] {counted(len(returned.answered), 'server')} answered a probe with {version} "
            f"{returned.took_ms:.0f} ms after the decision"
        )
    for name in returned.silent:
        report.say(f"[yellow]silent[/] {escape(name)} says nothing; it obeys as soon as it runs")


def _as_document(returned: convergence.Obedience | None) -> dict[str, Any]:
    if returned is None:
        return {"done": None}
    return {
        "done": returned.done,
        "took_ms": returned.took_ms if returned.done else None,
        "answered": dict(returned.answered),
        "waiting": list(returned.waiting),
        "silent": list(returned.silent),
    }


def _end(returned: convergence.Obedience | None, state: str) -> None:
    """Exit as the command ended: it is an error that servers answer and do not obey, not that none runs."""
    if returned is None or returned.done or not (returned.waiting or returned.held):
        return
    late = ", ".join([*returned.waiting, *returned.held])
    raise UnavailableError(
        "HF503",
        f"{late} did not answer as intended in time",
        state=f"it is decided: {state}",
        next_command="holdfast status",
    )


def _words(error: Exception) -> str:
    return error.what if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}"
