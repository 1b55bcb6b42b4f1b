"""Commands that run: serve, control, page, up."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.options import HERE, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.processes import supervisor as supervise
from holdfast.cli.processes.handover import OWN, SERVER, Succession, bound
from holdfast.cli.project import Project, now_us
from holdfast.errors import HoldfastError
from holdfast.formatting import counted
from holdfast.settings import Settings

ExitWithParent = Annotated[
    int | None,
    typer.Option(
        "--exit-with-parent", hidden=True, help="Exit when the process with this id is no longer the parent."
    ),
]

Fd = Annotated[
    int | None,
    typer.Option("--fd", hidden=True, help="Listen on the shared socket with this file descriptor."),
]
WhenReady = Annotated[
    bool, typer.Option("--when-ready", hidden=True, help="Take no connection before a version can answer it.")
]

_SHOWN_FINDINGS = 5


@command("Running")
def serve(
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    exit_with_parent: ExitWithParent = None,
    fd: Fd = None,
    when_ready: WhenReady = False,
) -> None:
    """Answer requests (Open Inference Protocol v2 over REST) until SIGTERM or Ctrl-C."""
    from holdfast.serve.server import serve_forever  # each process loads only what it runs

    loaded = Project.load(project, declaration)
    supervise.end_with(exit_with_parent)
    serve_forever(loaded.settings, loaded.model.name, listening=fd, when_ready=when_ready)


@command("Running")
def control(
    project: Directory = HERE, declaration: DeclarationFile = None, exit_with_parent: ExitWithParent = None
) -> None:
    """Watch the servers, join labels, carry rollouts on or back, until SIGTERM or Ctrl-C."""
    from holdfast.cli.commands.drills.drill_workspace import place_of
    from holdfast.control import daemon, loop
    from holdfast.control.drills import runner
    from holdfast.control.integrations import cdevents, exporter, openlineage
    from holdfast.control.maintenance import verify
    from holdfast.control.rollout import webhooks

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    loaded = Project.load(project, declaration)
    supervise.end_with(exit_with_parent)
    stopped = _stop_on_signals()
    store = loaded.store()
    for finding in verify.verify(store, quick=True).findings:
        logging.getLogger("holdfast.control").warning(
            "%s %s: %s; next: %s", finding.code, finding.subject, finding.explanation, finding.next_command
        )
    exports: dict[str, Callable[[], object]] = {}
    if url := loaded.settings.openlineage_url:
        exports["exporting to the OpenLineage catalog"] = partial(openlineage.export, store, url)
    if url := loaded.settings.cdevents_url:
        environment = loaded.settings.cdevents_environment
        exports["exporting CDEvents"] = partial(cdevents.export, store, url, environment=environment)
    for name, export in exports.items():
        # A thread each, so that a receiver that hangs delays nothing but itself.
        threading.Thread(
            target=exporter.run, args=({name: export},), kwargs={"wait": stopped.wait}, daemon=True
        ).start()
    webhooks.declare(store, loaded.model.name, loaded.model.hooks, now_us=now_us())
    if loaded.model.hooks:
        threading.Thread(
            target=webhooks.run,
            args=(store, loaded.model.name, loaded.model.hooks),
            kwargs={"clock_us": now_us, "wait": stopped.wait},
            daemon=True,
        ).start()
    doing = daemon.concerns()
    if loaded.model.drills is not None:
        doing["drilling what is due"] = runner.Scheduled(place_of(loaded, declaration), loaded.model.drills)
    loop.run(
        store,
        loaded.model.name,
        # The process comes first: it is what must not be cut off from a long name.
        holder=f"{os.getpid()}-{os.uname().nodename}"[:63],
        clock_us=now_us,
        wait=stopped.wait,
        doing=doing,
    )


@command("Running")
def page(
    project: Directory = HERE, declaration: DeclarationFile = None, exit_with_parent: ExitWithParent = None
) -> None:
    """Show the page (and its JSON at /api/status) until SIGTERM or Ctrl-C."""
    from holdfast.web.run import serve_page

    loaded = Project.load(project, declaration)
    supervise.end_with(exit_with_parent)
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
    _look_at_the_store(loaded, report)
    succession = Succession(loaded, lambda words: report.say(f"[yellow]{escape(words)}[/]"))
    with group_of(loaded, declaration, server=succession.first(), shared=True) as group:
        threading.Thread(target=succession.follow, args=(group, stopped), daemon=True).start()
        address = f"http://{settings.host}:{settings.port}"
        report.say(
            f"starting {loaded.model.name}; logs in {escape(str(settings.root))}/*.log; Ctrl-C stops it"
        )
        listening, told = False, dict[str, supervise.Ended]()
        while not stopped.wait(supervise.WATCH_SECONDS):
            if not listening and _listens(settings):
                listening = True
                report.say(f"[green]model[/]  [cyan]{address}/v2/models/{loaded.model.name}[/]")
                report.say(f"[green]page[/]   [cyan]http://{settings.host}:{settings.page_port}/[/]")
            for ended in group.revive():
                # One that cannot start says the same each time; once is enough.
                if told.get(ended.name) != ended:
                    told[ended.name] = ended
                    report.say(f"[yellow]{escape(ended.words)}[/]; it is started again")
    report.say("stopped")


def _look_at_the_store(loaded: Project, report: Report) -> None:
    """Say what is wrong with names, sizes and the ledger. Servers answer from their own copies all the same."""
    from holdfast.control.maintenance import verify

    try:
        findings = verify.verify(loaded.store(), quick=True).findings
    except HoldfastError as error:
        report.say(f"[yellow]{escape(str(error))}[/]")
        return
    for finding in findings[:_SHOWN_FINDINGS]:
        report.say(f"[yellow]{finding.code} {escape(finding.subject)}: {escape(finding.explanation)}[/]")
    if findings:
        report.say(f"[yellow]{counted(len(findings), 'finding')}[/]; next: [cyan]holdfast verify[/]")


def _listens(settings: Settings) -> bool:
    """Whether server and page can be reached."""
    try:
        for port in (settings.port, settings.page_port):
            socket.create_connection((settings.host, port), timeout=1).close()
    except OSError:
        return False
    return True


def group_of(
    loaded: Project, declaration: Path | None = None, *, server: Sequence[str] = OWN, shared: bool = False
) -> supervise.Group:
    """Server, control loop and page of a project, as one group that has not started yet.

    `server` is the command that starts the server; with `shared` the group holds the socket that it listens on, so that
    another can take its place, or the same after a crash, without a connection being refused.
    """
    settings = loaded.settings
    file = [] if declaration is None else ["--file", str(declaration)]
    commands = {
        name: [name, "--project", str(loaded.directory), *file] for name in ("serve", "control", "page")
    }
    return supervise.Group(
        commands,
        settings.root,
        programs={SERVER: server},
        listening=(lambda: bound(settings.host, settings.port)) if shared and settings.port else None,
    )


def _stop_on_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    return stopped
