"""The command for what servers run with."""

from __future__ import annotations

import getpass
import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.probing import convergence
from holdfast.control.rollout import serving_config as configuring
from holdfast.errors import InputError, UnavailableError
from holdfast.formatting import counted
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store.rollout import traffic_plans
from holdfast.store.serving import servers

SEEN_SECONDS = 10.0
"""How long servers may take to follow before the command says that they do not."""


@command("Running")
def configuration(
    options: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to change, as NAME=VALUE.", show_default="nothing: what is in force is shown"
        ),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept in the ledger.")
    ] = "asked for by a person",
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what servers run with, or push a change of it, which they follow without a restart.

    `holdfast rollback --only configuration` takes it back. Example: holdfast configuration body_bytes=1048576
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    store, model = loaded.store(), loaded.model.name
    with store.ledger.read() as connection:
        limits = configuring.current(connection, model)
    answered = None
    if options:
        limits = ConnectionLimits.of(asdict(limits) | dict(map(_option, options)))
        registered = servers.registered(store, model)
        number = configuring.push(
            store, model, limits, actor=getpass.getuser(), reason=reason, now_us=now_us()
        )
        decided = time.monotonic()
        plan = traffic_plans.newest(store, model)
        assert plan is not None, "a configuration is pushed by a plan"
        seen = convergence.configured(number, limits.id, plan.intended)
        answered = convergence.wait(registered, seen, decided=decided, seconds=SEEN_SECONDS)
        report.say(f"[green]decided[/] servers run with {limits.id} (plan {number})")
        if answered.waiting:
            raise UnavailableError(
                "HF503",
                f"{', '.join(answered.waiting)} did not follow within {SEEN_SECONDS:g} s",
                state=f"plan {number} is in the ledger",
                next_command="holdfast status, or holdfast rollback --only configuration",
            )
        if answered.done:
            report.say(
                f"[green]done[/] {counted(len(answered.answered), 'server')} after {answered.took_ms:.0f} ms"
            )
    usual = asdict(ConnectionLimits())
    report.table(
        limits.id,
        ["option", "value", "default"],
        [(name, value, usual[name]) for name, value in asdict(limits).items()],
    )
    report.result(
        {
            "configuration": limits.id,
            "options": asdict(limits),
            "done": None if answered is None else answered.done,
            "took_ms": answered.took_ms if answered is not None and answered.done else None,
        }
    )


def _option(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), json.loads(value)
    except ValueError as error:
        raise InputError(
            "HF103",
            f"{text!r} is not NAME=NUMBER",
            state="nothing was changed",
            next_command="holdfast configuration --help",
        ) from error
