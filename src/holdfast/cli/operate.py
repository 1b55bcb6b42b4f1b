"""Commands that run and watch: serve, control, up, status, feedback."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import threading
import time
from typing import Annotated, Any

import typer
import uvicorn
from rich.markup import escape

from holdfast.cli import supervise
from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.project import Project, now_us
from holdfast.cli.report import Report, moment
from holdfast.control import loop
from holdfast.control.status import status as assemble_status
from holdfast.errors import InputError, NotFoundError, UnavailableError
from holdfast.serve.run import serve_forever
from holdfast.web.app import build_app


@command("Running")
def serve(project: Directory = HERE, declaration: DeclarationFile = None) -> None:
    """Answer requests (Open Inference Protocol v2 over REST) until SIGTERM or Ctrl-C."""
    loaded = Project.load(project, declaration)
    serve_forever(loaded.settings, loaded.model.name)


@command("Running")
def control(project: Directory = HERE, declaration: DeclarationFile = None) -> None:
    """Watch the servers, join labels, carry rollouts on or back, and show the page, until SIGTERM or Ctrl-C."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    loaded = Project.load(project, declaration)
    store = loaded.store()
    settings = loaded.settings
    stopped = threading.Event()
    page = uvicorn.Server(
        uvicorn.Config(
            build_app(store, loaded.model.name, host=settings.host),
            host=settings.host,
            port=settings.page_port,
            log_level="warning",
            access_log=False,
        )
    )
    rounds = threading.Thread(
        target=loop.run,
        args=(store, loaded.model.name),
        kwargs={
            "holder": f"{os.uname().nodename}-{os.getpid()}"[:63],
            "clock_us": now_us,
            "wait": stopped.wait,
        },
        daemon=True,
    )
    rounds.start()
    page.run()
    stopped.set()
    rounds.join(timeout=10)


@command("Running")
def up(project: Directory = HERE, declaration: DeclarationFile = None) -> None:
    """Run server, control loop and page together; start again whichever dies. Ctrl-C ends them all."""
    report = Report(as_json=False)
    loaded = Project.load(project, declaration)
    settings = loaded.settings
    file = [] if declaration is None else ["--file", str(declaration)]
    group = supervise.Group(
        {name: [name, "--project", str(loaded.directory), *file] for name in ("serve", "control")},
        loaded.directory,
    )
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    with group:
        report.say(
            f"model   [bold]{loaded.model.name}[/] at [cyan]http://{settings.host}:{settings.port}/v2/models/{loaded.model.name}[/]"
        )
        report.say(f"page    [cyan]http://{settings.host}:{settings.page_port}/[/]")
        report.say("stop    Ctrl-C")
        while not stopped.wait(0.5):
            for name, status in group.revive(time.monotonic()):
                report.say(f"[yellow]{name} ended with status {status}; started again[/]")


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
        said: dict[str, Any] = json.loads(answer.read() or b"{}")
    except OSError as error:
        raise UnavailableError(
            "HF504",
            f"no server answers at {settings.host}:{settings.port} ({error})",
            state="the feedback was not recorded",
            next_command="holdfast up",
        ) from error
    finally:
        connection.close()
    if answer.status == 404:
        raise NotFoundError(
            "HF505", str(said.get("error", "unknown prediction")), state="the feedback was not recorded"
        )
    if answer.status >= 400:
        raise InputError(
            str(said.get("code", "HF501")),
            str(said.get("error", answer.reason)),
            state="the feedback was not recorded",
        )
    report.say(f"[green]ok[/] recorded {escape(value)} for {escape(prediction)}")
    report.result({"prediction": prediction, "recorded": True})


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
