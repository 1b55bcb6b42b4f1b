"""Run the processes of a model: serve, control, page, up."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from holdfast.cli.app import command
from holdfast.cli.output import escape
from holdfast.cli.processes import supervisor as supervise
from holdfast.cli.processes.supervisor import OWN
from holdfast.cli.project import Project, Run, now_us, with_process
from holdfast.errors import InputError
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
    bool, typer.Option("--when-ready", hidden=True, help="Accept no connection before a version can answer.")
]

_SHOWN_FINDINGS = 5
_LAST_MERGE_SECONDS = 3.0
HOOK_PAUSE_SECONDS = 0.2


@command("Running")
@with_process
def serve(
    run: Run, exit_with_parent: ExitWithParent = None, fd: Fd = None, when_ready: WhenReady = False
) -> None:
    """Serve predictions (Open Inference Protocol v2 over REST) until SIGTERM or Ctrl-C.

    Example: holdfast serve
    """
    from holdfast.serve.server import serve_forever  # each process loads only what it runs

    model = run.model
    supervise.end_with(exit_with_parent)
    run.settings.refuse_unstated_exposure()
    serve_forever(
        run.settings, model.name, listening=fd, when_ready=when_ready, corrections=model.corrections
    )


@command("Running")
@with_process
def control(run: Run, exit_with_parent: ExitWithParent = None) -> None:
    """Run the control loop: collect logs, join labels, advance and roll back rollouts, until SIGTERM or Ctrl-C.

    Example: holdfast control
    """
    from holdfast.cli.commands.drills.drill_workspace import workspace_of
    from holdfast.control import daemon, loop, round_trigger
    from holdfast.control.collect import feed_labels
    from holdfast.control.drills import runner
    from holdfast.control.health.data_incidents import RecoveryMonitor
    from holdfast.control.health.problem_events import ProblemEvents
    from holdfast.control.integrations import cdevents, exporter, openlineage
    from holdfast.control.maintenance import verify
    from holdfast.control.maintenance.compact_collected import CompactCollected
    from holdfast.control.probing.golden import GoldenQueries
    from holdfast.control.reports.metrics import LoopCounters, StatusCollector
    from holdfast.control.reports.status import StatusReader
    from holdfast.control.rollout import webhooks
    from holdfast.serve.operator_log import TextFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter())
    logging.basicConfig(handlers=[handler])
    model, settings = run.model, run.settings
    supervise.end_with(exit_with_parent)
    settings.refuse_unstated_exposure()
    stopped = stop_on_signals()
    store = run.acting_store
    for finding in verify.verify(store, quick=True).findings:
        logging.getLogger("holdfast.control").warning(
            "%s %s: %s; next: %s", finding.code, finding.subject, finding.explanation, finding.next_command
        )
    exports: dict[str, Callable[[], object]] = {}
    if url := settings.openlineage_url:
        exports["exporting to the OpenLineage catalog"] = partial(
            openlineage.export,
            store,
            url,
            namespace=settings.openlineage_namespace,
            api_key=settings.openlineage_key,
        )
    if url := settings.cdevents_url:
        environment = settings.cdevents_environment
        exports["exporting CDEvents"] = partial(cdevents.export, store, url, environment=environment)
    for name, export in exports.items():
        # A thread each, so that a receiver that hangs delays nothing but itself.
        _start(exporter.run, {name: export}, wait=stopped.wait)
    webhooks.declare(store, model.name, model.hooks, now_us=now_us())
    feed_labels.declare_corrections(store, model, now_us=now_us())
    for name, job in webhooks.jobs(store, model.name, model.hooks, clock_us=now_us).items():
        wait = round_trigger.nudged(store.ledger.listen(), stopped)
        _start(exporter.run, {name: job}, wait=wait, pause_seconds=HOOK_PAUSE_SECONDS)
    concerns = daemon.concerns()
    concerns["matching labels by key with predictions"] = feed_labels.FeedLabels(model)
    if model.golden:
        concerns["requesting the golden queries"] = GoldenQueries(model)
    declared = (model.feeds, model.label_delay, model.objective, model.recovery_span, model.silence_span)
    concerns["measuring data incidents"] = RecoveryMonitor(model.recovery_span)
    concerns["reporting problems"] = ProblemEvents(*declared)
    if model.drills is not None:
        concerns["drilling what is due"] = runner.Scheduled(workspace_of(run), model.drills)
    compaction = CompactCollected(now_us)
    if settings.compaction:
        concerns["merging collected files"] = compaction
    counters = LoopCounters()
    reader = StatusReader(store, model.name, *declared)
    _expose(settings, StatusCollector(model.name, lambda: reader.read(now_us=now_us()), counters))
    trigger = round_trigger.RoundTrigger(store, model.name)
    signal.set_wakeup_fd(trigger.sending_end, warn_on_full_buffer=False)
    loop.run(
        store,
        model.name,
        # The process id comes first, so that a long host name cannot truncate it.
        holder=f"{os.getpid()}-{os.uname().nodename}"[:63],
        clock_us=now_us,
        wait=stopped.wait,
        doing=counters.count(concerns),
        trigger=trigger,
        between_rounds=counters.count(daemon.between_rounds()),
    )
    compaction.finish(_LAST_MERGE_SECONDS)


def _expose(settings: Settings, collector: Collector) -> None:
    """Serve metrics in a thread, if a port is set. A port that is taken stops no control loop."""
    if not settings.control_port:
        return
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        start_http_server(settings.control_port, settings.host, registry)
    except OSError as error:
        logging.getLogger("holdfast.control").warning(
            "no metrics at %s:%s: %s; next: set HOLDFAST_CONTROL_PORT to a free port",
            settings.host,
            settings.control_port,
            error.strerror or error,
        )


def _start(target: Callable[..., None], *arguments: object, **options: object) -> None:
    """Run `target` in a daemon thread."""
    threading.Thread(target=target, args=arguments, kwargs=options, daemon=True).start()


@command("Running")
@with_process
def page(run: Run, exit_with_parent: ExitWithParent = None) -> None:
    """Serve the status page, and its JSON at /api/status, until SIGTERM or Ctrl-C.

    Example: holdfast page
    """
    from holdfast.web.run import serve_page

    model = run.model
    supervise.end_with(exit_with_parent)
    run.settings.refuse_unstated_exposure()
    serve_page(
        run.store,
        model.name,
        run.settings,
        feeds=model.feeds,
        label_delay=model.label_delay,
        objective=model.objective,
        recover_within=model.recovery_span,
        silent_after=model.silence_span,
        started=lambda url: run.out.print(f"page at {url}"),
    )


@command("Running")
@with_process
def up(run: Run) -> None:
    """Run server, control loop and page together, and restart those that die. Ctrl-C ends them all.

    Example: holdfast up
    """
    from holdfast.cli.processes import up_lock

    settings = run.settings
    settings.refuse_unstated_exposure()
    with up_lock.hold(settings.root):
        _refuse_taken_ports(settings)
        _ = run.model  # Ctrl-C ends what it reads; from the next line on it ends the processes
        _run_group(run, stop_on_signals())
    run.out.print("stopped")


def _run_group(run: Run, stopped: threading.Event) -> None:
    """Run server, control loop and page until `stopped`."""
    from holdfast.cli.processes.handover import Handover

    out, loaded, settings = run.out, run.project, run.settings
    handover = Handover(loaded, lambda text: out.print(f"[yellow]{escape(text)}[/]"))
    with group_of(loaded, run.declaration, server=handover.first(), shared=True) as group:
        threading.Thread(target=handover.follow, args=(group, stopped), daemon=True).start()
        address = f"http://{settings.host}:{settings.port}"
        _check_store(run)  # while the processes start: it needs none of them, nor do they need it
        out.print(
            f"starting {loaded.model.name}; logs in {escape(str(settings.root))}/*.log; Ctrl-C stops it"
        )
        listening, reported = False, dict[str, supervise.Ended]()
        while not stopped.wait(supervise.POLL_SECONDS):
            if not listening and _is_listening(settings):
                listening = True
                out.print(f"[green]model[/]  [cyan]{address}/v2/models/{loaded.model.name}[/]")
                out.print(f"[green]page[/]   [cyan]http://{settings.host}:{settings.page_port}/[/]")
            for ended in group.revive():
                # One that cannot start ends the same way each time; report it once.
                if reported.get(ended.name) != ended:
                    reported[ended.name] = ended
                    out.print(f"[yellow]{escape(ended.describe())}[/]; it is restarted")


def bound(host: str, port: int) -> socket.socket | None:
    """Return a socket for servers to share; None while the address is taken, which the server then reports."""
    from holdfast.serve.http import listening

    try:
        return listening.bind(host, port)
    except InputError:
        return None


def _refuse_taken_ports(settings: Settings) -> None:
    """Raise `InputError` HF507 if another process has a port: restarting would not help, and callers reach that process."""
    ports = (("server", "HOLDFAST_PORT", settings.port), ("page", "HOLDFAST_PAGE_PORT", settings.page_port))
    for name, setting, port in ports:
        free = bound(settings.host, port) if port else None
        if free is not None:
            free.close()
        elif port:
            raise InputError(
                "HF507",
                f"the {name} cannot listen on {settings.host}:{port}: another process does, or it is another machine's",
                state="nothing was started",
                next_command=f"set {setting} to a free port, then holdfast up",
            )


def _check_store(run: Run) -> None:
    """Print findings in names, sizes and the ledger. Servers start from their own copies nevertheless.

    Another process looks for them, which ends: what it imports is more than `up` takes for the rest of its life.
    """
    file = [] if run.declaration is None else ["--file", str(run.declaration)]
    command = [*OWN, "verify", "--quick", "--json", "--project", str(run.directory), *file]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    try:
        findings = json.loads(ended.stdout)["findings"]
    except (ValueError, KeyError, TypeError):
        words = (ended.stdout + ended.stderr).strip() or f"it ended with status {ended.returncode}"
        run.out.print(f"[yellow]the store could not be verified: {escape(words)}[/]")
        return
    for each in findings[:_SHOWN_FINDINGS]:
        run.out.print(f"[yellow]{each['code']} {escape(each['subject'])}: {escape(each['explanation'])}[/]")
    if findings:
        run.out.print(f"[yellow]{counted(len(findings), 'finding')}[/]; next: [cyan]holdfast verify[/]")


def _is_listening(settings: Settings) -> bool:
    """Return True if server and page accept connections."""
    try:
        for port in (settings.port, settings.page_port):
            socket.create_connection((settings.host, port), timeout=1).close()
    except OSError:
        return False
    return True


def group_of(
    loaded: Project, declaration: Path | None = None, *, server: Sequence[str] = OWN, shared: bool = False
) -> supervise.Group:
    """Return server, control loop and page of a project as one group that has not started yet.

    Parameters
    ----------
    loaded, declaration
        The project, and the file that declares its model.
    server
        The command that starts the server.
    shared
        Whether the group owns the socket that the server listens on. Then a new server process, after a crash or a
        handover, takes over without a refused connection.
    """
    from holdfast.cli.processes.handover import SERVER

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


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and Ctrl-C set."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    return stopped
