"""Show and push the serving config: serving-config get, serving-config set."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from holdfast.cli.app import command_group
from holdfast.cli.output import Output
from holdfast.cli.project import UNSTATED, Reason, Run, misused, now_us, with_project
from holdfast.control.probing import convergence
from holdfast.control.probing.convergence import Convergence
from holdfast.control.rollout import plan_parts
from holdfast.errors import UnavailableError
from holdfast.formatting import counted
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store.rollout import traffic_plans
from holdfast.store.serving import members

SEEN_SECONDS = 10.0
"""How long servers may take to apply a change before the command fails."""


group = command_group("serving-config", "Running", "The limits of servers: show and push them.")


@group.command()
@with_project
def get(run: Run) -> None:
    """Show the serving config in force.

    Example: holdfast serving-config get
    """
    with run.store.ledger.read() as connection:
        limits = plan_parts.serving_config_in_force(connection, run.model.name)
    _print(run.out, limits)
    run.out.result(_as_document(limits))


@group.command(name="set")
@with_project
def set_(
    run: Run,
    options: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help="The limits to change.")],
    reason: Reason = UNSTATED,
) -> None:
    """Push a change of the serving config. Servers apply it without a restart.

    `holdfast rollback --only serving-config` undoes it.

    Example: holdfast serving-config set body_bytes=1048576
    """
    store, model = run.store, run.model.name
    with store.ledger.read() as connection:
        limits = plan_parts.serving_config_in_force(connection, model)
        registered = members.polled(connection, model)
    limits = ConnectionLimits.of(asdict(limits) | dict(map(_option, options)))
    number = plan_parts.push_serving_config(
        store, model, limits, actor=run.actor, reason=reason, now_us=now_us()
    )
    decided = time.monotonic()
    with store.ledger.read() as connection:
        plan = traffic_plans.newest(connection, model)
    assert plan is not None, "a serving config is pushed by a plan"
    seen = convergence.on_plan(number, plan.intended, serving_config=limits.id)
    converged = convergence.wait(registered, seen, decided=decided, seconds=SEEN_SECONDS)
    run.out.print(f"[green]decided[/] servers run with {limits.id} (plan {number})")
    late = f"did not apply it within {SEEN_SECONDS:g} s"
    done = report(
        run.out, number, converged, late, "holdfast status, or holdfast rollback --only serving-config"
    )
    _print(run.out, limits)
    run.out.result(_as_document(limits) | {"plan": number} | done)


def report(
    out: Output, plan: int, converged: Convergence, late: str, next_command: str
) -> dict[str, bool | float | None]:
    """Print that the servers follow `plan`, and return it as fields of a result.

    Raises `UnavailableError` HF409 if servers are `late`, the words for what they did not do; it names `next_command`.
    """
    if converged.late:
        raise UnavailableError(
            "HF409",
            f"{', '.join(converged.late)} {late}",
            state=f"plan {plan} is in the ledger",
            next_command=next_command,
        )
    if not converged.has_converged:
        return {"done": False, "duration_ms": None}
    out.print(
        f"[green]done[/] {counted(len(converged.versions), 'server')} after {converged.duration_ms:.0f} ms"
    )
    return {"done": True, "duration_ms": converged.duration_ms}


def _print(out: Output, limits: ConnectionLimits) -> None:
    usual = asdict(ConnectionLimits())
    out.table(
        limits.id,
        ["option", "value", "default"],
        [(name, value, usual[name]) for name, value in asdict(limits).items()],
    )


def _as_document(limits: ConnectionLimits) -> dict[str, Any]:
    return {"serving_config": limits.id, "options": limits}


def _option(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), json.loads(value)
    except ValueError as error:
        raise misused(f"{text!r} is not NAME=NUMBER", "holdfast serving-config set --help") from error
