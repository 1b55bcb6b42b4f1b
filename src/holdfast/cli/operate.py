"""Commands that run and watch: serve, control, up, status, feedback."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from holdfast.cli import supervise
from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.project import Project, now_us
from holdfast.cli.report import Report, moment
from holdfast.control import loop
from holdfast.control.status import status as assemble_status
from holdfast.errors import CODES, HoldfastError, InputError, NotFoundError, UnavailableError
from holdfast.serve.run import serve_forever
from holdfast.web.run import serve_page

Supervisor = Annotated[
    int | None,
    typer.Option("--supervisor", hidden=True, help="End when this process is no longer the parent."),
]


@command("Running")
def serve(
    project: Directory = HERE, declaration: DeclarationFile = None, supervisor: Supervisor = None
) -> None:
    """Answer requests (Open Inference Protocol v2 over REST) until SIGTERM or Ctrl-C."""
    loaded = Project.load(project, declaration)
    supervise.end_with(supervisor)
    serve_forever(loaded.settings, loaded.model.name)


@command("Running")
def control(
    project: Directory = HERE, declaration: DeclarationFile = None, supervisor: Supervisor = None
) -> None:
    """Watch the servers, join labels, carry rollouts on or back, until SIGTERM or Ctrl-C."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    loaded = Project.load(project, declaration)
    supervise.end_with(supervisor)
    stopped = _stop_on_signals()
    loop.run(
        loaded.store(),
        loaded.model.name,
        # The process comes first: it is what must not be cut off from a long name.
        holder=f"{os.getpid()}-{os.uname().nodename}"[:63],
        clock_us=now_us,
        wait=stopped.wait,
    )


@command("Running")
def page(
    project: Directory = HERE, declaration: DeclarationFile = None, supervisor: Supervisor = None
) -> None:
    """Show the page (and its JSON at /api/status) until SIGTERM or Ctrl-C."""
    loaded = Project.load(project, declaration)
    supervise.end_with(supervisor)
    report = Report(as_json=False)
    serve_page(
        loaded.store(), loaded.model.name, loaded.settings, started=lambda url: report.say(f"page at {url}")
    )


@command("Running")
def up(project: Directory = HERE, declaration: DeclarationFile = None) -> None:
    """Run server, control loop and page together; start again whichever dies. Ctrl-C ends them all."""
    report = Report(as_json=False)
    loaded = Project.load(project, declaration)
    settings = loaded.settings
    stopped = _stop_on_signals()
    with group_of(loaded, declaration) as group:
        address = f"http://{settings.host}:{settings.port}/v2/models/{loaded.model.name}"
        report.say(f"model   [bold]{loaded.model.name}[/] at [cyan]{address}[/]")
        report.say(f"page    [cyan]http://{settings.host}:{settings.page_port}/[/]")
        report.say(f"logs    {escape(str(settings.root))}/*.log")
        report.say("stop    Ctrl-C")
        told: dict[str, supervise.Ended] = {}
        while not stopped.wait(supervise.WATCH_SECONDS):
            for ended in group.revive():
                # One that cannot start says the same each time; once is enough.
                if told.get(ended.name) != ended:
                    told[ended.name] = ended
                    words = f"{ended.name} ended with status {ended.status}: {ended.last_words}"
                    report.say(f"[yellow]{escape(words)}[/]; it is started again")


def group_of(loaded: Project, declaration: Path | None = None) -> supervise.Group:
    """Server, control loop and page of a project, as one group that has not started yet."""
    file = [] if declaration is None else ["--file", str(declaration)]
    commands = {
        name: [name, "--project", str(loaded.directory), *file] for name in ("serve", "control", "page")
    }
    return supervise.Group(commands, loaded.settings.root)


def _stop_on_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    return stopped


@command("Running")
def status(
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """What is loaded, which version answers, what the rollout shows, how good the answers are."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    document = assemble_status(loaded.store(), loaded.model.name, now_us=now_us())
    _print_status(report, document)
    report.result(document)


@command("Running")
def feedback(
    prediction: Annotated[str, typer.Argument(help="The prediction id that came with the answer.")],
    value: Annotated[
        str, typer.Argument(help="What turned out to be true: true, false, or a number from 0 to 1.")
    ],
    source: Annotated[str, typer.Option("--source", help="Who says so.")] = "cli",
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell the server what turned out to be true for one answer."""
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    settings = loaded.settings
    body = json.dumps({"id": prediction, "value": _label(value), "source": source})
    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=10)
    try:
        connection.request(
            "POST", f"/v2/models/{loaded.model.name}/feedback", body, {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        said: dict[str, Any] = dict(json.loads(answer.read() or b"{}"))
    except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
        raise UnavailableError(
            "HF504",
            f"no Holdfast server answers at {settings.host}:{settings.port} ({str(error) or type(error).__name__})",
            state="the feedback was not recorded",
            next_command="holdfast up",
        ) from error
    finally:
        connection.close()
    if answer.status >= 400:
        raise _refusal(answer.status, str(said.get("code", "")), str(said.get("error", answer.reason)))
    report.say(f"[green]ok[/] recorded {escape(value)} for {escape(prediction)}")
    report.result({"prediction": prediction, "recorded": True})


def _refusal(status: int, code: str, words: str) -> HoldfastError:
    """The server's refusal of feedback as the error that the command ends with."""
    kind = NotFoundError if status == 404 else UnavailableError if status >= 500 else InputError
    known = code if code in CODES else "HF504" if status >= 500 else "HF501"
    return kind(known, words, state="the feedback was not recorded")


def _label(text: str) -> float:
    named = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
    if text.lower() in named:
        return named[text.lower()]
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0.0 <= number <= 1.0:
        raise InputError(
            "HF501",
            f"{text!r} is not a label: use true, false, or a number from 0 to 1",
            state="nothing was sent",
        )
    return number


def _print_status(report: Report, document: dict[str, Any]) -> None:
    plan = document["plan"]
    report.say(f"model [bold]{document['model']}[/]")
    if plan is None:
        report.say("no version has been rolled out; next: holdfast rollout")
    else:
        share = (
            f", challenger {plan['challenger']} at {plan['share_ppm'] / 10_000:g} %"
            if plan["challenger"]
            else ""
        )
        report.say(f"champion [bold]{plan['champion']}[/]{share} (plan {plan['plan']})")
    for server in document["servers"]:
        report.say(
            f"server {server['server']} at {server['address']}: {server['verdict']} - {escape(server['explanation'])}"
        )
    report.table(
        "Versions",
        ["version", "role", "state", "AUC", "labelled", "requests"],
        [
            (row["version"], row["role"], row["state"], row["auc"], row["labelled"], row["requests"])
            for row in document["versions"]
        ],
    )
    report.table(
        "Events",
        ["when", "what", "subject", "who", "why"],
        [
            (moment(row["at_us"]), row["kind"], row["subject"], row["actor"], row["explanation"])
            for row in document["events"][:10]
        ],
    )
