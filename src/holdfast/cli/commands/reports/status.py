"""The command that tells everything about the model: status."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from holdfast import formatting
from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.reports.status import status as assemble_status
from holdfast.formatting import ago, moment

_STALE_US = 30_000_000
"""A probe that is older, in microseconds, says nothing about now."""
_SHOWN_EVENTS = 6
_EVENT_CHARACTERS = 100


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


def _print_status(report: Report, document: dict[str, Any]) -> None:
    now_us = document["now_us"]
    plan = document["plan"]
    report.say(f"model [bold]{document['model']}[/]")
    if plan is None:
        report.say(f"no version answers yet; next: [cyan]{_first_steps(document)}[/]")
    else:
        share = (
            f", challenger {plan['challenger']} at {formatting.share(plan['share_ppm'])}"
            if plan["challenger"]
            else ""
        )
        report.say(f"champion [bold]{plan['champion']}[/]{share} (plan {plan['plan']})")
    for version in document["versions"]:
        if version["taint"] and version["place"] == "champion":
            report.say(
                f"[red]{version['version']} answers although it is tainted[/]: {escape(version['taint'])}"
            )
            report.say("  nothing clean can answer in its place; next: [cyan]holdfast train[/]")
    for server in document["servers"]:
        probed_at_us = server["probed_at_us"]
        stale = probed_at_us is None or now_us - probed_at_us > _STALE_US
        report.say(
            f"server {server['server']} at {server['address']}: {'not known' if stale else server['verdict']}, "
            f"probed {ago(probed_at_us, now_us)}: {escape(server['explanation'])}"
        )
        if stale:
            report.say("  no control loop is running; next: [cyan]holdfast up[/]")
    for hook in document["held_by"]:
        report.say(f"[yellow]the rollout waits for a hook[/]: {escape(hook)}")
    _say_asked(report, document["asked"])
    _say_drills(report, document["drills"])
    _tables(report, document)


def _say_asked(report: Report, asked: dict[str, Any] | None) -> None:
    """What callers ask the champion, where it is not what the champion learnt from."""
    if asked is None or not asked["answers"]:
        return
    for each in asked["slices"]:
        if not each["covered"]:
            report.say(
                f"[yellow]not covered[/] {escape(each['column'])} = {escape(each['value'])}: {each['share']:.1%} of the newest "
                f"{asked['answers']:,} answers, and no row that taught {asked['version']}"
            )
    if asked["label"] is not None:
        shifted = "[yellow]label shifted[/] " if asked["label"]["shifted"] else ""
        report.say(f"{shifted}{escape(asked['label']['words'])}")


def _say_drills(report: Report, drills: list[dict[str, Any]]) -> None:
    """What is proved to work, and until when; what was never drilled is said once for all."""
    never = [each["kind"] for each in drills if not each["ready"] and "never" in each["explanation"]]
    for each in drills:
        if each["ready"]:
            report.say(f"[green]{each['kind']} ready[/] until {moment(each['until_us'])}")
        elif each["kind"] not in never:
            report.say(
                f"[yellow]not ready[/]: {escape(each['explanation'])}; next: holdfast drill {each['kind']}"
            )
    if never:
        report.say(f"[dim]never drilled: {', '.join(never)}; next: holdfast drill --all[/]")


def _tables(report: Report, document: dict[str, Any]) -> None:
    if document["feeds"]:
        report.table(
            "Feeds",
            ["feed", "batches", "rows", "in quarantine"],
            [
                (row["feed"], row["batches"], row["rows_loaded"], row["rows_quarantined"])
                for row in document["feeds"]
            ],
        )
    if document["versions"]:
        report.table(
            "Versions",
            ["version", "role", "state", "place", "AUC", "labelled", "requests"],
            [
                (
                    *(row["version"], row["role"], _state(row), row["place"]),
                    *(row["auc"], row["labelled"], row["requests"]),
                )
                for row in document["versions"]
            ],
        )
    if document["events"]:
        report.say("[bold]Newest events[/]")
        for row in document["events"][:_SHOWN_EVENTS]:
            first = row["explanation"].splitlines()[0]
            told = first if len(first) <= _EVENT_CHARACTERS else first[: _EVENT_CHARACTERS - 1] + "…"
            report.say(
                f"  [dim]{moment(row['at_us'])}[/] {row['kind']} {escape(row['subject'])}: {escape(told)}"
            )


def _state(version: dict[str, Any]) -> str:
    """What a version may be used for: a tainted one for nothing, whatever the gates said."""
    return f"{version['state']}, tainted" if version["taint"] else str(version["state"])


def _first_steps(document: dict[str, Any]) -> str:
    """The command that comes next for a model that nobody answers for."""
    candidates = [row for row in document["versions"] if row["role"] == "candidate" and not row["taint"]]
    states = {row["state"] for row in candidates}
    if document["rollouts"] and document["rollouts"][0]["running"]:
        return "holdfast up"
    if "qualified" in states:
        return "holdfast rollout start"
    if "registered" in states:
        return "holdfast qualify"
    return "holdfast train" if document["feeds"] else "holdfast ingest FEED FILE"
