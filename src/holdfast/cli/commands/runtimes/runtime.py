"""Push the runtime that serves: runtime list, show, register, test, use."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Annotated, Any, Final

import typer

from holdfast.cli.app import command_group
from holdfast.cli.commands.runtimes.compatibility_check import compatibility_test, running_in, serving
from holdfast.cli.commands.runtimes.serving_config import report
from holdfast.cli.output import JUDGED, escape
from holdfast.cli.project import UNSTATED, NoWait, Reason, Run, now_us, with_directory, with_project
from holdfast.control.probing import convergence
from holdfast.control.runtimes import runtime as pushing
from holdfast.errors import NotFoundError
from holdfast.formatting import timestamp
from holdfast.records import Verdict
from holdfast.store.catalog import name_lookup
from holdfast.store.models import runtimes
from holdfast.store.rollout import traffic_plans
from holdfast.store.serving import members

SEEN_SECONDS: Final = 40.0
"""How long servers may take to be replaced before the command fails."""

group = command_group(
    "runtime", "Running", "The set of Python and package versions that serves: register, test and push it."
)

RuntimeId = Annotated[str, typer.Argument(metavar="RUNTIME", help="The runtime, as in b-1f2e3d4c5b6a.")]


@group.command(name="list")
@with_project
def list_(run: Run) -> None:
    """List the registered runtimes: which is in force, and which servers run which.

    Example: holdfast runtime list
    """
    store, model = run.store, run.model.name
    with store.ledger.read() as connection:
        known = runtimes.listed(connection)
        current = runtimes.current(connection, model)
    wanted = None if current is None else current[1].runtime
    running: dict[str, list[str]] = defaultdict(list)
    for server, found in running_in(store, model).items():
        running[found].append(server)
    rows: list[dict[str, Any]] = [
        {
            "runtime": each.runtime,
            "in_force": each.runtime == wanted,
            "servers": running.get(each.runtime, []),
            "command": list(each.command),
            "facts": dict(each.facts.facts),
            "registered_at_us": each.registered_at_us,
        }
        for each in known
    ]
    run.out.records(
        "Runtimes",
        rows,
        {
            "runtime": lambda row: row["runtime"],
            "in force": lambda row: "yes" if row["in_force"] else "",
            "servers": lambda row: ", ".join(row["servers"]),
            "command": lambda row: " ".join(row["command"]),
            "registered": lambda row: timestamp(row["registered_at_us"]),
        },
    )
    others = {name: names for name, names in running.items() if all(row["runtime"] != name for row in rows)}
    for name, names in others.items():
        run.out.print(f"{escape(', '.join(names))} runs {escape(name)}, which is not registered")
    run.out.result({"runtimes": rows, "unregistered": others})


@group.command()
@with_directory
def show(run: Run) -> None:
    """Print this runtime: the versions of Python and of the libraries that serve requests.

    Example: holdfast runtime show --json
    """
    own = runtimes.here(run.settings.build)
    run.out.table(own.id, ["package", "version"], list(own.facts.items()))
    run.out.result({"runtime": own.id, "facts": dict(own.facts)})


@group.command()
@with_project
def register(
    run: Run,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND...", help="The command that starts it, without `serve`, after `--`."),
    ],
) -> None:
    """Register a runtime: run a command, without a shell, to learn its versions, and store both.

    Example: holdfast runtime register -- /opt/holdfast-0.2/bin/python -m holdfast
    """
    store = run.store
    found = pushing.facts_of(arguments)
    with store.ledger.write() as connection:
        name = runtimes.register(connection, found, arguments, now_us=now_us())
    difference = runtimes.here(run.project.settings.build).difference(found)
    run.out.print(f"[green]{name}[/] {escape(difference) or 'is this runtime'}")
    run.out.result({"runtime": name, "facts": dict(found.facts), "command": arguments})


@group.command(name="test")
@with_project
def compare(
    run: Run,
    name: RuntimeId,
    version: Annotated[
        str | None, typer.Option("--version", help="Test with this version.", show_default="the intended one")
    ] = None,
) -> None:
    """Test a runtime on a copy of the store: replay requests and compare the predictions with those served.

    Exit status 1 if they differ.

    Example: holdfast runtime test b-1f2e3d4c5b6a
    """
    with run.store.ledger.read() as connection:
        name = name_lookup.runtime(connection, name)
    found = compatibility_test(run, name, run.candidate(version) if version else _intended(run))
    run.out.result(
        {
            "runtime": name,
            "version": found.version,
            "serving_config": found.serving_config,
            "verdict": str(found.verdict),
            "explanation": found.explanation,
        }
    )
    if found.verdict is not Verdict.PASS:
        raise typer.Exit(JUDGED)


@group.command()
@with_project
def use(
    run: Run,
    name: RuntimeId,
    reason: Reason = UNSTATED,
    no_wait: NoWait = False,
) -> None:
    """Push a runtime. It is tested first with each version that serves, and refused if the predictions differ.

    `holdfast up` starts it and then stops the old one. `holdfast rollback --only runtime` undoes it.

    Example: holdfast runtime use b-1f2e3d4c5b6a
    """
    store, model = run.store, run.model.name
    present = serving(run)
    with store.ledger.read() as connection:
        name = name_lookup.runtime(connection, name)
        plan = traffic_plans.newest(connection, model)
    if name != present.runtime:
        for version in pushing.to_try(store, model, name):
            compatibility_test(run, name, version)
    with store.ledger.read() as connection:
        registered = members.polled(connection, model)
    number = pushing.push(store, model, name, present.facts, actor=run.actor, reason=reason, now_us=now_us())
    decided = time.monotonic()
    run.out.print(f"[green]decided[/] {name} serves (plan {number})")
    done: dict[str, bool | float | None] = {"done": None, "duration_ms": None}
    if not no_wait and plan is not None:
        seen = convergence.on_plan(number, plan.intended, runtime=name)
        converged = convergence.wait(registered, seen, decided=decided, seconds=SEEN_SECONDS)
        late = f"was not replaced within {SEEN_SECONDS:g} s"
        done = report(
            run.out,
            number,
            converged,
            late,
            "holdfast events; start servers by hand that `holdfast up` does not keep",
        )
    run.out.result({"runtime": name, "plan": number} | done)


def _intended(run: Run) -> str:
    with run.store.ledger.read() as connection:
        plan = traffic_plans.newest(connection, run.model.name)
    if plan is None:
        raise NotFoundError(
            "HF410",
            f"no version of {run.model.name!r} serves yet",
            state="nothing was tested",
            next_command="holdfast rollout start",
        )
    return plan.intended
