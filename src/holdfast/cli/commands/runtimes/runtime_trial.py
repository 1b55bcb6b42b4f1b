"""Trying a version with a binary before the two serve together, by whichever command brings them together."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.markup import escape

from holdfast.cli.commands.drills.drill_workspace import place_of
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.http.server_client import FAILURES, ServerClient
from holdfast.control.rollout import compatibility
from holdfast.control.runtimes import runtime as pushing
from holdfast.errors import RefusedError
from holdfast.records import Verdict
from holdfast.store import Store
from holdfast.store.models import runtimes
from holdfast.store.models.runtimes import BinaryRow, Release
from holdfast.store.serving import servers

OWN: Final = (sys.executable, "-m", "holdfast")
"""The command that runs this binary."""


def trying(report: Report, loaded: Project, declaration: Path | None, name: str, version: str) -> Release:
    """Try `version` with the binary called `name`, show it, and say what came of it."""
    with report.progress(f"trying {version} with {name}"):
        found = _try_out(loaded, declaration, name, version)
    _say(report, found)
    return found


def try_when_due(
    loaded: Project, declaration: Path | None, version: str, report: Report | None = None
) -> Release | None:
    """Try `version` with the binary in force unless it has passed with it; what came of it, None when nothing was to be tried.

    Raises `RefusedError` HF403 when it does not pass: a rollout would be refused for it. A `report` is told of the trial.
    """
    store, model = loaded.store(), loaded.model.name
    with store.ledger.read() as connection:
        name = compatibility.lacking(connection, model, version)
    if name is None:
        return None
    found = (
        _try_out(loaded, declaration, name, version)
        if report is None
        else trying(report, loaded, declaration, name, version)
    )
    with store.ledger.read() as connection:
        compatibility.refuse(connection, model, version)
    return found


def serving(loaded: Project) -> BinaryRow:
    """What serves now: what the plans ask for, else what the servers say that they are, else what this command is."""
    store, model = loaded.store(), loaded.model.name
    own = BinaryRow("", runtimes.here(loaded.settings.build), OWN, 0)
    with store.ledger.write() as connection:
        runtimes.register(connection, own.facts, OWN, now_us=now_us())
        asked = pushing.current(connection, model)
        known = {each.runtime: each for each in runtimes.listed(connection)}
    if asked is not None:
        return asked[1]
    found = sorted(set(running_in(store, model).values())) or [own.facts.id]
    for each in found:
        if each not in known:
            raise RefusedError(
                "HF403",
                f"servers are {each}, and nobody said how that is started, so that there would be no way back",
                state="nothing was written",
                next_command="holdfast runtime register -- COMMAND, with the command that servers were started by",
            )
    return known[found[0]]


def running_in(store: Store, model: str) -> dict[str, str]:
    """What each server says that it is; those that say nothing are left out."""
    said: dict[str, str] = {}
    for server in servers.registered(store, model):
        if servers.has_ended(server):
            continue
        try:
            with ServerClient(server) as client:
                found = client.status().get("runtime")
        except FAILURES:
            continue
        if isinstance(found, str):
            said[server.server] = found
    return said


def _try_out(loaded: Project, declaration: Path | None, name: str, version: str) -> Release:
    place = place_of(loaded, declaration)
    with place.store.ledger.read() as connection:
        candidate = runtimes.get(connection, name)
    beside = _beside(loaded, place.store, candidate, version)
    return pushing.try_out(place, version, candidate, beside, place.serve[len(OWN) :])


def _beside(loaded: Project, store: Store, candidate: BinaryRow, version: str) -> Sequence[str]:
    """The command whose answers `candidate` must give too: of what serves; where that is the candidate itself, of what the
    version passed with before and can be started here, else of this binary."""
    present = serving(loaded)
    if present.runtime != candidate.runtime:
        return present.command or OWN
    with store.ledger.read() as connection:
        known = [runtimes.get(connection, each) for each in runtimes.passed(connection, version)]
    others = [each.command for each in known if each.runtime != candidate.runtime and each.command]
    return next((each for each in others if shutil.which(each[0])), OWN)


def _say(report: Report, found: Release) -> None:
    colour = "green" if found.verdict is Verdict.PASS else "red"
    report.say(
        f"[{colour}]{found.verdict}[/] {found.version} with {found.runtime}: {escape(found.explanation)}"
    )
